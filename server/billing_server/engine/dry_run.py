"""Dry runs of what is stored: the subject and the account's pages, as of one moment."""

from __future__ import annotations

import time
from typing import Literal

from billing_server.domain.automation import Trigger
from billing_server.domain.automation_matching import Subject
from billing_server.domain.customer import Customer
from billing_server.domain.dry_run import DryRun, derived_trigger, dry_run
from billing_server.domain.invoice import Invoice
from billing_server.domain.subscription import Subscription
from billing_server.domain.test_clock import TestClock
from billing_server.engine.pages import pages_of
from billing_server.store.store import Store
from billing_server.store.view import View

SubjectKind = Literal["invoice", "subscription", "customer"]


async def dry_run_about(
    store: Store, account_id: str, kind: SubjectKind, identity: str, trigger: Trigger | None = None
) -> DryRun:
    """Which automation would run about an invoice, a subscription or a customer, and why the others would not.

    Raises:
        ResourceMissing: the subject does not exist.
        InvalidArgument: the trigger is about something else.
    """
    async with store.view(account_id) as view:
        pages = pages_of(await view.pages())
        invoice = await view.get(Invoice, identity, kind, field=kind) if kind == "invoice" else None
        wanted = identity if kind == "subscription" else None if invoice is None else invoice.subscription
        subscription = None
        if wanted is not None:
            subscription = await view.get(Subscription, wanted, "subscription", field=kind)
        owner = identity
        if invoice is not None:
            owner = invoice.customer
        elif subscription is not None:
            owner = subscription.customer
        customer = await view.get(Customer, owner, "customer", field=kind)
        now = await _now(view, customer)
    subject = Subject(
        customer=customer,
        invoice=invoice,
        subscription=subscription,
        settings=pages.settings,
        catalog=pages.catalog,
    )
    return dry_run(pages.automations, trigger or derived_trigger(invoice, subscription), subject, now)


async def _now(view: View, customer: Customer) -> int:
    """Real time, or that of the customer's test clock."""
    if customer.test_clock is None:
        return int(time.time())
    return (await view.get(TestClock, customer.test_clock, "test_clock")).frozen_time
