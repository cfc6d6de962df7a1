"""Lists: pages without repeats or gaps, and every filter."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from billing_server.domain.errors import ResourceMissing
from billing_server.domain.invoice import Invoice
from billing_server.domain.message import Message
from billing_server.domain.payment import PaymentIntent
from billing_server.store import view as views
from billing_server.store.automation import AutomationFilter, AutomationRunFilter
from billing_server.store.catalog import PriceFilter, ProductFilter
from billing_server.store.customer import BalanceTransactionFilter, CustomerFilter, PaymentMethodFilter
from billing_server.store.invoice import CreditNoteFilter, InvoiceFilter, InvoiceItemFilter
from billing_server.store.listing import Filter
from billing_server.store.message import MessageFilter
from billing_server.store.meter import MeterFilter
from billing_server.store.payment import PaymentAttemptFilter, RefundFilter
from billing_server.store.schedule import ScheduleFilter
from billing_server.store.store import Store
from billing_server.store.subscription import SubscriptionFilter
from billing_server.store.test_clock import TestClockFilter
from billing_server.store.webhook import WebhookDeliveryFilter, WebhookEndpointFilter
from tests.store import samples
from tests.store.samples import ENDED, MONTH, NOW, OPEN, PAID, SETTLED


async def test_pages_neither_repeat_nor_leave_out(store: Store, account_id: str) -> None:
    owner = samples.customer()
    made = [samples.invoice(owner, created=NOW + number // 4) for number in range(23)]
    await samples.save_new(store, account_id, samples.book(owner, *made))

    listed: list[Invoice] = []
    after, pages = None, 0
    async with store.view(account_id) as view:
        while after is not None or not pages:
            page = await view.page(InvoiceFilter(customer=owner.id), limit=5, after=after)
            listed += page.items
            after, pages = page.next, pages + 1

    newest_first = sorted(made, key=lambda invoice: (invoice.created, invoice.id), reverse=True)
    assert (listed, pages) == (newest_first, 5)


async def test_a_full_last_page_has_no_next(store: Store, account_id: str) -> None:
    await samples.save_new(store, account_id, *(samples.book(samples.customer()) for _ in range(2)))

    async with store.view(account_id) as view:
        assert (await view.page(CustomerFilter(), limit=2)).next is None
        assert (await view.page(CustomerFilter(), limit=1)).next is not None


class Scene:
    """Two customers, one of them on a test clock that stands in the future."""

    def __init__(self) -> None:
        self.clock = samples.test_clock(frozen_time=NOW + 10 * MONTH)
        self.product = samples.product()
        self.idle = samples.product(active=False)
        self.price = samples.price(self.product, lookup_key="gold")
        self.inactive = samples.price(self.idle, active=False)
        self.meter = samples.meter(event_name="calls")
        self.silent = samples.meter(status="inactive", deactivated_at=NOW, created=NOW + 5)
        self.ann = samples.customer(email="ann@example.com")
        self.bob = samples.customer(test_clock=self.clock.id, created=NOW + 5)
        self.gone = samples.customer(deleted=True)
        self.method = samples.payment_method(self.ann)
        self.detached = samples.payment_method(self.ann, detached_at=NOW)
        self.sub = samples.subscription(self.ann)
        self.sent = samples.subscription(
            self.bob, collection_method="send_invoice", days_until_due=3, created=NOW + 5, status="past_due"
        )
        self.ended = samples.subscription(self.ann, status="canceled", ended_at=NOW)
        self.planned = samples.schedule(self.bob, created=NOW + 5)
        released: dict[str, Any] = {"status": "released", "released_subscription": self.sub.id, "released_at": NOW}
        self.released = samples.schedule(self.ann, **released)
        self.running = samples.active_schedule(self.ended)
        intent = PaymentIntent(
            id="pi_1",
            created=NOW,
            invoice="in_1",
            customer=self.ann.id,
            amount=1000,
            currency="usd",
            status="succeeded",
            client_secret="secret",
        )
        self.draft = samples.invoice(self.ann, self.sub)
        self.paid = samples.invoice(self.ann, self.sub, **PAID, payment_intent=intent, created=NOW + 5)
        send: dict[str, Any] = {"collection_method": "send_invoice", "due_date": NOW + MONTH}
        self.late = samples.invoice(self.bob, self.sent, **OPEN, **send)
        self.owed = samples.invoice(self.ann, **OPEN, **send)
        self.pending = samples.invoice_item(self.ann)
        self.billed = samples.invoice_item(self.bob, invoice=self.late.id)
        self.note = samples.credit_note(self.paid)
        self.attempt = samples.attempt(self.paid, **SETTLED)
        self.other = samples.attempt(self.late, **SETTLED)
        self.refund = samples.refund(self.attempt)
        self.credit = samples.balance_transaction(self.ann)
        self.automation = samples.automation()
        self.resting = samples.automation(enabled=False, trigger="invoice_finalized", created=NOW + 5)
        self.deleted = samples.automation(deleted=True)
        self.run = samples.run(self.ann, self.paid, automation=self.automation.id)
        self.over = samples.run(self.bob, self.late, **ENDED, created=NOW + 5)
        self.reminder = samples.message(self.ann, kind="trial_reminder", created=NOW + 5)
        self.told = samples.message(self.bob, state="sent", due_at=None, settled_at=NOW)
        self.shop = samples.webhook_endpoint(created=NOW + 5)
        gone: dict[str, Any] = {"status": "disabled", "disabled_reason": "gone", "disabled_at": NOW}
        self.closed = samples.webhook_endpoint(**gone)
        self.taken = samples.webhook_delivery(self.shop, 1, state="delivered", due_at=None, settled_at=NOW)
        self.missed = samples.webhook_delivery(self.closed, 2, state="failed", due_at=None, settled_at=NOW)
        self.applied = samples.balance_transaction(self.bob, invoice=self.late.id)

    async def save(self, store: Store, account_id: str) -> None:
        books = {owner.id: samples.book(owner) for owner in (self.ann, self.bob, self.gone)}
        for item in vars(self).values():
            if hasattr(item, "customer") and not isinstance(item, Message):
                books[item.customer] = samples.with_parts(books[item.customer], item)
        async with store.transaction(account_id) as unit:
            await unit.open()
            await unit.insert_test_clock(self.clock)
            await unit.save_pages(
                products=[self.product, self.idle],
                prices=[self.price, self.inactive],
                meters=[self.meter, self.silent],
                automations=[self.automation, self.resting, self.deleted],
            )
            for endpoint in (self.shop, self.closed):
                await unit.webhooks.insert_endpoint(endpoint)
            await unit.webhooks.add([self.taken, self.missed], {})
            await unit.save([(None, book) for book in books.values()], messages=[self.reminder, self.told])


# A filter, the names of scene objects among its values replaced by their ids, and what it lists.
FILTERS: list[tuple[type[Filter[Any]], dict[str, Any], set[str]]] = [
    (CustomerFilter, {}, {"ann", "bob"}),
    (CustomerFilter, {"deleted": None}, {"ann", "bob", "gone"}),
    (CustomerFilter, {"email": "ann@example.com"}, {"ann"}),
    (CustomerFilter, {"test_clock": "clock"}, {"bob"}),
    (CustomerFilter, {"created_from": NOW + 1}, {"bob"}),
    (CustomerFilter, {"created_before": NOW + 5}, {"ann"}),
    (PaymentMethodFilter, {"customer": "ann"}, {"method"}),
    (PaymentMethodFilter, {"customer": "ann", "attached": None}, {"method", "detached"}),
    (PaymentMethodFilter, {"attached": False}, {"detached"}),
    (BalanceTransactionFilter, {"customer": "ann"}, {"credit"}),
    (BalanceTransactionFilter, {"invoice": "late"}, {"applied"}),
    (SubscriptionFilter, {}, {"sub", "sent", "ended"}),
    (SubscriptionFilter, {"ended": False}, {"sub", "sent"}),
    (SubscriptionFilter, {"statuses": ("past_due", "canceled")}, {"sent", "ended"}),
    (SubscriptionFilter, {"customer": "ann", "ended": True}, {"ended"}),
    (SubscriptionFilter, {"price": "price_1"}, {"sub", "sent", "ended"}),
    (SubscriptionFilter, {"price": "price_2"}, set()),
    (SubscriptionFilter, {"collection_method": "send_invoice"}, {"sent"}),
    (SubscriptionFilter, {"test_clock": "clock"}, {"sent"}),
    (SubscriptionFilter, {"created_from": NOW + 5, "created_before": NOW + 6}, {"sent"}),
    (ScheduleFilter, {}, {"planned", "released", "running"}),
    (ScheduleFilter, {"customer": "ann", "statuses": ("active", "completed")}, {"running"}),
    (ScheduleFilter, {"subscription": "ended"}, {"running"}),
    (ScheduleFilter, {"subscription": "sub"}, {"released"}),
    (ScheduleFilter, {"test_clock": "clock"}, {"planned"}),
    (ScheduleFilter, {"created_from": NOW + 1, "created_before": NOW + 6}, {"planned"}),
    (InvoiceFilter, {"customer": "ann"}, {"draft", "paid", "owed"}),
    (InvoiceFilter, {"subscription": "sub"}, {"draft", "paid"}),
    (InvoiceFilter, {"status": "open"}, {"late", "owed"}),
    (InvoiceFilter, {"collection_method": "charge_automatically"}, {"draft", "paid"}),
    (InvoiceFilter, {"overdue_at": NOW + MONTH - 1}, {"late"}),
    (InvoiceFilter, {"overdue_at": NOW + MONTH}, {"late", "owed"}),
    (InvoiceFilter, {"not_overdue_at": NOW + MONTH - 1}, {"draft", "paid", "owed"}),
    (InvoiceFilter, {"due_from": NOW + MONTH, "due_before": NOW + MONTH + 1}, {"late", "owed"}),
    (InvoiceFilter, {"due_before": NOW + MONTH}, set()),
    (InvoiceFilter, {"created_from": NOW + 5}, {"paid"}),
    (InvoiceFilter, {"created_before": NOW + 5, "status": "open"}, {"late", "owed"}),
    (InvoiceFilter, {"has_payment_intent": True}, {"paid"}),
    (InvoiceFilter, {"payment_intent_status": "succeeded"}, {"paid"}),
    (InvoiceFilter, {"payment_intent_status": "canceled"}, set()),
    (InvoiceFilter, {"ids": ("draft", "late")}, {"draft", "late"}),
    (InvoiceItemFilter, {"customer": "ann"}, {"pending"}),
    (InvoiceItemFilter, {"invoice": "late"}, {"billed"}),
    (InvoiceItemFilter, {"pending": True}, {"pending"}),
    (CreditNoteFilter, {"customer": "ann"}, {"note"}),
    (CreditNoteFilter, {"invoice": "late"}, set()),
    (PaymentAttemptFilter, {"customer": "ann"}, {"attempt"}),
    (PaymentAttemptFilter, {"invoice": "late"}, {"other"}),
    (RefundFilter, {"customer": "ann"}, {"refund"}),
    (RefundFilter, {"invoice": "late"}, set()),
    (MessageFilter, {"customer": "ann"}, {"reminder"}),
    (MessageFilter, {"kind": "receipt"}, {"told"}),
    (MessageFilter, {"state": "due"}, {"reminder"}),
    (ProductFilter, {"active": True}, {"product"}),
    (PriceFilter, {"product": "product"}, {"price"}),
    (PriceFilter, {"active": False}, {"inactive"}),
    (PriceFilter, {"lookup_keys": ("gold", "none")}, {"price"}),
    (MeterFilter, {}, {"meter", "silent"}),
    (MeterFilter, {"status": "active"}, {"meter"}),
    (MeterFilter, {"event_name": "calls"}, {"meter"}),
    (AutomationFilter, {}, {"automation", "resting"}),
    (AutomationFilter, {"trigger": "invoice_finalized"}, {"resting"}),
    (AutomationFilter, {"enabled": True}, {"automation"}),
    (AutomationFilter, {"deleted": None}, {"automation", "resting", "deleted"}),
    (AutomationRunFilter, {"automation": "automation"}, {"run"}),
    (AutomationRunFilter, {"customer": "bob"}, {"over"}),
    (AutomationRunFilter, {"invoice": "paid"}, {"run"}),
    (AutomationRunFilter, {"subscription": "sent"}, {"over"}),
    (AutomationRunFilter, {"status": "completed"}, {"over"}),
    (AutomationRunFilter, {"test_clock": "clock"}, {"over"}),
    (TestClockFilter, {}, {"clock"}),
    (WebhookEndpointFilter, {}, {"shop", "closed"}),
    (WebhookEndpointFilter, {"status": "disabled"}, {"closed"}),
    (WebhookDeliveryFilter, {}, {"taken", "missed"}),
    (WebhookDeliveryFilter, {"endpoint": "shop"}, {"taken"}),
    (WebhookDeliveryFilter, {"event": "evt_000000000002"}, {"missed"}),
    (WebhookDeliveryFilter, {"endpoint": "shop", "state": "failed"}, set()),
    (WebhookDeliveryFilter, {"state": "failed"}, {"missed"}),
]


@pytest.fixture
async def scene(store: Store, account_id: str) -> Scene:
    made = Scene()
    await made.save(store, account_id)
    return made


@pytest.mark.parametrize(("filtered", "named", "expected"), FILTERS)
async def test_filters_list_what_they_name_and_nothing_else(
    store: Store,
    account_id: str,
    scene: Scene,
    filtered: type[Filter[Any]],
    named: dict[str, Any],
    expected: set[str],
) -> None:
    def resolved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(resolved, value))
        return getattr(scene, value).id if isinstance(value, str) and hasattr(scene, value) else value

    wanted = filtered(**{name: resolved(value) for name, value in named.items()})

    async with store.view(account_id) as view:
        page = await view.page(wanted, limit=100)

    assert page.items == sorted(
        (getattr(scene, name) for name in expected), key=lambda item: (item.created, item.id), reverse=True
    )


def test_every_filter_field_is_tried_and_has_its_condition() -> None:
    for filtered, rows in views._LISTED.items():
        tried = {name for tried, named, _ in FILTERS if tried is filtered for name in named}
        for field in filtered.__struct_fields__:
            assert "?" in rows.queries.filter(field)
            assert field in tried or filtered.__name__ == "ApiKeyFilter", (filtered, field)


async def test_objects_are_got_by_id(store: Store, account_id: str, scene: Scene) -> None:
    async with store.view(account_id) as view:
        assert await view.get(Invoice, scene.paid.id, "invoice") == scene.paid
        found = await view.get_many(Invoice, [scene.paid.id, "in_none", scene.draft.id])
        assert sorted(found, key=lambda invoice: invoice.id) == [scene.draft, scene.paid]
        assert await view.customers_of([scene.sub.id, scene.late.id, "in_none", "odd"]) == {
            scene.sub.id: scene.ann.id,
            scene.late.id: scene.bob.id,
        }
        with pytest.raises(ResourceMissing) as missing:
            await view.get(Invoice, "in_none", "invoice", field="invoice")
    assert (missing.value.resource_type, missing.value.field) == ("invoice", "invoice")


async def test_a_deleted_clock_takes_its_customers_with_it(store: Store, account_id: str, scene: Scene) -> None:
    async with store.transaction(account_id) as unit:
        await unit.open()
        assert await unit.lock_test_clock(scene.clock.id) == scene.clock
        moved = msgspec.structs.replace(scene.clock, frozen_time=NOW + 11 * MONTH)
        await unit.update_test_clock(moved)
    async with store.transaction(account_id) as unit:
        await unit.open()
        assert await unit.lock_test_clock(scene.clock.id) == moved
        assert await unit.delete_test_clock(scene.clock.id) == 1

    async with store.transaction(account_id) as unit:
        assert (await unit.open([scene.ann.id, scene.bob.id])).customers == {scene.ann.id}
        with pytest.raises(ResourceMissing):
            await unit.lock_test_clock(scene.clock.id)
    async with store.view(account_id) as view:
        left: dict[type[Filter[Any]], set[str]] = {
            CustomerFilter: {"ann"},
            SubscriptionFilter: {"sub", "ended"},
            ScheduleFilter: {"released", "running"},
            AutomationRunFilter: {"run"},
            InvoiceFilter: {"draft", "paid", "owed"},
            InvoiceItemFilter: {"pending"},
            PaymentAttemptFilter: {"attempt"},
            BalanceTransactionFilter: {"credit"},
        }
        for filtered, names in left.items():
            page = await view.page(filtered(), limit=100)
            assert {item.id for item in page.items} == {getattr(scene, name).id for name in names}
