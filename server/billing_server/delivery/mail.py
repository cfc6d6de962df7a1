"""Delivering e-mail messages: at least once, retried for three days, beside everything else (promise 21).

Due messages are claimed for a while, sent, and settled. A process that dies in between leaves them to be claimed
again, by whomever, when that while is over; they go out a second time under the same Message-ID. Any number of
processes do this beside each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from typing import Final

from billing_server.delivery.letter import LetterError, Sender, write_letter
from billing_server.delivery.outbox import SEND_SECONDS_MAX, DeliveryError, Outbox, Rejected, Unreachable
from billing_server.domain.calendar import DAY
from billing_server.domain.message import Message
from billing_server.store.errors import StoreError
from billing_server.store.message import Tried
from billing_server.store.store import Store

LOGGER = logging.getLogger(__name__)

AT_ONCE_MAX: Final = 10
"""Letters on their way at once, and claimed at once."""

LEASE_SECONDS: Final = int(SEND_SECONDS_MAX) * 2
RETRY_SECONDS: Final = (30, 120, 600, 1_800, 3_600, 7_200, 14_400)
"""Pauses after failed tries; the last one again and again."""

GIVE_UP_SECONDS: Final = 3 * DAY
KEPT_SECONDS: Final = 90 * DAY
"""How long settled messages are kept, to be looked up."""

_POLL_SECONDS: Final = 1.0
_PAUSE_SECONDS_MAX: Final = 60.0
_HOUSEKEEPING_SECONDS: Final = 3_600.0
_ERROR_CHARACTERS_MAX: Final = 500


class Mail:
    """The mail of one process: `start` it, and `close` it in the end.

    `sandbox` takes the letters to customers on test clocks, so that nobody real is written to about time that has
    not passed. `outcomes` counts tries: sent, retried, failed for good.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        sender: Sender,
        *,
        sandbox: Outbox,
        retry_seconds: Sequence[int] = RETRY_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._sandbox = sandbox
        self._sender = sender
        self._retry_seconds = retry_seconds
        self._now = now
        self._unreachable = 0
        self._writing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.outcomes: Counter[str] = Counter()

    def start(self) -> None:
        """Begin to look for due messages."""
        self._task = asyncio.create_task(self._run(), name="deliver e-mail")

    async def close(self, drain_seconds: float = SEND_SECONDS_MAX) -> None:
        """Claim no more; letters on their way get so long to arrive, and are sent again later when they do not."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=drain_seconds)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._outbox.close()
        await self._sandbox.close()

    async def _run(self) -> None:
        """Deliver until the end. Nothing that goes wrong here may end it, or reach anybody else."""
        cleaned_at = time.monotonic()
        while not self._stopping.is_set():
            try:
                await self.deliver()
                if time.monotonic() - cleaned_at > _HOUSEKEEPING_SECONDS:
                    cleaned_at = time.monotonic()
                    await self.forget_old()
            except StoreError as error:
                LOGGER.warning("messages cannot be looked for: %s", error)
            except Exception:
                LOGGER.exception("messages could not be delivered")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._stopping.wait()

    def _pause(self) -> float:
        """Until the next look; longer and longer while the server is away, so that it is not stormed."""
        return min(_POLL_SECONDS * 2.0 ** min(self._unreachable, 10), _PAUSE_SECONDS_MAX)

    async def deliver(self) -> int:
        """Deliver what is due, the accounts in turns; return how many tries that took."""
        tries = 0
        accounts = await self._store.accounts_with_due_messages()
        while accounts and not self._stopping.is_set():
            busy = []
            for account_id in accounts:
                claimed = await self._store.claim_messages(account_id, AT_ONCE_MAX, LEASE_SECONDS)
                tries += len(claimed)
                if await self._deliver(account_id, claimed):
                    return tries
                if len(claimed) == AT_ONCE_MAX:
                    busy.append(account_id)
            accounts = busy
        return tries

    async def _deliver(self, account_id: str, claimed: Sequence[Message]) -> bool:
        """Try some messages at once, and keep what became of them; whether the server is away."""
        if not claimed:
            return False
        away_before = self._unreachable
        tried = await asyncio.gather(*map(self._try, claimed))
        await self._store.settle_messages(account_id, tried)
        away = self._unreachable > away_before
        self._unreachable = away_before + 1 if away else 0
        return away

    async def _try(self, message: Message) -> Tried:
        """Send one message, and say what became of it."""
        outbox = self._outbox if message.test_clock is None else self._sandbox
        try:
            await outbox.send(await self._write(message), message.id)
        except (LetterError, Rejected) as error:
            LOGGER.warning("message %s is not delivered: %s", message.id, error)
            return self._failed(message, str(error))
        except DeliveryError as error:
            if isinstance(error, Unreachable):
                self._unreachable += 1
            return self._postponed(message, str(error))
        except Exception as error:
            LOGGER.exception("message %s could not be sent", message.id)
            return self._postponed(message, f"{type(error).__name__} within the server, see its log")
        self.outcomes["sent"] += 1
        return Tried(id=message.id, attempts=message.attempts)

    async def _write(self, message: Message) -> EmailMessage:
        """Write one letter, then leave as much time to others: writing takes some milliseconds of everybody's loop."""
        async with self._writing:
            begun = time.perf_counter()
            letter = write_letter(message, self._sender)
            await asyncio.sleep(time.perf_counter() - begun)
            return letter

    def _postponed(self, message: Message, error: str) -> Tried:
        if self._now() - message.created_real >= GIVE_UP_SECONDS:
            LOGGER.warning("message %s is given up: %s", message.id, error)
            return self._failed(message, error)
        self.outcomes["retried"] += 1
        wait = self._retry_seconds[min(message.attempts, len(self._retry_seconds)) - 1]
        return Tried(id=message.id, attempts=message.attempts, error=error[:_ERROR_CHARACTERS_MAX], wait=wait)

    def _failed(self, message: Message, error: str) -> Tried:
        self.outcomes["failed"] += 1
        return Tried(id=message.id, attempts=message.attempts, error=error[:_ERROR_CHARACTERS_MAX])

    async def forget_old(self) -> None:
        """Drop messages that were settled long ago."""
        before = int(self._now()) - KEPT_SECONDS
        for account_id in await self._store.account_ids():
            while await self._store.purge_messages(account_id, before):
                pass
