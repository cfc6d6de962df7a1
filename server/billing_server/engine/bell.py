"""Waking the readers of events: at once in this process, by one coalesced notification in the others.

A bell is a hint. Readers look for themselves now and then, so a lost ring costs a moment and nothing else. In the
process in which they were made, the events themselves go with the ring to whoever keeps the newest ones, so that
nobody has to read from the database what was written there a moment ago.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from billing_server.store.errors import StoreError
from billing_server.store.event import Appended
from billing_server.store.store import Store

LOGGER = logging.getLogger(__name__)

_COALESCE_SECONDS = 0.005
_TELL_SECONDS_MAX = 5.0
_LAST_WORDS_SECONDS = 1.0


Overhear = Callable[[Iterable[str] | None], None]
"""Is told of accounts with new events; None when some may have gone unheard."""

Receive = Callable[[Appended | None], None]
"""Is given the events that one transaction has committed; None when others have, or may have, committed some."""


class Bell:
    """Rings for accounts with new events."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._name = secrets.token_hex(8)
        self._listener = store.listen(self._heard, self._name)
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._receiving: dict[str, Receive] = {}
        self._overhearing: set[Overhear] = set()
        self._to_tell: set[str] = set()
        self._telling: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def start(self) -> None:
        """Begin to hear other processes."""
        self._closing.clear()
        await self._listener.start()

    async def close(self) -> None:
        """Stop hearing, and tell what is still to be told; later rings are heard in this process only."""
        await self._listener.close()
        self._closing.set()
        if self._telling is not None:
            _, late = await asyncio.wait({self._telling}, timeout=_LAST_WORDS_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)

    def ring(self, account_id: str, appended: Appended | None = None) -> None:
        """Events were committed (None: unknown ones): wake the account's readers here, tell other processes soon."""
        receive = self._receiving.get(account_id)
        if receive is not None:
            receive(appended)
        self._wake_all((account_id,))
        if self._closing.is_set():
            return
        self._to_tell.add(account_id)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        while self._to_tell:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_COALESCE_SECONDS):
                    await self._closing.wait()
            accounts, self._to_tell = self._to_tell, set()
            try:
                async with asyncio.timeout(_TELL_SECONDS_MAX):
                    await self._store.notify(accounts, self._name)
            except (StoreError, TimeoutError) as error:
                LOGGER.warning("readers in other processes were not woken: %r", error)

    def _heard(self, accounts: Iterable[str] | None) -> None:
        """Other processes have rung; None: they may have."""
        for account_id in list(self._receiving) if accounts is None else accounts:
            receive = self._receiving.get(account_id)
            if receive is not None:
                receive(None)
        self._wake_all(accounts)

    def _wake_all(self, accounts: Iterable[str] | None) -> None:
        self._wake(list(self._waiting) if accounts is None else accounts)
        for overhear in self._overhearing:
            overhear(accounts)

    def _wake(self, accounts: Iterable[str]) -> None:
        for account_id in accounts:
            for waiter in self._waiting.get(account_id, ()):
                waiter.set()

    @contextlib.contextmanager
    def listening(self, account_id: str, waiter: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
        """An `asyncio.Event` that is set whenever the account has new events; clear it before each look.

        It is the given one, for who waits for more than the bell.
        """
        waiter = asyncio.Event() if waiter is None else waiter
        self._waiting[account_id].add(waiter)
        try:
            yield waiter
        finally:
            self._waiting[account_id].discard(waiter)
            if not self._waiting[account_id]:
                del self._waiting[account_id]

    def receive(self, account_id: str, receive: Receive) -> None:
        """Be given the account's new events, before anybody is woken for them; one receiver for each account."""
        self._receiving[account_id] = receive

    def receive_no_more(self, account_id: str) -> None:
        """End `receive`."""
        del self._receiving[account_id]

    @contextlib.contextmanager
    def overhearing(self, overhear: Overhear) -> Iterator[None]:
        """Be told of every ring, whichever account it is for; for those who would wait for very many accounts."""
        self._overhearing.add(overhear)
        try:
            yield
        finally:
            self._overhearing.discard(overhear)
