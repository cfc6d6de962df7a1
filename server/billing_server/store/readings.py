"""Reading transactions that outlive their reader for a moment, so that the account's next reader finds one begun.

Each statement of a reading sees all that was committed before it was sent (READ COMMITTED), so nothing becomes stale
while it is open; what is spared are the round trips that begin and end a transaction, two of three when one object is
read. A reading is kept under the account that it has named and given to readers of that account only; one in which
anything failed is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import asyncpg

from billing_server.store.database import Connection, Database, account_setting
from billing_server.store.errors import StoreError, StoreUnavailable

LINGER_SECONDS: Final = 0.02
"""How long a reading waits for its next reader. PostgreSQL calls it idle in transaction meanwhile."""

AGE_SECONDS_MAX: Final = 0.25
"""How old a reading gets: a migration that must have a table for itself waits so long at most."""

_END_SECONDS_MAX: Final = 10.0
"""How long a connection may take to end a reading before it is given up."""

_STATEMENT_SECONDS_MAX: Final = 60
"""How long a statement may take. Each caller's own deadline is kept by canceling its statement; this is for a process
that hangs, and for a cancellation that PostgreSQL heard before it had read the statement."""

_OPEN_MIN: Final = 2
"""Readings of one account at once, at least; otherwise half of the connections, so that reading one account leaves
room for the rest."""

T = TypeVar("T")


class _Account:
    """The readings of one account: how many are open, which wait for a reader, and the readers that wait for one.

    A reader is handed a reading, or None when it may begin one.
    """

    __slots__ = ("kept", "open", "readers")

    def __init__(self) -> None:
        self.open = 0
        self.kept: list[Reading] = []
        self.readers: deque[asyncio.Future[Reading | None]] = deque()


class Readings:
    """Begins readings, hands them from reader to reader, and ends them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open_max = max(_OPEN_MIN, database.max_connections // 2)
        self._accounts: defaultdict[str, _Account] = defaultdict(_Account)
        self._ending: set[asyncio.Task[None]] = set()
        database.spare = self._spare

    @contextlib.asynccontextmanager
    async def of(self, account_id: str) -> AsyncIterator[Reading]:
        """A reading of an account, for one reader alone meanwhile. Raises what `store.errors` lists."""
        reading = await self._found(account_id)
        try:
            yield reading
        except BaseException:
            # A reader that is canceled may be canceled once more; its statement must be, too, in any case.
            self._do_beside(self._break_off(reading))
            raise
        self._used(reading)

    async def close(self) -> None:
        """End the readings that wait for a reader."""
        for account in list(self._accounts.values()):
            for reading in list(account.kept):
                self._end_soon(reading)
        await asyncio.gather(*self._ending)

    async def begin_again(self, reading: Reading) -> None:
        """Give a reading that was lost another connection. Raises StoreUnavailable."""
        reading.broken = True
        await self._database.give_back(reading)
        reading.replace(await self._begun(reading.account_id))

    # --- finding one

    async def _found(self, account_id: str) -> Reading:
        account = self._accounts[account_id]
        if account.kept:
            # The one that was used last, so that those which are not needed come to their end.
            return self._take(account, account.kept[-1])
        if account.open >= self._open_max:
            handed = await self._handed(account_id, account)
            if handed is not None:
                return handed
        else:
            account.open += 1
        try:
            return Reading(self, account_id, await self._begun(account_id))
        except BaseException:
            self._ended(account_id)
            raise

    async def _handed(self, account_id: str, account: _Account) -> Reading | None:
        """Wait until a reader of the account is done with its reading."""
        handed: asyncio.Future[Reading | None] = asyncio.get_running_loop().create_future()
        account.readers.append(handed)
        try:
            async with self._database.waiting():
                return await handed
        except BaseException:
            if handed.done() and not handed.cancelled():
                # It was handed over just now, to nobody any more.
                self._hand_on(account_id, handed.result())
            raise

    async def _begun(self, account_id: str) -> Connection:
        timeout = f"SET LOCAL statement_timeout = '{_STATEMENT_SECONDS_MAX}s'"
        return await self._database.begin(f"BEGIN READ ONLY; {account_setting(account_id)}; {timeout}")

    # --- what becomes of one that was used

    def _used(self, reading: Reading) -> None:
        if self._database.queued or asyncio.get_running_loop().time() >= reading.ends_at:
            self._end_beside(reading)
        else:
            self._hand_on(reading.account_id, reading)

    def _hand_on(self, account_id: str, reading: Reading | None) -> None:
        """Give a reading, or the right to begin one, to who has waited longest; without anybody, let it wait."""
        account = self._accounts[account_id]
        while account.readers:
            reader = account.readers.popleft()
            if not reader.done():
                if reading is not None:
                    reading.taken_over = True
                reader.set_result(reading)
                return
        if reading is None:
            self._close_place(account_id, account)
            return
        account.kept.append(reading)
        reading.expiry = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._end_soon, reading)

    def _take(self, account: _Account, reading: Reading) -> Reading:
        """It waits no longer."""
        assert reading.expiry is not None
        reading.expiry.cancel()
        account.kept.remove(reading)
        reading.taken_over = True
        return reading

    # --- ending

    async def _spare(self) -> None:
        """No connection is free: no reading may hold one while it waits."""
        for account in self._accounts.values():
            if account.kept:
                await self._end(self._take(account, account.kept[0]))
                return

    def _end_soon(self, reading: Reading) -> None:
        self._end_beside(self._take(self._accounts[reading.account_id], reading))

    def _end_beside(self, reading: Reading) -> None:
        """End it while its reader goes on: the end of a transaction that only read tells nothing."""
        self._do_beside(self._end(reading))

    def _do_beside(self, end: Coroutine[Any, Any, None]) -> None:
        ending = asyncio.create_task(end)
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _end(self, reading: Reading) -> None:
        try:
            async with asyncio.timeout(_END_SECONDS_MAX):
                await reading.commit()
        except (StoreError, TimeoutError):
            # It was lost, with nothing to lose.
            reading.broken = True
        finally:
            await self._give_back(reading)

    async def _break_off(self, reading: Reading) -> None:
        try:
            async with asyncio.timeout(_END_SECONDS_MAX):
                await reading.roll_back()
        except TimeoutError:
            reading.broken = True
        finally:
            await self._give_back(reading)

    async def _give_back(self, reading: Reading) -> None:
        try:
            await self._database.give_back(reading)
        finally:
            self._ended(reading.account_id)

    def _ended(self, account_id: str) -> None:
        """One reading less: who waits may begin one."""
        self._hand_on(account_id, None)

    def _close_place(self, account_id: str, account: _Account) -> None:
        account.open -= 1
        if not account.open:
            del self._accounts[account_id]


