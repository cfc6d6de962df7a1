"""Books: what a reach brings, what saving writes, and when the rest of a book wakes."""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_server.domain import invoice as invoices
from billing_server.domain import schedule as schedules
from billing_server.domain import subscription as subscriptions
from billing_server.domain.book import Book, Reach, Target
from billing_server.domain.customer import Customer
from billing_server.domain.subscription import Subscription
from billing_server.store.errors import StoreCorrupted
from billing_server.store.store import Store
from tests.store import samples
from tests.store.samples import ENDED, MONTH, NOW, OPEN, PAID, SETTLED


def ids(book: Book, name: str) -> list[str]:
    """The ids of one kind of object in a book, sorted."""
    return sorted(getattr(book, name))


class Scene:
    """A customer with something of everything."""

    def __init__(self) -> None:
        self.owner = samples.customer()
        self.method = samples.payment_method(self.owner)
        self.detached = samples.payment_method(self.owner, detached_at=NOW)
        self.sub = samples.subscription(self.owner)
        self.other = samples.subscription(self.owner, current_period_end=NOW + 2 * MONTH)
        self.ended = samples.subscription(self.owner, status="canceled", ended_at=NOW)
        self.planned = samples.active_schedule(self.other, NOW + 3 * MONTH)
        self.past = samples.schedule(self.owner, status="released", released_subscription=self.sub.id, released_at=NOW)
        self.draft = samples.invoice(self.owner, self.sub)
        self.open = samples.invoice(self.owner, self.sub, **OPEN)
        self.older = samples.invoice(self.owner, self.sub, **PAID)
        self.paid = samples.invoice(self.owner, self.sub, **PAID, created=NOW + 1)
        self.single = samples.invoice(self.owner, **OPEN)
        self.pending = samples.invoice_item(self.owner)
        self.billed = samples.invoice_item(self.owner, invoice=self.single.id)
        self.note = samples.credit_note(self.single)
        self.started = samples.attempt(self.open)
        self.settled = samples.attempt(self.paid, **SETTLED)
        self.refund = samples.refund(self.settled)
        self.refunded = samples.refund(self.settled, status="succeeded", check_at=None, settled_at=NOW)
        self.credit = samples.balance_transaction(self.owner)
        self.running = samples.run(self.owner, self.paid, next_action_at=NOW + 7200)
        self.waiting = samples.run(self.owner, self.single, next_action_at=None, retrying_since=NOW)
        self.over = samples.run(self.owner, self.single, **ENDED)
        parts = [value for name, value in vars(self).items() if name != "owner"]
        self.book = samples.book(self.owner, *parts)


@pytest.fixture
async def scene(store: Store, account_id: str) -> Scene:
    made = Scene()
    await samples.save_new(store, account_id, made.book)
    return made


async def test_an_empty_reach_brings_what_is_always_loaded(store: Store, account_id: str, scene: Scene) -> None:
    book = await samples.load(store, account_id, scene.owner.id, Reach())

    assert book.customer == scene.owner
    assert book.payment_methods == {scene.method.id: scene.method}
    assert book.invoice_items == {scene.pending.id: scene.pending}
    assert book.schedules == {scene.planned.id: scene.planned}
    assert book.runs == {scene.running.id: scene.running, scene.waiting.id: scene.waiting}
    assert book.attempts == {scene.started.id: scene.started}
    assert book.refunds == {scene.refund.id: scene.refund}
    assert not (book.subscriptions or book.invoices or book.credit_notes or book.balance_transactions)
    assert book.rest_wake_at == scene.book.wake_at


