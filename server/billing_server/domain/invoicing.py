"""Making invoices: lines from subscriptions, pending items swept in, finalization, and their ends.

Rules: semantics 3 (invoice state machine, amounts) and 4 (pending items).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from billing_server.domain import automation_runs, calendar, usage
from billing_server.domain.balance import change_balance
from billing_server.domain.catalog import Price
from billing_server.domain.errors import InvalidArgument, Violation, WrongState
from billing_server.domain.invoice import (
    INVOICE_LINES_MAX,
    BillingReason,
    Invoice,
    InvoiceItem,
    InvoiceLine,
)
from billing_server.domain.money import AMOUNT_MAX, INT64_MAX, format_amount, minimum_charge
from billing_server.domain.payment import PaymentIntent, PaymentIntentStatus
from billing_server.domain.pricing import amount_for_quantity, exact_amount_for_quantity
from billing_server.domain.proration import prorate
from billing_server.domain.subscription import (
    AddedInvoiceItem,
    CollectionMethod,
    Subscription,
    SubscriptionItem,
)
from billing_server.domain.turn import Turn

TRIAL_OVER = "* TRIAL OVER"
"""What replaces the end of the statement descriptor on the first charge after a trial (semantics 4)."""

STATEMENT_DESCRIPTOR_MAX = 22
_DESCRIPTOR_KEPT = STATEMENT_DESCRIPTOR_MAX - len(TRIAL_OVER)


# --- lines


def item_amount(turn: Turn, item: SubscriptionItem) -> int:
    """What a licensed item costs for a whole period; 0 for a metered one."""
    return 0 if item.quantity is None else _licensed_amount(turn.catalog.price(item.price), item.quantity, 1, 1)


def _licensed_amount(price: Price, quantity: int, part: int, whole: int) -> int:
    """What a quantity costs for so many parts of a whole period, rounded once (decision 7)."""
    return check_amount(prorate(exact_amount_for_quantity(price, quantity), part, whole), "quantity")


def check_amount(amount: int, field: str) -> int:
    """A single amount, or an error when it is too large for one."""
    if abs(amount) > AMOUNT_MAX:
        text = f"the amount would be more than {AMOUNT_MAX} minor units; use a smaller quantity or price"
        raise InvalidArgument(Violation(field, "amount_too_large", text))
    return amount


def check_sum(amount: int, field: str) -> int:
    """Amounts together, or an error when they do not fit into 64 bits."""
    if abs(amount) > INT64_MAX:
        text = "the amounts together would not fit into 64 bits; use smaller quantities or prices"
        raise InvalidArgument(Violation(field, "amount_too_large", text))
    return amount


def describe_item(turn: Turn, price: Price, quantity: int | None) -> str:
    """A line's text: "2 x Gold (at 10.00 USD / month)", or of packages "20 x Gold (at 10.00 USD per 10 / month)"."""
    name = turn.catalog.products[price.product].name
    counted = name if quantity is None else f"{quantity} x {name}"
    if price.billing_scheme == "tiered" or price.unit_amount is None:
        return counted
    rate = (
        format_amount(int(price.unit_amount), price.currency)
        if price.unit_amount == int(price.unit_amount)
        else (f"{price.unit_amount} minor units {price.currency.upper()}")
    )
    if price.transform_quantity is not None:
        rate += f" per {price.transform_quantity.divide_by}"
    if price.recurring is None:
        return f"{counted} (at {rate})"
    count = price.recurring.interval_count
    every = price.recurring.interval if count == 1 else f"{count} {price.recurring.interval}s"
    return f"{counted} (at {rate} / {every})"


def period_lines(
    turn: Turn, subscription: Subscription, start: int, end: int, *, full: int | None = None
) -> list[InvoiceLine]:
    """The lines of the licensed items for [start, end), newest item first.

    `full` is the length in seconds of the whole period when [start, end) is only a part of it.
    """
    length = end - start
    part = (1, 1) if full is None else (length, full)
    lines = []
    for item in reversed(subscription.items):
        price = turn.catalog.price(item.price)
        if price.metered:
            continue
        lines.append(
            InvoiceLine(
                id=turn.new_id("il"),
                type="subscription_item",
                amount=_licensed_amount(price, item.quantity or 0, *part),
                description=describe_item(turn, price, item.quantity),
                quantity=item.quantity,
                period_start=start,
                period_end=end,
                price=item.price,
                subscription_item=item.id,
                proration=full is not None and full != length,
            )
        )
    return lines


