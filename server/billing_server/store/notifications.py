"""Waking the readers of events in all processes, by LISTEN and NOTIFY.

A notification is a hint, never the truth: readers also look by themselves now and then, so one that is lost
costs a moment, nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import asyncpg

from billing_server.store.errors import DRIVER_ERRORS
from billing_server.store.migrate import announce

LOGGER = logging.getLogger(__name__)

CHANNEL: Final = "billing_events"
_PAYLOAD_BYTES_MAX: Final = 7_900
_SEPARATOR: Final = ","
_SENDER: Final = "from_"
"""What stands before the name of who tells, in the place of an account that there is not."""

_CONNECT_SECONDS_MAX: Final = 10.0
_RETRY_SECONDS: Final = 1.0
_PROBE_SECONDS: Final = 30.0


def notification_payloads(account_ids: Iterable[str], sender: str) -> Iterator[str]:
    """The accounts as payloads within PostgreSQL's limit of 8000 bytes, each beginning with who tells."""
    start = _SENDER + sender
    chosen = [start]
    length = len(start)
    for account_id in sorted(set(account_ids)):
        if length + len(account_id) + 1 > _PAYLOAD_BYTES_MAX:
            yield _SEPARATOR.join(chosen)
            chosen, length = [start], len(start)
        chosen.append(account_id)
        length += len(account_id) + 1
    if len(chosen) > 1:
        yield _SEPARATOR.join(chosen)


class Listener:
    """A connection that listens, and is made again whenever it breaks.

    Every process that serves has one for as long as it lives, so it also says which release is there.
    """

    def __init__(self, dsn: str, callback: Callable[[frozenset[str] | None], None], own_name: str) -> None:
        self._dsn = dsn
        self._callback = callback
        self._own = _SENDER + own_name
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen. Returns at once; the callback gets None as soon as the connection stands."""
        self._task = asyncio.create_task(self._run(), name="store-listener")

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except DRIVER_ERRORS as error:
                LOGGER.warning("listening for events was interrupted: %r", error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _listen(self) -> None:
        """Listen until the connection breaks."""
        connection = await asyncpg.connect(
            self._dsn,
            timeout=_CONNECT_SECONDS_MAX,
            server_settings={"application_name": "billing-listener"},
            statement_cache_size=0,
        )
        try:
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            await announce(connection)
            await connection.add_listener(CHANNEL, self._heard)
            # Whatever was told while nobody listened is lost: readers must look for themselves once.
            self._callback(None)
            while not lost.is_set():
                # A connection may die without a word; asking now and then finds out.
                # No wait_for here: when the connection breaks just as this task is canceled, it would swallow that.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PROBE_SECONDS):
                        await lost.wait()
                    return
                await connection.execute("SELECT 1", timeout=_CONNECT_SECONDS_MAX)
        finally:
            connection.terminate()

    def _heard(self, _connection: Any, _process: int, _channel: str, payload: object) -> None:
        sender, *accounts = str(payload).split(_SEPARATOR)
        if sender == self._own:
            return
        # A process of an earlier version does not say who it is.
        self._callback(frozenset(accounts if sender.startswith(_SENDER) else (sender, *accounts)))
