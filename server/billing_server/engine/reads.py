"""Reads by id that meet share a view: the counterpart of group commit.

While an account is being read, further reads of it gather, and the next view answers all of them by one query for each
kind of object. A query answers only reads that were there before it was sent, so whoever has been told of a change
sees it. Nothing waits for company: the first read of an account that nobody reads goes at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from billing_server.domain.errors import ResourceMissing
from billing_server.store.errors import StoreTimeout, StoreUnavailable
from billing_server.store.store import Store
from billing_server.store.view import View

LOGGER = logging.getLogger(__name__)

BATCH_MAX: Final = 250
"""Reads that one query answers."""

PATIENCE_SECONDS: Final = 0.01
"""How long reads wait for the view before them; then they get one beside it, for it may hang."""

VIEWS_AT_ONCE_MAX: Final = 4
"""Views of one account at once."""

SECONDS_MAX: Final = 30.0
"""How long a view may take. Callers have deadlines of their own, and go away by themselves."""

T = TypeVar("T", bound=msgspec.Struct)


class _Read(NamedTuple):
    noun: type[msgspec.Struct]
    id: str
    answer: asyncio.Future[Any]
    """The object, or None when there is none."""


class _Account:
    """What is wanted of one account, by how many tasks it is being read, and when another one comes to help."""

    __slots__ = ("help", "readers", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Read] = deque()
        self.readers = 0
        self.help: asyncio.TimerHandle | None = None

    def taken(self) -> list[_Read]:
        """The next batch."""
        batch = [self.waiting.popleft() for _ in range(min(len(self.waiting), BATCH_MAX))]
        if self.help is not None and not self.waiting:
            self.help.cancel()
            self.help = None
        return batch

    def end(self) -> None:
        """Nothing that waits is answered any more."""
        while self.waiting:
            _fail(self.taken(), StoreUnavailable("the server is stopping"))


class Reads:
    """Gathers reads by account. A caller that goes away disturbs nobody; what fails for one fails for it alone."""

    def __init__(self, store: Store, *, seconds_max: float = SECONDS_MAX) -> None:
        self._store = store
        self._seconds_max = seconds_max
        self._accounts: dict[str, _Account] = {}
        self._readers: set[asyncio.Task[None]] = set()

    def of(self, account_id: str) -> AccountReads:
        """Reading of one account."""
        return AccountReads(self, account_id)

    def find(self, account_id: str, noun: type[T], identity: str) -> asyncio.Future[T | None]:
        """The object with this id, as soon as it is found; None when there is none.

        Raises what `store.errors` lists.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T | None] = loop.create_future()
        account = self._accounts.get(account_id)
        if account is None:
            account = self._accounts[account_id] = _Account()
        account.waiting.append(_Read(noun, identity, answer))
        if not account.readers:
            self._start_reader(account_id, account)
        elif account.help is None and account.readers < VIEWS_AT_ONCE_MAX:
            account.help = loop.call_later(PATIENCE_SECONDS, self._start_reader, account_id, account)
        return answer

    def _start_reader(self, account_id: str, account: _Account) -> None:
        account.help = None
        account.readers += 1
        reader = asyncio.create_task(self._read(account_id, account), name=f"read {account_id}")
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)

    async def close(self) -> None:
        """Break off what is still being read; whoever waits is told."""
        readers = list(self._readers)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        for account in self._accounts.values():
            # One that was ended before it began has told nobody.
            account.end()

    async def _read(self, account_id: str, account: _Account) -> None:
        """Use view after view until nothing waits."""
        try:
            while account.waiting:
                await self._use_view(account_id, account)
        except BaseException:
            # Only the end of the server comes this far.
            account.end()
            raise
        finally:
            account.readers -= 1
            if not account.readers:
                del self._accounts[account_id]

    async def _use_view(self, account_id: str, account: _Account) -> None:
        """Answer what waits once the view can be used."""
        batch: list[_Read] = []
        try:
            async with self._view(account_id) as view:
                batch = account.taken()
                await _look_up(view, batch)
        except (StoreTimeout, StoreUnavailable, TimeoutError) as error:
            _fail(batch or account.taken(), _told(error))
        except asyncio.CancelledError:
            _fail(batch, StoreUnavailable("the server is stopping"))
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it is told to whom it concerns
            await self._one_by_one(account_id, batch, error)

    async def _one_by_one(self, account_id: str, batch: Sequence[_Read], error: Exception) -> None:
        """Something about one of the reads has broken their view: each that is left has one of its own."""
        left = [read for read in batch if not read.answer.done()]
        LOGGER.warning("%d reads of %s are tried one by one: %r", len(left), account_id, error)
        for read in left:
            try:
                async with self._view(account_id) as view:
                    await _look_up(view, [read])
            except asyncio.CancelledError:
                _fail(left, StoreUnavailable("the server is stopping"))
                raise
            except Exception as own:  # noqa: BLE001  # as above
                _fail([read], _told(own))

    @contextlib.asynccontextmanager
    async def _view(self, account_id: str) -> AsyncIterator[View]:
        seconds = self._seconds_max
        async with asyncio.timeout(seconds), self._store.view(account_id) as view:
            yield view


def _told(error: Exception) -> Exception:
    """What a caller is told of a view that failed: its own deadline has not passed, if it is still there to hear."""
    if isinstance(error, StoreTimeout | TimeoutError):
        return StoreUnavailable("the database did not answer in time")
    return error


async def _look_up(view: View, batch: Sequence[_Read]) -> None:
    """Find what is wanted, kind by kind, and answer each kind at once."""
    wanted: dict[type[msgspec.Struct], dict[str, list[asyncio.Future[Any]]]] = {}
    for noun, identity, answer in batch:
        if not answer.done():
            wanted.setdefault(noun, {}).setdefault(identity, []).append(answer)
    for noun, answers_by_id in wanted.items():
        objects: Sequence[Any] = await view.get_many(noun, list(answers_by_id))
        found = {obj.id: obj for obj in objects}
        for identity, answers in answers_by_id.items():
            for answer in answers:
                if not answer.done():
                    answer.set_result(found.get(identity))


def _fail(reads: Iterable[_Read], error: Exception) -> None:
    for read in reads:
        if not read.answer.done():
            read.answer.set_exception(error)


class AccountReads:
    """Reading of one account by id. Made by `Reads.of`; reads as a `View` does, and shares views with others."""

    __slots__ = ("_account_id", "_reads")

    def __init__(self, reads: Reads, account_id: str) -> None:
        self._reads = reads
        self._account_id = account_id

    async def get(self, noun: type[T], identity: str, resource_type: str, field: str = "id") -> T:
        """The object with this id. Raises ResourceMissing, naming the given type and field."""
        found = await self._reads.find(self._account_id, noun, identity)
        if found is None:
            raise ResourceMissing(resource_type, identity, field=field)
        return found

    async def get_many(self, noun: type[T], ids: Sequence[str]) -> list[T]:
        """The objects with these ids, as far as they exist, in no particular order."""
        found = await asyncio.gather(*(self._reads.find(self._account_id, noun, identity) for identity in ids))
        return [obj for obj in found if obj is not None]