def metered_lines(turn: Turn, subscription: Subscription, start: int, end: int) -> list[InvoiceLine]:
    """The lines of the metered items for the usage in [start, end), newest item first; without usage they cost nothing.

    A line's period is what it bills: it begins later where the item was added or resumed later.
    """
    return [
        usage_line(turn, item, start, end)
        for item in reversed(subscription.items)
        if turn.catalog.price(item.price).metered
    ]


def usage_line(turn: Turn, item: SubscriptionItem, start: int, end: int) -> InvoiceLine:
    """The line of one metered item."""
    begin = min(usage.counts_from(item, start), end)
    line = InvoiceLine(
        id=turn.new_id("il"),
        type="subscription_item",
        amount=0,
        description="",
        quantity=None,
        period_start=begin,
        period_end=end,
        price=item.price,
        subscription_item=item.id,
    )
    return _with_usage(turn, line, turn.catalog.price(item.price))


def _with_usage(turn: Turn, line: InvoiceLine, price: Price) -> InvoiceLine:
    """The line with the usage of its period, as far as it is known; itself when nothing differs."""
    quantity = usage.quantity(turn, price, line.period_start, line.period_end)
    if quantity == line.quantity:
        return line
    return msgspec.structs.replace(
        line,
        quantity=quantity,
        amount=check_sum(amount_for_quantity(price, quantity), "quantity"),
        description=describe_item(turn, price, quantity),
    )


def _with_late_usage(turn: Turn, invoice: Invoice) -> Invoice:
    """The draft with what has been reported since it was made: usage is open until its invoice is finalized."""
    lines = tuple(
        _with_usage(turn, line, turn.catalog.price(line.price or "")) if usage.is_of_usage(line, turn.catalog) else line
        for line in invoice.lines
    )
    unchanged = all(line is before for line, before in zip(lines, invoice.lines, strict=True))
    return invoice if unchanged else with_lines(turn, invoice, lines)


def trial_lines(turn: Turn, subscription: Subscription, start: int, end: int) -> list[InvoiceLine]:
    """One line of nothing per item for the trial [start, end)."""
    return [
        InvoiceLine(
            id=turn.new_id("il"),
            type="subscription_item",
            amount=0,
            description=f"Trial period for {turn.catalog.products[turn.catalog.price(item.price).product].name}",
            quantity=item.quantity,
            period_start=start,
            period_end=end,
            price=item.price,
            subscription_item=item.id,
        )
        for item in reversed(subscription.items)
    ]


def added_lines(turn: Turn, added: Sequence[AddedInvoiceItem], *, currency: str) -> list[InvoiceLine]:
    """The lines of one-off prices that ride on an invoice."""
    lines = []
    for index, entry in enumerate(added):
        field = f"add_invoice_items[{index}]"
        price = turn.catalog.price(entry.price, f"{field}.price")
        check_one_time(price, currency, f"{field}.price", sold=price.active or turn.by_time)
        lines.append(
            InvoiceLine(
                id=turn.new_id("il"),
                type="invoice_item",
                amount=check_amount(amount_for_quantity(price, entry.quantity), f"{field}.quantity"),
                description=describe_item(turn, price, entry.quantity),
                quantity=entry.quantity,
                period_start=turn.now,
                period_end=turn.now,
                price=price.id,
            )
        )
    return lines


def check_one_time(price: Price, currency: str, field: str, *, sold: bool | None = None) -> None:
    """Refuse a price that cannot be billed once in this currency; `sold` says otherwise than the price itself."""
    if price.type != "one_time":
        raise InvalidArgument(
            Violation(field, "price_type_invalid", "this needs a one_time price; recurring prices belong into items")
        )
    if not (price.active if sold is None else sold):
        raise WrongState(
            "price_inactive", f"the price '{price.id}' is not active; activate it or use another", field=field
        )
    if price.currency != currency:
        raise InvalidArgument(
            Violation(field, "currency_mismatch", f"the price is in {price.currency}, but {currency} is needed")
        )


