"""The engine as the API sees it: commands in, answers out, whatever happens to whoever asked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from billing_server.domain import commands as c
from billing_server.domain.account import Account, ApiKey
from billing_server.domain.book import Book, Reach
from billing_server.domain.decide import decide, reach, target
from billing_server.domain.errors import Conflict, DomainError, LimitReached, ResourceMissing
from billing_server.domain.event import Cause
from billing_server.domain.forecast import Assumption, Forecast, forecast
from billing_server.domain.invoice import Invoice
from billing_server.domain.meter import MeterEvent
from billing_server.domain.pages import decide_pages, is_about_pages
from billing_server.domain.payment import UNRESOLVED, PaymentAttempt
from billing_server.domain.preview import as_preview
from billing_server.domain.schedule import SubscriptionSchedule
from billing_server.domain.subscription import Subscription
from billing_server.domain.turn import Pages, Turn
from billing_server.domain.upcoming import next_invoice
from billing_server.domain.validation import validate
from billing_server.engine.api_keys import KEY_PREFIX, ApiKeys, NewApiKey
from billing_server.engine.bell import Bell
from billing_server.engine.cashier import Cashier
from billing_server.engine.conclusion import about_subscription, refusal_of
from billing_server.engine.consumers import Consumers
from billing_server.engine.door import Door
from billing_server.engine.events import event_rows
from billing_server.engine.group_commit import GroupCommit
from billing_server.engine.ids import IdSource
from billing_server.engine.metering import Metering, Reported
from billing_server.engine.once import complete, earlier_answer, keys_of
from billing_server.engine.pages import PagesCache
from billing_server.engine.reads import Reads
from billing_server.engine.runs_in_flight import end_runs_in_flight
from billing_server.engine.session import target_field
from billing_server.engine.test_clocks import TestClocks
from billing_server.engine.timekeeper import Timekeeper
from billing_server.engine.usage import with_usage
from billing_server.engine.webhooks import Webhooks
from billing_server.engine.work import Answer, Answered, Caller, Origin, Work
from billing_server.gateways.port import PaymentGateway
from billing_server.store.errors import StoreUnavailable
from billing_server.store.store import Store
from billing_server.store.unit import Unit

LOGGER = logging.getLogger(__name__)

UNDER_WAY_MAX = 20_000
"""Commands under way in this process, those at the gateway included."""

_LAST_BATCH_SECONDS = 5.0

T = TypeVar("T")


class Engine:
    """One process's engine: door, cashier, timekeeper and test clocks on one store.

    `allow_private_webhooks` lets webhooks go to addresses that are not public, for development.
    """

    def __init__(self, store: Store, gateway: PaymentGateway, *, allow_private_webhooks: bool = False) -> None:
        self.store = store
        self.gateway = gateway
        self.new_id = IdSource()
        self.bell = Bell(store)
        self.pages = PagesCache()
        self.reads = Reads(store)
        self.door = Door(store, self.pages, self.new_id, self.bell)
        self.group = GroupCommit(self.door.execute)
        self.cashier = Cashier(gateway, self.group)
        self.api_keys = ApiKeys(store, self.door, self.new_id)
        self.consumers = Consumers(self.door)
        self.webhooks = Webhooks(store, self.door, self.new_id, allow_private=allow_private_webhooks)
        self.metering = Metering(store, self.pages)
        self.clocks = TestClocks(store, self.door, self.cashier, self.new_id)
        self.timekeeper = Timekeeper(store, self.door, self.cashier, self.clocks)
        self.door.carry_out = self.timekeeper.carry_out
        self._detached: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def start(self) -> None:
        """Begin to hear other processes and to keep time."""
        await self.bell.start()
        self.timekeeper.start()

    async def close(self, drain_seconds: float = 20.0) -> None:
        """Finish what callers have asked for, stop time, leave the rest to other processes or the next start.

        All of it within about `drain_seconds`; what takes longer is broken off, which harms nothing that was
        committed. Nothing of the engine runs afterwards, so that the store can be closed.
        """
        self._closed = True
        until = asyncio.get_running_loop().time() + drain_seconds
        if self._detached:
            await asyncio.wait(self._detached, timeout=drain_seconds)
        await self.timekeeper.close(max(0.0, until - asyncio.get_running_loop().time()))
        await self.clocks.close()
        await self._break_off()
        await self.bell.close()
        await self.gateway.close()

    async def _break_off(self) -> None:
        """End what callers still wait for, then let the batch that is being committed come to its end."""
        left = list(self._detached)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_BATCH_SECONDS):
                await self.group.idle()
                await self.metering.idle()
        await self.group.close()
        await self.metering.close()
        await self.reads.close()

    async def _finishing(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run work that finishes even when its caller goes away (promise 8, trap 1).

        Raises StoreUnavailable after the end, and LimitReached when very much is under way: callers who give up
        leave their work behind, so nothing else bounds it.
        """
        if self._closed:
            raise StoreUnavailable("the server is stopping")
        if len(self._detached) >= UNDER_WAY_MAX:
            raise LimitReached(
                "rate_limit", "too many requests are under way in this server; try again", retry_after_seconds=1
            )
        task = asyncio.create_task(work())
        self._detached.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and (caller is None or not caller.cancelling()):
                raise StoreUnavailable("the server is stopping; what was begun is finished by the next one") from None
            raise

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Detached work ended. A refusal that nobody waits for any more is no error, and must not be told as one."""
        self._detached.discard(task)
        if not task.cancelled():
            task.exception()

    # --- commands

    async def execute(self, account_id: str, command: c.Command, caller: Caller) -> Answer:
        """Validate and carry out a command; a charge that it needs is settled before the answer. Raises refusals."""
        validate(command, now=self._now())
        if self.webhooks.takes(command):
            return await self._finishing(lambda: self.webhooks.execute(account_id, command, caller))
        if is_about_pages(command):
            return await self._finishing(lambda: self._change_pages(account_id, command, caller))
        return await self._finishing(lambda: self._execute(account_id, command, caller))

    async def execute_all(
        self, account_id: str, asked: Sequence[tuple[c.Command, Caller]]
    ) -> list[Answer | BaseException]:
        """Carry out commands on customers side by side: the answer or the refusal of each, in their order.

        Each is by itself, as if it had come through `execute`; together they take less than a task for each would.
        """
        return await self._finishing(lambda: self._execute_all(account_id, asked))

    async def _execute_all(
        self, account_id: str, asked: Sequence[tuple[c.Command, Caller]]
    ) -> list[Answer | BaseException]:
        outcomes: dict[int, Answer | BaseException] = {}
        works: dict[int, Work] = {}
        now = self._now()
        for index, (command, caller) in enumerate(asked):
            try:
                validate(command, now=now)
                works[index] = _work(command, caller)
            except DomainError as refusal:
                outcomes[index] = refusal
        answered = dict(zip(works, await self.group.submit_all(account_id, list(works.values())), strict=True))
        waiting = {}
        for index, found in answered.items():
            if isinstance(found, BaseException):
                outcomes[index] = found
            elif found.settled:
                outcomes[index] = Answer(found.result, found.replay, found.now)
            else:
                waiting[index] = self._concluded(account_id, *asked[index], found)
        outcomes |= zip(waiting, await asyncio.gather(*waiting.values(), return_exceptions=True), strict=True)
        return [outcomes[index] for index in range(len(asked))]

    async def _execute(self, account_id: str, command: c.Command, caller: Caller) -> Answer:
        answered = await self.group.submit(account_id, _work(command, caller))
        return await self._concluded(account_id, command, caller, answered)

    async def _concluded(self, account_id: str, command: c.Command, caller: Caller, answered: Answered) -> Answer:
        """The answer, after the charges and refunds that it depends on."""
        if answered.replay is not None:
            return Answer(None, answered.replay)
        if answered.unfinished is not None:
            return await self._answer_later(account_id, command, answered.unfinished)
        result, now = answered.result, answered.now
        origin = Origin(command, caller, answered.result)
        for attempt in answered.charges:
            settled = await self.cashier.charge(account_id, attempt, origin)
            if settled.unfinished is not None:
                return await self._answer_later(account_id, command, attempt.id)
            if settled.refusal is not None:
                raise settled.refusal
            result, now = settled.result, settled.now
        asked_for = isinstance(command, c.CreateRefund)
        for refund in answered.refunds:
            settled = await self.cashier.refund(account_id, refund, origin if asked_for else None)
            if asked_for:
                result, now = settled.result, settled.now
        return Answer(result, now=now)

    async def _answer_later(self, account_id: str, command: c.Command, attempt_id: str) -> Answer:
        """The answer to a repeated request whose charge was still open when the first one broke off."""
        async with self.store.view(account_id) as view:
            attempt = await view.get(PaymentAttempt, attempt_id, "payment_attempt")
            if attempt.state in UNRESOLVED:
                raise Conflict(
                    "idempotency_key_in_use",
                    "the payment of the first request with this key is not settled yet; try again shortly",
                    retry_after_seconds=2,
                    field="idempotency-key",
                )
            refusal = refusal_of(command, attempt)
            if refusal is not None:
                raise refusal
            if isinstance(command, c.CancelSubscriptionSchedule):
                return Answer(await view.get(SubscriptionSchedule, command.id, "subscription_schedule"))
            if about_subscription(command) and attempt.subscription is not None:
                return Answer(await view.get(Subscription, attempt.subscription, "subscription"))
            return Answer(await view.get(Invoice, attempt.invoice, "invoice"))

    def _now(self) -> int:
        """Roughly now, for checks of plausibility only; decisions take the database's clock."""
        return int(time.time())

    async def report_usage(
        self, account_id: str, events: Sequence[MeterEvent], caller: Caller | None = None
    ) -> Reported | bytes:
        """Take meter events; see `Metering.report`. What has begun to be stored is stored, whoever waits."""
        return await self._finishing(lambda: self.metering.report(account_id, events, caller))

    # --- the account's pages

    async def _change_pages(self, account_id: str, command: c.Command, caller: Caller) -> Answer:
        async def body(unit: Unit) -> Answer:
            pages = await self.pages.load(unit, lock=True)
            opening = await unit.open((), keys_of(caller))
            earlier = earlier_answer(opening.idempotency, caller)
            if earlier is not None:
                return earlier
            decision = decide_pages(pages, command, now=opening.now, new_id=self.new_id, cause=caller.cause)
            await unit.save_pages(
                account=decision.account,
                products=decision.products,
                prices=decision.prices,
                meters=decision.meters,
                automations=decision.automations,
            )
            rows = event_rows(account_id, decision.events)
            await unit.save((), rows, complete(caller, decision.result, opening.now))
            return Answer(decision.result, now=opening.now)

        answer = await self.door.committed(account_id, body)
        if isinstance(command, c.DisableAutomation | c.DeleteAutomation) and command.runs_in_flight == "cancel_all":
            await end_runs_in_flight(self.store, self.group, account_id, command.id, caller.cause)
        return answer

    # --- accounts and keys

    async def create_account(self, name: str, account_id: str | None = None) -> Account:
        """A new account with the default settings."""
        account = Account(id=account_id or self.new_id("acct"), created=self._now(), name=name)
        await self.store.create_account(account)
        return account

    async def create_api_key(self, account_id: str, name: str, scopes: Sequence[str]) -> tuple[ApiKey, str]:
        """A new key and its secret, for those who start the server; callers go through `issue_api_key`."""
        caller = Caller(method="start")
        made = await self.issue_api_key(account_id, name, scopes, caller, lambda salt: KEY_PREFIX + salt)
        assert isinstance(made.result, NewApiKey)
        return made.result.key, KEY_PREFIX + made.result.salt

    async def issue_api_key(
        self, account_id: str, name: str, scopes: Sequence[str], caller: Caller, secret_of: Callable[[str], str]
    ) -> Answer:
        """A new key as `NewApiKey`; see `ApiKeys.create`."""
        return await self._finishing(lambda: self.api_keys.create(account_id, name, scopes, caller, secret_of))

    async def revoke_api_key(self, account_id: str, key_id: str, caller: Caller) -> Answer:
        """Make a key worthless at once."""
        return await self._finishing(lambda: self.api_keys.revoke(account_id, key_id, caller))

    async def change_consumer(self, change: Callable[[Consumers], Coroutine[Any, Any, Answer]]) -> Answer:
        """A change of a durable consumer, brought to its end whoever waits; see `Consumers`."""
        return await self._finishing(lambda: change(self.consumers))

    # --- test clocks

    async def create_test_clock(self, account_id: str, name: str | None, frozen_time: int, caller: Caller) -> Answer:
        """A new clock that stands at `frozen_time`."""
        return await self._finishing(lambda: self.clocks.create(account_id, name, frozen_time, caller))

    async def delete_test_clock(self, account_id: str, clock_id: str, caller: Caller) -> Answer:
        """Delete a clock with its customers and all that is theirs."""
        return await self._finishing(lambda: self.clocks.delete(account_id, clock_id, caller))

    # --- previews

    async def preview(
        self, account_id: str, command: c.Command | None, subscription_id: str | None
    ) -> tuple[Invoice, int]:
        """The invoice that a command would make, or the upcoming one of a subscription; nothing is kept."""
        if command is not None:
            validate(command, now=self._now())
        wanted = target(command) if command is not None else target(c.CancelSubscription(id=subscription_id or ""))
        async with self.store.transaction(account_id) as unit:
            owner = (await unit.owners([wanted])).get(wanted) if wanted.type != "customer" else wanted.id
            opening = await unit.open([] if owner is None else [owner])
            pages = await self.pages.at(unit, opening.pages_version)
            needed = reach(command if command is not None else c.CancelSubscription(id=subscription_id or ""))
            wanted_parts = {} if owner is None else {owner: needed}
            books = await unit.load(wanted_parts)
            books = await with_usage(unit, books, wanted_parts, pages.catalog, opening.now)
            if owner is None or owner not in books:
                raise ResourceMissing(wanted.type, wanted.id, field="id" if command is None else target_field(command))
            book = books[owner]
            now = opening.now if book.test_clock is None else book.test_clock.frozen_time
            return self._previewed(book, command, subscription_id, now, opening.now, pages), now

    async def forecast(self, account_id: str, subscription_id: str, until: int, assumption: Assumption) -> Forecast:
        """What will happen to a subscription until then; the books are read, nothing is written."""
        wanted = target(c.CancelSubscription(id=subscription_id))
        async with self.store.transaction(account_id) as unit:
            owner = (await unit.owners([wanted])).get(wanted)
            if owner is None:
                raise ResourceMissing("subscription", subscription_id)
            opening = await unit.open([owner])
            pages = await self.pages.at(unit, opening.pages_version)
            wanted_parts = {owner: Reach(subscriptions=(subscription_id,), all_live=True, due_until=until)}
            books = await unit.load(wanted_parts)
            book = (await with_usage(unit, books, wanted_parts, pages.catalog, opening.now))[owner]
        now = opening.now if book.test_clock is None else book.test_clock.frozen_time
        # Years of a busy book take seconds, in which other callers must not wait.
        run = partial(forecast, book, subscription_id, until, assumption, now=now, wall_now=opening.now, pages=pages)
        return await asyncio.to_thread(run)

    def _previewed(
        self,
        book: Book,
        command: c.Command | None,
        subscription_id: str | None,
        now: int,
        wall_now: int,
        pages: Pages,
    ) -> Invoice:
        cause = Cause(kind="rpc", method="preview")
        after = book
        if command is not None:
            harmless = _without_all_or_nothing(command)
            decision = decide(book, harmless, now=now, wall_now=wall_now, pages=pages, new_id=self.new_id, cause=cause)
            made = [i for i in decision.book.invoices.values() if i.id not in book.invoices]
            turn = Turn(book, now=now, wall_now=wall_now, pages=pages, new_id=self.new_id, cause=cause)
            if made:
                return as_preview(turn, made[-1])
            # Usage was loaded for what is there, not for what the command has only just put there.
            after = msgspec.structs.replace(decision.book, usage_complete=True)
            result = decision.result
            subscription_id = result.id if isinstance(result, Subscription) else subscription_id
        turn = Turn(after, now=now, wall_now=wall_now, pages=pages, new_id=self.new_id, cause=cause)
        return next_invoice(turn, turn.subscription(subscription_id or ""))


def _work(command: c.Command, caller: Caller) -> Work:
    promise: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
    return Work(command, caller.cause, promise, caller=caller)


def _without_all_or_nothing(command: c.Command) -> c.Command:
    """A preview shows the invoice whatever the payment behavior, so it takes the plainest."""
    if isinstance(command, c.CreateSubscription | c.UpdateSubscription):
        return msgspec.structs.replace(command, payment_behavior="allow_incomplete")
    return command
