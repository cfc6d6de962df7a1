"""A session: the books of one transaction while commands and the passing of time are decided on them."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

import msgspec

from billing_server.domain.advance import advance
from billing_server.domain.book import Book, Decision
from billing_server.domain.commands import Command, CreateCustomer, SettleAttempt
from billing_server.domain.decide import decide, decide_new_customer, target
from billing_server.domain.errors import Conflict, DomainError, LimitReached, ResourceMissing, invalid
from billing_server.domain.event import Cause, Event, previous_attributes
from billing_server.domain.message import Message
from billing_server.domain.payment import UNRESOLVED, PaymentAttempt, Refund
from billing_server.domain.test_clock import TestClock
from billing_server.domain.turn import Pages
from billing_server.engine.conclusion import conclude, refusal_of
from billing_server.engine.events import event_rows
from billing_server.engine.ids import IdSource
from billing_server.engine.slices import EVENTS, Wanted, by_nobody, in_slices
from billing_server.engine.work import Answered, Caller, Work
from billing_server.store.event import EventRow
from billing_server.store.idempotency import IdempotencyRow
from billing_server.store.unit import Opening, Unit


class Session:
    """The books of one transaction while their commands are decided."""

    def __init__(
        self,
        unit: Unit,
        opening: Opening,
        pages: Pages,
        new_id: IdSource,
        books: Mapping[str, Book],
        clocks: Mapping[str, TestClock] | None = None,
    ) -> None:
        self._unit = unit
        self._opening = opening
        self._pages = pages
        self._new_id = new_id
        self._clocks = dict(clocks or {})
        self._before: dict[str, Book] = dict(books)
        self._books: dict[str, Book] = dict(books)
        self._events: list[Event] = []
        self._messages: list[Message] = []
        self._answers: dict[str, IdempotencyRow] = {}
        self.charges: list[PaymentAttempt] = []
        self.refunds: list[Refund] = []
        self.events_saved = 0
        self.unfinished = 0
        self._time_passed = False

    def carry_out(self, work: Work, customer: str | None) -> Answered:
        """Decide one command on what its neighbours before it have left."""
        earlier = self._earlier_answer(work)
        if earlier is not None:
            return earlier
        settled = self._settled_already(work, customer)
        if settled is not None:
            return Answered(now=self._opening.now, unfinished=settled)
        if isinstance(work.command, CreateCustomer):
            decision = self._new_customer(work.command, work.cause)
        else:
            decision = self._decide(work, customer)
        self._books[decision.book.customer.id] = self._counted(decision.book)
        self._events += decision.events
        self._messages += decision.messages
        return self._answered(work, decision)

    def _counted(self, book: Book) -> Book:
        """The book with its new subscriptions counted: the limit holds for the next command of this batch, too."""
        before = self._books.get(book.customer.id)
        new = 0 if before is None else len(book.subscriptions.keys() - before.subscriptions.keys())
        return msgspec.structs.replace(book, live_subscriptions=book.live_subscriptions + new) if new else book

    def _settled_already(self, work: Work, customer: str | None) -> str | None:
        """The attempt that a caller waits for, if somebody else was faster to find out what became of it.

        The book does not tell then what the caller must hear, for it loads only attempts that are open.
        """
        command, book = work.command, self._books.get(customer or "")
        if work.origin is None or book is None or not isinstance(command, SettleAttempt):
            return None
        attempt = book.attempts.get(command.attempt)
        return command.attempt if attempt is None or attempt.state not in UNRESOLVED else None

    def _decide(self, work: Work, customer: str | None) -> Decision:
        book = None if customer is None else self._books.get(customer)
        if book is None:
            missing = target(work.command)
            raise ResourceMissing(missing.type, missing.id, field=target_field(work.command))
        return decide(
            book,
            work.command,
            now=self._now(book, work.command),
            wall_now=self._opening.now,
            pages=self._pages,
            new_id=self._new_id,
            cause=work.cause,
        )

    def _now(self, book: Book, command: Command) -> int:
        """Real time, or the book's test clock.

        A charge begun while a clock advances is settled at its own time, because the book waits for it. It does
        not wait any longer once the outcome was unknown; what is found out later must not turn time back.
        """
        clock = book.test_clock
        if clock is None:
            return self._opening.now
        attempt = book.attempts.get(command.attempt) if isinstance(command, SettleAttempt) else None
        if attempt is None:
            return clock.frozen_time
        return attempt.due_at if attempt.waited_for else max(attempt.due_at, clock.frozen_time)

    def _new_customer(self, command: CreateCustomer, cause: Cause) -> Decision:
        now = self._opening.now
        if command.test_clock is not None:
            clock = self._clocks.get(command.test_clock)
            if clock is None:
                raise ResourceMissing("test_clock", command.test_clock, field="test_clock")
            _refuse_advancing(clock)
            now = clock.frozen_time
        return decide_new_customer(
            command,
            now=now,
            wall_now=self._opening.now,
            pages=self._pages,
            new_id=self._new_id,
            cause=cause,
        )

    def advance(self, customer: str, until: int) -> None:
        """Let time pass in one book."""
        decision = advance(
            self._books[customer],
            until,
            wall_now=self._opening.now,
            pages=self._pages,
            new_id=self._new_id,
        )
        self._time_passed = True
        self._books[customer] = decision.book
        self._events += decision.events
        self._messages += decision.messages
        self.charges += decision.charges
        self.refunds += decision.refunds
        following = decision.book.wake_at
        if following is not None and following <= until and not decision.charges:
            self.unfinished += 1

    def send_after(self, customer: str) -> TestClock | None:
        """Set the customer's clock out to where it stands, if it is ready and left something due in the book.

        A proposal is carried out for the moment at which it was made. A clock that did not wait for the outcome is
        beyond that, perhaps beyond the first renewal, too; without a move, nobody would look before the next one.
        Returns the clock that has to be kept.
        """
        book = self._books.get(customer)
        clock = None if book is None else self._clocks.get(book.customer.test_clock or "")
        if book is None or clock is None or clock.status != "ready":
            return None
        if book.wake_at is None or book.wake_at > clock.frozen_time:
            return None
        moving = clock.sent_to(clock.frozen_time)
        self._clocks[clock.id] = moving
        changed = previous_attributes(clock, moving)
        self._events.append(
            Event("test_helpers.test_clock.advancing", clock.frozen_time, None, moving, changed, Cause(kind="timer"))
        )
        return moving

    # --- answers to callers

    def _earlier_answer(self, work: Work) -> Answered | None:
        """What is known of the request's idempotency key, if it was used before."""
        caller = work.caller
        if caller is None or caller.idempotency_key is None:
            return None
        key = caller.idempotency_key
        if key in self._answers:
            raise _key_in_use(key)
        row = self._opening.idempotency.get(key)
        if row is None:
            return None
        if row.request_hash != caller.request_hash or row.method != caller.method:
            raise invalid(
                "idempotency-key",
                "idempotency_mismatch",
                "this key was used with another request; use a new key for a new request",
            )
        if row.state == "complete":
            return Answered(now=self._opening.now, replay=row.response)
        return Answered(now=self._opening.now, unfinished=row.resource)

    def _answered(self, work: Work, decision: Decision) -> Answered:
        result, refusal = decision.result, None
        origin = work.origin
        if origin is not None and isinstance(work.command, SettleAttempt):
            attempt = decision.book.attempts.get(work.command.attempt)
            refusal = None if attempt is None else refusal_of(origin.command, attempt)
            result = conclude(origin.result, decision.book, decision.result)
        clock = decision.book.test_clock
        now = self._opening.now if clock is None else clock.frozen_time
        self._remember(work, decision, result, refusal, now)
        return Answered(
            now=now,
            result=result,
            refusal=refusal,
            charges=decision.charges,
            refunds=decision.refunds,
        )

    def _remember(
        self, work: Work, decision: Decision, result: msgspec.Struct | None, refusal: DomainError | None, now: int
    ) -> None:
        """Keep the answer beside its key: final, or which attempt it still depends on."""
        caller = work.caller or (None if work.origin is None else work.origin.caller)
        if caller is None or caller.idempotency_key is None:
            return
        unfinished = decision.charges[-1].id if decision.charges else None
        if isinstance(refusal, Conflict) and isinstance(work.command, SettleAttempt):
            unfinished = work.command.attempt
        response = None
        if unfinished is None:
            response = answer_bytes(caller, result, refusal, now)
        self._answers[caller.idempotency_key] = IdempotencyRow(
            key=caller.idempotency_key,
            method=caller.method,
            request_hash=caller.request_hash,
            state="complete" if unfinished is None else "in_progress",
            resource=unfinished,
            response=response,
            created=self._opening.now,
        )

    async def save(self, turns_wanted: Wanted = by_nobody) -> bool:
        """Write what has changed; whether there are new events."""
        saved = [
            (self._before.get(customer), book)
            for customer, book in self._books.items()
            if self._before.get(customer) is not book
        ]
        if self._time_passed:
            # Books were advanced one after the other; what happened in them is told in the order of time.
            self._events.sort(key=attrgetter("created"))
        rows: list[EventRow] = []
        async for some in in_slices(self._events, EVENTS, turns_wanted):
            rows += event_rows(self._unit.account_id, some)
        if saved or rows or self._answers:
            await self._unit.save(saved, rows, list(self._answers.values()), self._messages)
        self.events_saved = len(rows)
        return bool(rows)


def answer_bytes(caller: Caller, result: msgspec.Struct | None, refusal: DomainError | None, now: int) -> bytes | None:
    """The answer as it is stored beside its key; the result is seen at `now`."""
    if refusal is not None:
        return None if caller.encode_refusal is None else caller.encode_refusal(refusal)
    return None if caller.encode is None or result is None else caller.encode(result, now)


def _refuse_advancing(clock: TestClock) -> None:
    """Nothing joins a test clock that is on its way."""
    if clock.status != "ready":
        raise LimitReached(
            "test_clock_advancing",
            f"the test clock '{clock.id}' is {clock.status}; try again when it is ready",
            retry_after_seconds=1,
        )


def target_field(command: Command) -> str:
    """The request field that names the command's target."""
    if getattr(command, "from_subscription", None) is not None:
        return "from_subscription"
    for name in ("customer", "id", "invoice", "payment_intent"):
        if name in command.__struct_fields__:
            return name
    return "id"


def _key_in_use(key: str) -> Conflict:
    return Conflict(
        "idempotency_key_in_use",
        f"a request with the idempotency key '{key}' is being worked on; try again shortly",
        field="idempotency-key",
    )