def line_of(turn: Turn, item: InvoiceItem) -> InvoiceLine:
    """The line that shows an invoice item."""
    return InvoiceLine(
        id=turn.new_id("il"),
        type="invoice_item",
        amount=item.amount,
        description=item.description,
        quantity=item.quantity,
        period_start=item.period_start,
        period_end=item.period_end,
        price=item.price,
        subscription_item=item.subscription_item,
        invoice_item=item.id,
        proration=item.proration,
        discountable=item.discountable,
        metadata=item.metadata,
    )


def pending_items(
    turn: Turn, *, subscription: str | None, currency: str, any_subscription: bool = False
) -> list[InvoiceItem]:
    """Pending items for the next invoice, newest first: of the subscription, and those bound to none.

    When there are more than an invoice takes, those that have waited longest go first.
    """
    waiting = [
        item
        for item in turn.invoice_items.values()
        if item.invoice is None
        and item.currency == currency
        and (any_subscription or item.subscription is None or item.subscription == subscription)
    ]
    waiting.sort(key=lambda item: (item.created, item.id), reverse=True)
    return waiting[-INVOICE_LINES_MAX:]


def left_over_items(turn: Turn, subscription: Subscription) -> list[InvoiceItem]:
    """Pending items of the subscription itself, for the invoice with which it ends; newest first."""
    waiting = pending_items(turn, subscription=subscription.id, currency=subscription.currency)
    return [item for item in waiting if item.subscription == subscription.id]


# --- creation


def create_invoice(
    turn: Turn,
    *,
    reason: BillingReason,
    currency: str,
    lines: Iterable[InvoiceLine],
    period: tuple[int, int],
    subscription: Subscription | None = None,
    sweep: Sequence[InvoiceItem] = (),
    collection_method: CollectionMethod,
    days_until_due: int | None = None,
    auto_advance: bool,
    finalizes_at: int | None = None,
    invoice_id: str | None = None,
    trial_over: bool = False,
) -> Invoice:
    """A draft in the book with the swept items and the given lines. `tell_created` is the caller's."""
    identity = invoice_id or turn.new_id("in")
    swept = [line_of(turn, turn.alter(item, invoice=identity)) for item in sweep]
    all_lines = (*swept, *lines)
    total = check_sum(sum(line.amount for line in all_lines), "items")
    due = max(total, 0)
    customer = turn.customer
    return turn.put(
        Invoice(
            id=identity,
            created=turn.now,
            customer=customer.id,
            currency=currency,
            status="draft",
            billing_reason=reason,
            collection_method=collection_method,
            auto_advance=auto_advance,
            automatically_finalizes_at=finalizes_at if auto_advance else None,
            next_payment_attempt=(
                finalizes_at if auto_advance and collection_method == "charge_automatically" else None
            ),
            period_start=period[0],
            period_end=period[1],
            lines=all_lines,
            subscription=None if subscription is None else subscription.id,
            subscription_metadata={} if subscription is None else subscription.metadata,
            subtotal=total,
            total=total,
            amount_due=due,
            amount_remaining=due,
            days_until_due=days_until_due,
            due_date=due_date(collection_method, turn.now, days_until_due),
            statement_descriptor=None,
            test_clock=customer.test_clock,
            trial_over=trial_over,
        )
    )


def tell_created(turn: Turn, invoice: Invoice) -> None:
    """Tell a new invoice, and of the pending items that they have gone into it, before anything else becomes of it."""
    turn.emit("invoice.created", invoice)
    for line in reversed(invoice.lines):
        if line.invoice_item is not None:
            turn.updated(turn.invoice_items[line.invoice_item])


def due_date(collection_method: CollectionMethod, created: int, days_until_due: int | None) -> int | None:
    """When an invoice falls due: days from its creation (decision 9), and only when it is sent."""
    if collection_method == "charge_automatically" or days_until_due is None:
        return None
    return created + days_until_due * calendar.DAY