# What a reach names, and which subscriptions, invoices, other objects it must bring.
REACHES: list[tuple[dict[str, Any], list[str], list[str], list[str]]] = [
    ({"subscriptions": "sub"}, ["sub"], ["draft", "open"], []),
    ({"subscriptions": "other"}, ["other"], [], []),
    ({"schedules": "planned"}, ["other"], [], []),
    ({"schedules": "past"}, [], [], []),
    ({"runs": "running"}, ["sub"], ["draft", "open", "paid"], []),
    ({"runs": "waiting"}, [], ["single"], ["note"]),
    ({"runs": "over"}, [], ["single"], ["note"]),
    ({"subscriptions": "sub", "history": True}, ["sub"], ["draft", "open", "paid"], []),
    ({"invoices": "older"}, ["sub"], ["draft", "open", "older"], []),
    ({"invoices": "older", "history": True}, ["sub"], ["draft", "open", "older", "paid"], []),
    ({"invoices": "single"}, [], ["single"], ["note"]),
    ({"invoices": "single", "items_of_invoices": True}, [], ["single"], ["note", "billed"]),
    ({"invoice_items": "billed"}, [], ["single"], ["note", "billed"]),
    ({"credit_notes": "note"}, [], ["single"], ["note"]),
    ({"attempts_of": "paid"}, [], [], ["settled", "refunded"]),
    ({"all_live": True}, ["sub", "other"], ["draft", "open"], []),
    ({"due_until": NOW}, [], [], []),
    ({"due_until": NOW + 3600}, ["sub"], ["draft", "open"], []),
    ({"due_until": NOW + 7199}, ["sub"], ["draft", "open"], []),
    ({"due_until": NOW + 7200}, ["sub"], ["draft", "open", "paid"], []),
    ({"due_until": NOW + MONTH}, ["sub"], ["draft", "open", "paid"], []),
    ({"due_until": NOW + 2 * MONTH}, ["sub", "other"], ["draft", "open", "paid"], []),
]


@pytest.mark.parametrize(("named", "subs", "bills", "others"), REACHES)
async def test_a_reach_brings_what_belongs_to_it(
    store: Store,
    account_id: str,
    scene: Scene,
    named: dict[str, Any],
    subs: list[str],
    bills: list[str],
    others: list[str],
) -> None:
    parts = {name: (getattr(scene, value).id,) if isinstance(value, str) else value for name, value in named.items()}
    reach = msgspec.convert(parts, Reach)

    book = await samples.load(store, account_id, scene.owner.id, reach)

    assert ids(book, "subscriptions") == sorted(getattr(scene, name).id for name in subs)
    assert ids(book, "invoices") == sorted(getattr(scene, name).id for name in bills)
    found = {**book.invoice_items, **book.credit_notes, **book.attempts, **book.refunds}
    always = {"pending", "started", "refund"}
    assert sorted(found) == sorted(getattr(scene, name).id for name in (*others, *always))


async def test_a_named_run_is_there_when_it_has_ended(store: Store, account_id: str, scene: Scene) -> None:
    book = await samples.load(store, account_id, scene.owner.id, Reach(runs=(scene.over.id,)))

    assert ids(book, "runs") == sorted(run.id for run in (scene.running, scene.waiting, scene.over))


async def test_live_subscriptions_are_counted_on_request(store: Store, account_id: str, scene: Scene) -> None:
    book = await samples.load(store, account_id, scene.owner.id, Reach(count_subscriptions=True))

    assert book.live_subscriptions == 2


async def test_owners_are_found_by_type_and_id(store: Store, account_id: str, scene: Scene) -> None:
    known = [
        Target("customer", scene.owner.id),
        Target("subscription", scene.sub.id),
        Target("invoice", scene.draft.id),
        Target("invoice_item", scene.pending.id),
        Target("payment_method", scene.detached.id),
        Target("credit_note", scene.note.id),
    ]
    unknown = [Target("invoice", scene.sub.id), Target("customer", "cus_none")]

    async with store.transaction(account_id) as unit:
        assert await unit.owners([*known, *unknown]) == dict.fromkeys(known, scene.owner.id)


async def test_unknown_customers_are_left_out(store: Store, account_id: str, scene: Scene) -> None:
    async with store.transaction(account_id) as unit:
        opening = await unit.open([scene.owner.id, "cus_none"])
        books = await unit.load({scene.owner.id: Reach(), "cus_none": Reach()})

    assert opening.customers == {scene.owner.id}
    assert list(books) == [scene.owner.id]


