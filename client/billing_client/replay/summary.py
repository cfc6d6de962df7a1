"""The outcome against the file: what was billed for each row, held against months times price, to the cent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from billing.v1.invoice_model_pb2 import Invoice, InvoiceStatus
from billing.v1.invoice_service_pb2 import ListInvoicesRequest
from billing.v1.time_range_model_pb2 import TimeRange
from billing_client.client import BillingClient
from billing_client.clocks import timestamp
from billing_client.replay.plan import Plan
from billing_client.replay.rows import Row
from billing_client.replay.world import World


@dataclass(slots=True)
class Billed:
    """What was billed for one row."""

    row: Row
    invoices: int = 0
    paid_cents: int = 0
    unpaid: int = 0
    subscribed: bool = False
    canceled: bool = False

    @property
    def difference_cents(self) -> int:
        """What was paid beyond the file's months times price."""
        return self.paid_cents - self.row.expected_cents

    @property
    def faults(self) -> str:
        """What is wrong with the row; "" when nothing is."""
        found = []
        if not self.subscribed:
            found.append("no subscription")
        if self.invoices != self.row.tenure_months:
            found.append(f"{self.invoices} invoices for {self.row.tenure_months} months")
        if self.unpaid:
            found.append(f"{self.unpaid} invoices unpaid")
        if self.difference_cents:
            found.append(f"{self.difference_cents:+d} cents")
        if self.canceled != self.row.churned:
            found.append("canceled" if self.canceled else "not canceled")
        return ", ".join(found)


@dataclass(slots=True)
class Group:
    """The sums of some rows."""

    name: str
    customers: int = 0
    subscriptions: int = 0
    canceled: int = 0
    invoices: int = 0
    revenue_cents: int = 0
    expected_cents: int = 0

    @property
    def difference_cents(self) -> int:
        """What was paid beyond what the file says."""
        return self.revenue_cents - self.expected_cents

    def add(self, billed: Billed) -> None:
        """Count a row."""
        self.customers += 1
        self.subscriptions += billed.subscribed
        self.canceled += billed.canceled
        self.invoices += billed.invoices
        self.revenue_cents += billed.paid_cents
        self.expected_cents += billed.row.expected_cents


@dataclass(slots=True)
class Summary:
    """The closing table."""

    total: Group
    by_contract: list[Group]
    by_payment_method: list[Group]
    without_month: int
    blank_totals: int
    wrong: list[Billed] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether every row was billed exactly what the file says."""
        return not self.wrong


async def summarize(client: BillingClient, plan: Plan, world: World) -> Summary:
    """Read all invoices of the run and hold them against the rows."""
    request = ListInvoicesRequest(
        created=TimeRange(start=timestamp(plan.start), end=timestamp(plan.end)),
    )
    tally = Tally(world)
    async for page in client.pages(client.invoices.ListInvoices, request):
        for invoice in page.invoices:
            tally.count(invoice)
    return sum_up(tally.billed)


class Tally:
    """Counts invoices by the row of their customer."""

    def __init__(self, world: World) -> None:
        self.billed = [
            Billed(item.row, subscribed=bool(item.subscription), canceled=item.canceled)
            for item in world.subscribers.values()
        ]
        customers = (item.customer for item in world.subscribers.values())
        self._by_customer = {
            customer: billed for customer, billed in zip(customers, self.billed, strict=True) if customer
        }

    def count(self, invoice: Invoice) -> None:
        """Count an invoice; a void one, and one of another run's customer, counts nothing."""
        billed = self._by_customer.get(invoice.customer)
        if billed is None or invoice.status == InvoiceStatus.INVOICE_STATUS_VOID:
            return
        billed.invoices += 1
        billed.paid_cents += invoice.amount_paid
        billed.unpaid += invoice.status != InvoiceStatus.INVOICE_STATUS_PAID


def sum_up(billed: Sequence[Billed]) -> Summary:
    """Sums over all rows, by contract and by payment method, and the rows that are wrong."""
    return Summary(
        total=_group("all", billed),
        by_contract=_groups(billed, [item.row.contract for item in billed]),
        by_payment_method=_groups(billed, [item.row.payment_method for item in billed]),
        without_month=sum(item.row.tenure_months == 0 for item in billed),
        blank_totals=sum(item.row.total_is_blank for item in billed),
        wrong=[item for item in billed if item.faults],
    )


def _group(name: str, billed: Iterable[Billed]) -> Group:
    group = Group(name)
    for item in billed:
        group.add(item)
    return group


def _groups(billed: Sequence[Billed], names: Sequence[str]) -> list[Group]:
    groups: dict[str, Group] = {name: Group(name) for name in sorted(set(names))}
    for item, name in zip(billed, names, strict=True):
        groups[name].add(item)
    return list(groups.values())
