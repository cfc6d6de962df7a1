"""The engine as the API sees it: commands in, answers out, whatever happens to whoever asked."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from billing_server.domain import commands as c
from billing_server.domain.account import Account, ApiKey
from billing_server.domain.book import Book, Reach
from billing_server.domain.decide import decide, reach, target
from billing_server.domain.errors import Conflict, ResourceMissing, invalid
from billing_server.domain.event import Cause, Event
from billing_server.domain.forecast import Assumption, Forecast, forecast
from billing_server.domain.invoice import Invoice
from billing_server.domain.pages import decide_pages
from billing_server.domain.payment import UNRESOLVED, PaymentAttempt
from billing_server.domain.preview import as_preview, preview_renewal
from billing_server.domain.subscription import Subscription
from billing_server.domain.turn import Pages, Turn
from billing_server.domain.validation import validate
from billing_server.engine.bell import Bell
from billing_server.engine.cashier import Cashier
from billing_server.engine.conclusion import about_subscription, refusal_of
from billing_server.engine.door import Door, answer_bytes, target_field
from billing_server.engine.group_commit import GroupCommit
from billing_server.engine.ids import IdSource
from billing_server.engine.pages import PagesCache
from billing_server.engine.test_clocks import TestClocks
from billing_server.engine.timekeeper import Timekeeper
from billing_server.engine.work import Answered, Caller, Origin, Work
from billing_server.gateways.port import PaymentGateway
from billing_server.store.event import EventRow
from billing_server.store.idempotency import IdempotencyRow
from billing_server.store.store import Store
from billing_server.wire.codec import encode_event

LOGGER = logging.getLogger(__name__)

PAGE_COMMANDS = (c.UpdateSettings, c.CreateProduct, c.UpdateProduct, c.CreatePrice, c.UpdatePrice)
"""Commands about the account's pages instead of a customer's book."""

KEY_PREFIX = "sk_"
_KEY_BYTES = 32

T = TypeVar("T")


class Answer(msgspec.Struct, frozen=True):
    """The result of a command, or the stored answer to an earlier request with the same idempotency key."""

    result: msgspec.Struct | None
    replay: bytes | None = None


class Engine:
    """One process's engine: door, cashier, timekeeper and test clocks on one store."""

    def __init__(self, store: Store, gateway: PaymentGateway) -> None:
        self.store = store
        self.gateway = gateway
        self.new_id = IdSource()
        self.bell = Bell(store)
        self.pages = PagesCache()
        self.door = Door(store, self.pages, self.new_id, self.bell)
        self.group = GroupCommit(self.door.execute)
        self.cashier = Cashier(gateway, self.group)
        self.clocks = TestClocks(store, self.door, self.cashier, self.new_id, self.bell)
        self.timekeeper = Timekeeper(store, self.door, self.cashier, self.clocks)
        self._detached: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Begin to hear other processes and to keep time."""
        await self.bell.start()
        self.timekeeper.start()

    async def close(self, drain_seconds: float = 20.0) -> None:
        """Finish what callers have asked for, stop time, leave the rest to other processes or the next start."""
        if self._detached:
            await asyncio.wait(self._detached, timeout=drain_seconds)
        await self.timekeeper.close()
        await self.clocks.close()
        await self.bell.close()
        await self.gateway.close()

    async def _finishing(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work that finishes even when its caller goes away (promise 8, trap 1)."""
        task = asyncio.create_task(work)
        self._detached.add(task)
        task.add_done_callback(self._detached.discard)
        return await asyncio.shield(task)

    # --- commands

    async def execute(self, account_id: str, command: c.Command, caller: Caller) -> Answer:
        """Validate and carry out a command; a charge that it needs is settled before the answer. Raises refusals."""
        validate(command, now=self._now())
        if isinstance(command, PAGE_COMMANDS):
            return await self._finishing(self._change_pages(account_id, command, caller))
        return await self._finishing(self._execute(account_id, command, caller))

    async def _execute(self, account_id: str, command: c.Command, caller: Caller) -> Answer:
        promise: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        work = Work(command, caller.cause, promise, caller=caller)
        answered = await self.group.submit(account_id, work)
        if answered.replay is not None:
            return Answer(None, answered.replay)
        if answered.unfinished is not None:
            return await self._answer_later(account_id, command, answered.unfinished)
        result = answered.result
        origin = Origin(command, caller, answered.result)
        for attempt in answered.charges:
            settled = await self.cashier.charge(account_id, attempt, origin)
            if settled.refusal is not None:
                raise settled.refusal
            result = settled.result
        for refund in answered.refunds:
            settled = await self.cashier.refund(account_id, refund)
            if isinstance(command, c.CreateRefund):
                result = settled.result
        return Answer(result)

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
            if about_subscription(command) and attempt.subscription is not None:
                return Answer(await view.get(Subscription, attempt.subscription, "subscription"))
            return Answer(await view.get(Invoice, attempt.invoice, "invoice"))

    def _now(self) -> int:
        """Roughly now, for checks of plausibility only; decisions take the database's clock."""
        return int(time.time())

    # --- the account's pages

    async def _change_pages(self, account_id: str, command: c.Command, caller: Caller) -> Answer:
        keys = [] if caller.idempotency_key is None else [caller.idempotency_key]
        async with self.store.transaction(account_id) as unit:
            pages = await self.pages.load(unit, lock=True)
            opening = await unit.open((), keys)
            earlier = self._earlier(opening.idempotency, caller)
            if earlier is not None:
                return earlier
            decision = decide_pages(pages, command, now=opening.now, new_id=self.new_id, cause=caller.cause)
            await unit.save_pages(account=decision.account, products=decision.products, prices=decision.prices)
            rows = [] if not keys else [_complete(caller, decision.result, opening.now)]
            await unit.save((), self._rows(account_id, decision.events), rows)
        self.bell.ring(account_id)
        return Answer(decision.result)

    @staticmethod
    def _earlier(known: dict[str, IdempotencyRow], caller: Caller) -> Answer | None:
        row = known.get(caller.idempotency_key or "")
        if row is None:
            return None
        if row.request_hash != caller.request_hash or row.method != caller.method:
            raise invalid(
                "idempotency-key",
                "idempotency_mismatch",
                "this key was used with another request; use a new key for a new request",
            )
        return Answer(None, row.response)

    @staticmethod
    def _rows(account_id: str, events: Sequence[Event]) -> list[EventRow]:
        return [
            EventRow(
                event.type,
                event.customer,
                event.object.id,  # type: ignore[attr-defined]  # every told object has an id
                event.created,
                encode_event(account_id, event),
            )
            for event in events
        ]

    # --- accounts and keys

    async def create_account(self, name: str, account_id: str | None = None) -> Account:
        """A new account with the default settings."""
        account = Account(id=account_id or self.new_id("acct"), created=self._now(), name=name)
        await self.store.create_account(account)
        return account

    async def create_api_key(self, account_id: str, name: str, scopes: Sequence[str]) -> tuple[ApiKey, str]:
        """A new key and its secret, which is kept nowhere."""
        secret = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
        async with self.store.transaction(account_id) as unit:
            opening = await unit.open()
            key = ApiKey(
                id=self.new_id("key"),
                created=opening.now,
                name=name,
                scopes=tuple(scopes),
                last_four=secret[-4:],
            )
            await unit.insert_api_key(key, hash_of(secret))
        return key, secret

    async def revoke_api_key(self, account_id: str, key_id: str) -> ApiKey:
        """Make a key worthless at once."""
        async with self.store.view(account_id) as view:
            key = await view.get(ApiKey, key_id, "api_key")
        async with self.store.transaction(account_id) as unit:
            opening = await unit.open()
            key = msgspec.structs.replace(key, revoked_at=key.revoked_at or opening.now, version=key.version + 1)
            await unit.update_api_key(key)
        return key

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
            books = await unit.load({} if owner is None else {owner: needed})
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
            wanted_part = Reach(subscriptions=(subscription_id,), all_live=True, due_until=until)
            book = (await unit.load({owner: wanted_part}))[owner]
        now = opening.now if book.test_clock is None else book.test_clock.frozen_time
        return forecast(book, subscription_id, until, assumption, now=now, wall_now=opening.now, pages=pages)

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
            after = decision.book
            turn = Turn(book, now=now, wall_now=wall_now, pages=pages, new_id=self.new_id, cause=cause)
            if made:
                return as_preview(turn, made[-1])
            result = decision.result
            subscription_id = result.id if isinstance(result, Subscription) else subscription_id
        turn = Turn(after, now=now, wall_now=wall_now, pages=pages, new_id=self.new_id, cause=cause)
        return preview_renewal(turn, turn.subscription(subscription_id or ""))


def _without_all_or_nothing(command: c.Command) -> c.Command:
    """A preview shows the invoice whatever the payment behavior, so it takes the plainest."""
    if isinstance(command, c.CreateSubscription | c.UpdateSubscription):
        return msgspec.structs.replace(command, payment_behavior="allow_incomplete")
    return command


def _complete(caller: Caller, result: msgspec.Struct, now: int) -> IdempotencyRow:
    return IdempotencyRow(
        key=caller.idempotency_key or "",
        method=caller.method,
        request_hash=caller.request_hash,
        state="complete",
        response=answer_bytes(caller, result, None),
        created=now,
    )


def hash_of(secret: str) -> bytes:
    """What is kept of a secret. Keys are long and random, so one plain hash is enough."""
    return hashlib.sha256(secret.encode()).digest()
