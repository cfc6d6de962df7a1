"""Callers that will not be put off: every change has its key, is tried at one server after the other, and is noted.

Some callers vanish in the middle of a call, and come back with the same key or never; some are so impatient that
they send the same request to two servers at once. What was acknowledged is kept, for the audit.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Literal

from billing.v1.subscription_service_pb2 import CreateSubscriptionRequest, SubscriptionToCreate
from billing_client import BillingClient
from billing_client.calls import idempotency_key
from billing_client.errors import BillingError, DeadlineExceeded, ServerFailed
from billing_client.retry import RetryPolicy, is_transient

CALL_SECONDS_MAX: Final = 15.0
VANISHING: Final = 0.06
VANISH_SECONDS_MAX: Final = 0.06
COMING_BACK: Final = 0.6
DOUBLING: Final = 0.04

_ONCE: Final = RetryPolicy(attempts_max=1)


class Change:
    """One change that somebody asked for. `answer` is what was acknowledged, `refusal` why it will never be."""

    def __init__(self, service: str, method: str, request: Any, key: str) -> None:
        self.service = service
        self.method = method
        self.request = request
        self.key = key
        self.answer: Any = None
        self.refusal: BillingError | None = None

    @property
    def state(self) -> Literal["acknowledged", "refused", "unknown"]:
        """What the caller knows of it."""
        if self.answer is not None:
            return "acknowledged"
        return "unknown" if self.refusal is None else "refused"


class GaveUp(Exception):
    """The caller went away, or no server answered in all the time there was."""


class Calls:
    """Calls to any of the servers by one account. `until` is when callers give up, by `time.monotonic`."""

    def __init__(self, targets: Sequence[str], api_key: str) -> None:
        self.targets = targets
        self.api_key = api_key
        self.clients = [BillingClient(target, api_key, retry=_ONCE) for target in targets]
        self.changes: list[Change] = []
        self.counts: Counter[str] = Counter()
        self.broken: list[str] = []
        """Answers that no server may give: failures of the engine, two answers to one key."""
        self.put_off: Counter[str] = Counter()
        """The reasons, in the engine's words, for which callers were told to try again."""
        self.until = 0.0
        self.orderly = True
        """Whether callers behave; otherwise some vanish, and some ask twice at once."""

    async def close(self) -> None:
        """Give up all connections."""
        for client in self.clients:
            await client.close()

    async def change(self, dice: random.Random, service: str, method: str, request: Any) -> Any:
        """Have something done, once. Raises BillingError when it is refused, GaveUp when nobody knows."""
        change = self._noted(service, method, request)
        self.counts[method] += 1
        if not self.orderly and dice.random() < VANISHING:
            await self._vanish(dice, change)
            if dice.random() > COMING_BACK:
                raise GaveUp(method)
        if not self.orderly and dice.random() < DOUBLING:
            return await self._twice(dice, change)
        return await self._until_answered(dice, change)

    def _noted(self, service: str, method: str, request: Any) -> Change:
        change = Change(service, method, request, f"chaos_{len(self.changes)}")
        if "metadata" in request.DESCRIPTOR.fields_by_name:
            request.metadata["key"] = change.key
        self.changes.append(change)
        return change

    async def subscribe_all(self, dice: random.Random, requests: Sequence[CreateSubscriptionRequest]) -> list[str]:
        """Have subscriptions created by one stream; return the ids of those that were.

        Whatever it leaves open is asked for one by one with the same keys, so each is known as after `change`.
        """
        changes = [self._noted("subscriptions", "CreateSubscription", request) for request in requests]
        wanted = [SubscriptionToCreate(idempotency_key=change.key, request=change.request) for change in changes]
        self.counts["CreateSubscriptions"] += 1
        told = iter(changes)
        with contextlib.suppress(BillingError, TimeoutError):
            async with asyncio.timeout(CALL_SECONDS_MAX):
                async for _, result in dice.choice(self.clients).create_subscriptions(wanted):
                    change = next(told)
                    if result.HasField("subscription"):
                        self._acknowledge(change, result.subscription)
        for change in changes:
            if change.state == "unknown":
                with contextlib.suppress(BillingError):
                    await self._until_answered(dice, change)
        return [change.answer.id for change in changes if change.answer is not None]

    async def read(self, dice: random.Random, service: str, method: str, request: Any) -> Any:
        """Look at something, at whichever server answers. Raises as `change`."""
        self.counts[method] += 1
        return await self._until_answered(dice, Change(service, method, request, ""))

    async def _until_answered(self, dice: random.Random, change: Change) -> Any:
        pause = 0.05
        while True:
            client = dice.choice(self.clients)
            try:
                answer = await self.send(client, change)
            except BillingError as error:
                if not self._may_come_again(change, error):
                    change.refusal = error
                    raise
                if error.reason:
                    self.put_off[error.reason] += 1
            else:
                self._acknowledge(change, answer)
                return answer
            if time.monotonic() > self.until:
                raise GaveUp(change.method)
            self.counts["tries again"] += 1
            await asyncio.sleep(pause * dice.uniform(0.5, 1.0))
            pause = min(pause * 2, 1.0)

    async def send(self, client: BillingClient, change: Change, seconds_max: float = CALL_SECONDS_MAX) -> Any:
        """One try at one server."""
        call = getattr(getattr(client, change.service), change.method)
        metadata = idempotency_key(change.key) if change.key else ()
        return await call(change.request, metadata=metadata, timeout=seconds_max)

    def _may_come_again(self, change: Change, error: BillingError) -> bool:
        """Whether the same request may still succeed; what is not the engine's word was made on the way."""
        if isinstance(error, ServerFailed) and error.reason:
            self.broken.append(f"{change.method} {change.key}: {error.code.name} {error.reason} {error.message}")
        payment_unknown = error.reason == "PAYMENT_OUTCOME_UNKNOWN"
        on_the_way = isinstance(error, ServerFailed | DeadlineExceeded) and not error.reason
        return is_transient(error) or payment_unknown or on_the_way

    def _acknowledge(self, change: Change, answer: Any) -> None:
        known = change.answer
        if known is not None and getattr(known, "id", "") != getattr(answer, "id", ""):
            self.broken.append(f"{change.method} {change.key}: answered by {known.id}, and by {answer.id}")
        change.answer = answer

    async def _vanish(self, dice: random.Random, change: Change) -> None:
        """Begin a call and go away."""
        self.counts["callers vanished"] += 1
        task = asyncio.ensure_future(self.send(dice.choice(self.clients), change))
        await asyncio.wait({task}, timeout=dice.uniform(0, VANISH_SECONDS_MAX))
        if task.done() and not task.cancelled() and task.exception() is None:
            self._acknowledge(change, task.result())
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _twice(self, dice: random.Random, change: Change) -> Any:
        """Ask twice at once; both answers must be the same."""
        self.counts["callers asked twice at once"] += 1
        seconds = [random.Random(dice.random()) for _ in range(2)]
        answers = await asyncio.gather(*(self._until_answered(one, change) for one in seconds), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, BillingError | GaveUp):
                raise answer
        if change.answer is not None:
            return change.answer
        assert isinstance(answers[0], BaseException)
        raise answers[0]