def with_lines(turn: Turn, invoice: Invoice, lines: tuple[InvoiceLine, ...]) -> Invoice:
    """The draft with other lines and the sums that follow from them."""
    total = check_sum(sum(line.amount for line in lines), "amount")
    due = max(total, 0)
    return turn.alter(invoice, lines=lines, subtotal=total, total=total, amount_due=due, amount_remaining=due)


# --- finalization


def settled_amounts(total: int, starting_balance: int, currency: str) -> tuple[int, int]:
    """(amount_due, ending_balance) of an invoice, after the balance is applied (semantics 3, Amounts)."""
    raw = total + starting_balance
    if raw <= 0 or raw < minimum_charge(currency):
        return 0, raw
    return raw, 0


def anything_due(turn: Turn, lines: Iterable[InvoiceLine], sweep: Iterable[InvoiceItem], currency: str) -> bool:
    """Whether an invoice of these lines and items would ask for money now."""
    total = sum(line.amount for line in lines) + sum(item.amount for item in sweep)
    return settled_amounts(total, turn.customer.balance, currency)[0] > 0


def finalize(
    turn: Turn,
    invoice: Invoice,
    *,
    quiet: bool = False,
    intent_status: PaymentIntentStatus = "requires_payment_method",
) -> Invoice:
    """Number the draft, bring its usage up to date and freeze it, consume the balance; paid when nothing is due.

    Tells `invoice.finalized`, then the intent or the payment. `quiet` is for invoices born paused: only their
    terminal event is told, and nobody is asked for money (decision 17). `intent_status` is what the intent, if
    there has to be one, waits for.
    """
    if not invoice.lines:
        raise WrongState(
            "invoice_no_lines",
            "an invoice without lines cannot be finalized; add invoice items first",
            subject=invoice.id,
        )
    invoice = _with_late_usage(turn, invoice)
    customer = turn.customer
    starting = customer.balance
    amount_due, ending = settled_amounts(invoice.total, starting, invoice.currency)
    turn.note(customer, next_invoice_sequence=customer.next_invoice_sequence + 1)
    if ending != starting:
        too_small = invoice.total + starting > 0 and amount_due == 0
        change_balance(
            turn,
            ending - starting,
            "invoice_too_small" if too_small else "applied_to_invoice",
            currency=invoice.currency,
            invoice=invoice.id,
        )
    paid = amount_due == 0
    trial_over = not paid and not quiet and _is_first_after_trial(turn, invoice)
    invoice = turn.alter(
        invoice,
        status="paid" if paid else "open",
        number=f"{customer.invoice_prefix}-{customer.next_invoice_sequence:04d}",
        finalized_at=turn.now,
        effective_at=turn.now,
        automatically_finalizes_at=None,
        next_payment_attempt=None,
        starting_balance=starting,
        ending_balance=ending,
        amount_due=check_sum(amount_due, "amount"),
        amount_remaining=amount_due,
        paid_at=turn.now if paid else None,
        auto_advance=False if paid else invoice.auto_advance,
        attempted=True if paid else invoice.attempted,
        customer_email=customer.email,
        customer_name=customer.name,
        customer_address=customer.address,
        collection_paused=invoice.collection_paused and quiet,
        trial_over=trial_over,
        statement_descriptor=invoice.statement_descriptor
        or _statement_descriptor(turn, invoice, trial_over=trial_over),
        payment_intent=None if paid or quiet else new_intent(turn, invoice, amount_due, intent_status),
    )
    if trial_over:
        _note_trial_over(turn, invoice, untold=False)
    if not quiet:
        turn.emit("invoice.finalized", invoice)
    if paid:
        turn.emit("invoice.paid", invoice)
        if not quiet:
            turn.emit("invoice.payment_succeeded", invoice)
    elif invoice.payment_intent is not None:
        turn.emit("payment_intent.created", invoice.payment_intent)
    if not quiet:
        automation_runs.invoice_finalized(turn, invoice)
    return invoice


def new_intent(
    turn: Turn, invoice: Invoice, amount: int, status: PaymentIntentStatus = "requires_payment_method"
) -> PaymentIntent:
    """The intent to collect an invoice; its id shares the suffix of the invoice's."""
    intent_id = f"pi_{invoice.id.removeprefix('in_')}"
    return PaymentIntent(
        id=intent_id,
        created=turn.now,
        invoice=invoice.id,
        customer=invoice.customer,
        amount=amount,
        currency=invoice.currency,
        status=status,
        client_secret=f"{intent_id}_{turn.new_id('secret')}",
    )