async def test_saving_writes_what_is_no_longer_the_same_object(store: Store, account_id: str, scene: Scene) -> None:
    async with store.transaction(account_id) as unit:
        await unit.open([scene.owner.id])
        reach = Reach(subscriptions=(scene.sub.id,), invoice_items=(scene.pending.id,))
        before = (await unit.load({scene.owner.id: reach}))[scene.owner.id]
        added = samples.invoice(scene.owner, scene.sub)
        changed = msgspec.structs.replace(before.subscriptions[scene.sub.id], description="changed")
        after = samples.with_parts(before, added, changed)
        kept = {identity: item for identity, item in after.invoices.items() if identity != scene.draft.id}
        after = msgspec.structs.replace(after, invoices=kept, invoice_items={})
        await unit.save([(before, after)])

    book = await samples.load(store, account_id, scene.owner.id, Reach(subscriptions=(scene.sub.id,)))
    assert book.subscriptions == {scene.sub.id: changed}
    assert book.invoices == {scene.open.id: scene.open, added.id: added}
    assert book.invoice_items == {}


async def test_an_unchanged_book_writes_nothing(
    store: Store, account_id: str, scene: Scene, administrator: asyncpg.Connection
) -> None:
    tables = ("customers", "books", "payment_methods", "subscriptions", "invoices")
    query = " UNION ALL ".join(f"SELECT xmin FROM {table} WHERE account_id = $1" for table in tables)
    before = await administrator.fetch(query, account_id)

    async with store.transaction(account_id) as unit:
        await unit.open([scene.owner.id])
        book = (await unit.load({scene.owner.id: Reach(all_live=True)}))[scene.owner.id]
        assert await unit.save([(book, book)]) is None

    assert await administrator.fetch(query, account_id) == before


async def test_many_rows_that_change_alike_or_not_are_all_written(store: Store, account_id: str) -> None:
    owners = [samples.customer() for _ in range(60)]
    before = [samples.book(owner, samples.subscription(owner)) for owner in owners]
    await samples.save_new(store, account_id, *before)

    def changed(number: int, book: Book) -> Book:
        (sub,) = book.subscriptions.values()
        if number < 30:
            renewed = {"current_period_end": NOW + 2 * MONTH + number, "metadata": {"number": str(number)}}
        elif number < 50:
            renewed = {"description": f"number {number}", "latest_invoice": None if number % 2 else "in_1"}
        else:
            renewed = {"status": "canceled", "ended_at": NOW + number, "items": ()}
        return samples.with_parts(book, msgspec.structs.replace(sub, version=number, **renewed))

    after = [changed(number, book) for number, book in enumerate(before)]
    async with store.transaction(account_id) as unit:
        await unit.open(owner.id for owner in owners)
        await unit.save(list(zip(before, after, strict=True)))

    async with store.transaction(account_id) as unit:
        await unit.open(owner.id for owner in owners)
        reaches = {book.customer.id: Reach(subscriptions=tuple(book.subscriptions)) for book in before}
        found = await unit.load(reaches)
        assert [found[owner.id].subscriptions for owner in owners] == [book.subscriptions for book in after]
        claimed = await unit.claim_due(100, until=NOW + 3 * MONTH)
    due = sorted((book.wake_at, book.customer.id) for book in after if book.wake_at is not None)
    assert sorted(claimed) == sorted(customer for _, customer in due)


async def test_objects_that_may_not_vanish_do_not(store: Store, account_id: str, scene: Scene) -> None:
    after = msgspec.structs.replace(scene.book, subscriptions={})

    with pytest.raises(StoreCorrupted, match="vanished"):
        async with store.transaction(account_id) as unit:
            await unit.open([scene.owner.id])
            await unit.save([(scene.book, after)])


async def test_a_finalized_invoice_is_never_deleted(store: Store, account_id: str, scene: Scene) -> None:
    kept = {identity: item for identity, item in scene.book.invoices.items() if identity != scene.open.id}
    after = msgspec.structs.replace(scene.book, invoices=kept)

    with pytest.raises(StoreCorrupted, match="delete of invoices hit 0 rows"):
        async with store.transaction(account_id) as unit:
            await unit.open([scene.owner.id])
            await unit.save([(scene.book, after)])


async def test_two_unresolved_attempts_of_one_invoice_are_refused(store: Store, account_id: str, scene: Scene) -> None:
    second = samples.attempt(scene.open, number=2)

    with pytest.raises(Exception, match="payment_attempts_unresolved"):
        async with store.transaction(account_id) as unit:
            await unit.open([scene.owner.id])
            await unit.save([(scene.book, samples.with_parts(scene.book, second))])