class Reading(Connection):
    """A connection in a reading transaction of one account.

    One that was taken over may have been lost without anybody noticing; then it is begun anew, as it would have been if
    nobody had kept it.
    """

    __slots__ = ("_readings", "account_id", "ends_at", "expiry", "taken_over")

    def __init__(self, readings: Readings, account_id: str, begun: Connection) -> None:
        super().__init__(begun.raw)
        self._readings = readings
        self.account_id = account_id
        self.ends_at = asyncio.get_running_loop().time() + AGE_SECONDS_MAX
        self.expiry: asyncio.TimerHandle | None = None
        self.taken_over = False

    async def fetch(self, query: str, *parameters: object) -> list[asyncpg.Record]:
        """All rows of a query."""
        return await self._asked(super().fetch, query, parameters)

    async def fetchrow(self, query: str, *parameters: object) -> asyncpg.Record | None:
        """The first row of a query, if there is one."""
        return await self._asked(super().fetchrow, query, parameters)

    async def fetchval(self, query: str, *parameters: object) -> Any:
        """The first column of the first row, if there is one."""
        return await self._asked(super().fetchval, query, parameters)

    async def _asked(self, ask: Callable[..., Awaitable[T]], query: str, parameters: tuple[object, ...]) -> T:
        try:
            return await ask(query, *parameters)
        except StoreUnavailable:
            if not self.taken_over:
                raise
            self.taken_over = False
            await self._readings.begin_again(self)
            return await ask(query, *parameters)
