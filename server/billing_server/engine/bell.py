"""Waking the readers of events: at once in this process, by one coalesced notification in the others.

A bell is a hint. Readers look for themselves now and then, so a lost ring costs a moment and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from billing_server.store.errors import StoreError
from billing_server.store.store import Store

LOGGER = logging.getLogger(__name__)

_COALESCE_SECONDS = 0.005
_TELL_SECONDS_MAX = 5.0


Overhear = Callable[[Iterable[str] | None], None]
"""Is told of accounts with new events; None when some may have gone unheard."""


class Bell:
    """Rings for accounts with new events."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listener = store.listen(self._heard)
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._overhearing: set[Overhear] = set()
        self._to_tell: set[str] = set()
        self._telling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to hear other processes."""
        await self._listener.start()

    async def close(self) -> None:
        """Stop hearing and telling."""
        if self._telling is not None:
            self._telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._telling
        await self._listener.close()

    def ring(self, account_id: str) -> None:
        """Events of the account were committed: wake its readers here, and tell the other processes soon."""
        self._heard((account_id,))
        self._to_tell.add(account_id)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        while self._to_tell:
            await asyncio.sleep(_COALESCE_SECONDS)
            accounts, self._to_tell = self._to_tell, set()
            try:
                async with asyncio.timeout(_TELL_SECONDS_MAX):
                    await self._store.notify(accounts)
            except (StoreError, TimeoutError) as error:
                LOGGER.warning("readers in other processes were not woken: %r", error)

    def _heard(self, accounts: Iterable[str] | None) -> None:
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

    @contextlib.contextmanager
    def overhearing(self, overhear: Overhear) -> Iterator[None]:
        """Be told of every ring, whichever account it is for; for those who would wait for very many accounts."""
        self._overhearing.add(overhear)
        try:
            yield
        finally:
            self._overhearing.discard(overhear)