BROKEN = [
    {"amount_paid": 1},
    {"amount_due": -1, "amount_remaining": -1},
    {"status": "paid"},
    {"status": "open"},
    {"status": "void"},
    {"status": "uncollectible"},
    {"finalized_at": NOW},
    {"status": "draft", "retries_done": -1},
    {"due_date": NOW},
    {**PAID, "auto_advance": True},
]


@pytest.mark.parametrize("changes", BROKEN)
async def test_invoices_that_contradict_themselves_are_refused(
    store: Store, account_id: str, changes: dict[str, Any]
) -> None:
    owner = samples.customer()

    with pytest.raises(StoreCorrupted, match="check constraint"):
        await samples.save_new(store, account_id, samples.book(owner, samples.invoice(owner, **changes)))


# --- when the rest of a book wakes

MOMENTS = st.integers(min_value=NOW, max_value=NOW + 10)


@st.composite
def sleepers(draw: st.DrawFn) -> Book:
    """A customer with subscriptions and invoices that wake at moments close to each other."""
    owner = samples.customer()
    parts: list[Any] = []
    subs: list[Subscription] = []
    for _ in range(draw(st.integers(0, 4))):
        status = draw(st.sampled_from(["active", "canceled", "paused"]))
        ended_at = NOW if status == "canceled" else None
        start = {"current_period_start": NOW, "current_period_end": draw(MOMENTS)}
        subs.append(samples.subscription(owner, status=status, ended_at=ended_at, **start))
    for _ in range(draw(st.integers(0, 4))):
        of = draw(st.sampled_from([None, *subs]))
        if of is not None and draw(st.booleans()):
            parts.append(samples.active_schedule(of, draw(MOMENTS), expiring_at=draw(st.none() | MOMENTS)))
        parts.append(samples.invoice(owner, of, **draw(st.sampled_from(_states(draw(MOMENTS))))))
    return samples.book(owner, *subs, *parts)


def _states(moment: int) -> list[dict[str, Any]]:
    return [
        {"automatically_finalizes_at": moment},
        {"auto_advance": False, "automatically_finalizes_at": None},
        {**OPEN, "next_payment_attempt": moment},
        dict(PAID),
    ]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(made=st.lists(sleepers(), min_size=1, max_size=3), until=MOMENTS)
async def test_a_load_of_what_is_due_is_whole_and_its_rest_exact(
    store: Store, account_id: str, made: list[Book], until: int
) -> None:
    await samples.save_new(store, account_id, *made)

    async with store.transaction(account_id) as unit:
        await unit.open([book.customer.id for book in made])
        loaded = await unit.load({book.customer.id: Reach(due_until=until) for book in made})

    for book in made:
        _compare(loaded[book.customer.id], book, until)


def _compare(found: Book, whole: Book, until: int) -> None:
    wakes = {item.id: subscriptions.wake_at(item) for item in whole.subscriptions.values()}
    wakes |= {item.id: invoices.wake_at(item) for item in whole.invoices.values()}
    assert found.schedules == whole.schedules
    for schedule in whole.schedules.values():
        moment = schedules.wake_at(schedule)
        if moment is not None and moment <= until:
            assert schedule.subscription in found.subscriptions
    loaded = {*found.subscriptions, *found.invoices}
    due = {identity for identity, moment in wakes.items() if moment is not None and moment <= until}
    assert due <= loaded
    rest = [moment for identity, moment in wakes.items() if identity not in loaded and moment is not None]
    assert found.rest_wake_at == min(rest, default=None)
    assert found.wake_at == whole.wake_at
    for invoice in found.invoices.values():
        assert invoice.subscription is None or invoice.subscription in found.subscriptions
    for item in whole.invoices.values():
        if item.subscription in found.subscriptions and item.status in ("draft", "open"):
            assert item.id in found.invoices


async def test_a_customer_with_many_subscriptions_loads_only_the_due_one(store: Store, account_id: str) -> None:
    owner: Customer = samples.customer()
    subs = [samples.subscription(owner, current_period_end=NOW + MONTH + number) for number in range(2_000)]
    await samples.save_new(store, account_id, samples.book(owner, *subs))

    book = await samples.load(store, account_id, owner.id, Reach(due_until=NOW + MONTH))

    assert book.subscriptions == {subs[0].id: subs[0]}
    assert book.rest_wake_at == NOW + MONTH + 1