def _is_first_after_trial(turn: Turn, invoice: Invoice) -> bool:
    """Whether the invoice asks for the first money after a trial: card networks want that told (semantics 4)."""
    if invoice.trial_over:
        return True
    subscription = turn.subscription_of(invoice)
    if subscription is None or invoice.billing_reason == "manual":
        return False
    return subscription.trial_over_untold and subscription.status != "trialing"


def _note_trial_over(turn: Turn, invoice: Invoice, *, untold: bool) -> None:
    """Remember whether the end of the subscription's trial has still to be told."""
    subscription = turn.subscription_of(invoice)
    if subscription is not None and subscription.trial_over_untold != untold:
        turn.note(subscription, trial_over_untold=untold)


def _statement_descriptor(turn: Turn, invoice: Invoice, *, trial_over: bool) -> str | None:
    """What the payer reads on the statement: the product's text, else the account's (semantics 4)."""
    text = turn.settings.statement_descriptor
    for line in invoice.lines:
        if line.price is not None:
            product = turn.catalog.products[turn.catalog.price(line.price).product]
            if product.statement_descriptor is not None:
                text = product.statement_descriptor
                break
    if text is None or not trial_over:
        return text
    return text[:_DESCRIPTOR_KEPT] + TRIAL_OVER


# --- ends


def void(turn: Turn, invoice: Invoice, *, tell_update: bool = False) -> Invoice:
    """Void the invoice, give back the balance it consumed, cancel its intent; also straight from a draft."""
    applied = 0 if invoice.ending_balance is None else invoice.ending_balance - invoice.starting_balance
    invoice = turn.alter(
        invoice,
        status="void",
        voided_at=turn.now,
        auto_advance=False,
        next_payment_attempt=None,
        automatically_finalizes_at=None,
        overdue_deadline_at=None,
        charging=invoice.charging,
    )
    if tell_update:
        turn.updated(invoice)
    turn.emit("invoice.voided", invoice)
    if invoice.trial_over:
        _note_trial_over(turn, invoice, untold=True)
    if applied:
        change_balance(turn, -applied, "unapplied_from_invoice", currency=invoice.currency, invoice=invoice.id)
    return cancel_intent(turn, invoice, "void_invoice")


def cancel_intent(turn: Turn, invoice: Invoice, reason: str) -> Invoice:
    """Cancel the invoice's intent, if it has one that is still waiting for money."""
    intent = invoice.payment_intent
    if intent is None or intent.status in ("succeeded", "canceled"):
        return invoice
    intent = msgspec.structs.replace(intent, status="canceled", cancellation_reason=reason, canceled_at=turn.now)
    invoice = turn.note(invoice, payment_intent=intent)
    turn.emit("payment_intent.canceled", intent)
    return invoice


def mark_uncollectible(turn: Turn, invoice: Invoice, *, tell_update: bool = False) -> Invoice:
    """Give the invoice up; it may still be paid or voided later."""
    invoice = turn.alter(
        invoice,
        status="uncollectible",
        marked_uncollectible_at=turn.now,
        auto_advance=False,
        next_payment_attempt=None,
        overdue_deadline_at=None,
    )
    if tell_update:
        turn.updated(invoice)
    turn.emit("invoice.marked_uncollectible", invoice)
    return invoice


def stop_collection(turn: Turn, invoices: Iterable[Invoice]) -> None:
    """Switch automatic collection off for draft and open invoices (semantics 2.6)."""
    for invoice in invoices:
        if invoice.status in ("draft", "open") and invoice.auto_advance:
            turn.updated(
                turn.alter(invoice, auto_advance=False, next_payment_attempt=None, automatically_finalizes_at=None)
            )


def invoices_of(turn: Turn, subscription: Subscription) -> list[Invoice]:
    """The loaded invoices of a subscription, oldest first."""
    found = [invoice for invoice in turn.invoices.values() if invoice.subscription == subscription.id]
    found.sort(key=lambda invoice: (invoice.created, invoice.id))
    return found
