"""Invoice items: one-off amounts that wait for an invoice or go into a draft (semantics 1 and 4)."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from billing_server.domain.commands import CreateInvoiceItem, DeleteInvoiceItem, UpdateInvoiceItem
from billing_server.domain.errors import ResourceMissing, WrongState, invalid
from billing_server.domain.etag import check_etag
from billing_server.domain.invoice import INVOICE_LINES_MAX, Invoice, InvoiceItem
from billing_server.domain.invoicing import check_amount, check_one_time, describe_item, line_of, with_lines
from billing_server.domain.metadata import initial_metadata, merged_metadata
from billing_server.domain.pricing import amount_for_quantity
from billing_server.domain.signup import fix_currency, refuse_deleted
from billing_server.domain.turn import Turn


def create_invoice_item(turn: Turn, command: CreateInvoiceItem) -> InvoiceItem:
    """A pending item, or a further line of the named draft."""
    refuse_deleted(turn.customer)
    invoice = None if command.invoice is None else _draft(turn, command.invoice)
    if command.subscription is not None and turn.subscription(command.subscription, "subscription").terminal:
        raise WrongState(
            "subscription_terminal",
            "the subscription has ended and makes no more invoices; leave it out to bill the customer",
            subject=command.subscription,
            field="subscription",
        )
    amount, unit_amount, currency, text = _priced(turn, command)
    if invoice is not None and invoice.currency != currency:
        raise invalid("currency", "currency_mismatch", f"the invoice is in {invoice.currency}, the item in {currency}")
    fix_currency(turn, currency, "currency")
    item = turn.put(
        InvoiceItem(
            id=turn.new_id("ii"),
            created=turn.now,
            customer=turn.customer.id,
            currency=currency,
            amount=amount,
            unit_amount=unit_amount,
            quantity=command.quantity,
            description=command.description or text,
            price=command.price,
            subscription=command.subscription,
            invoice=command.invoice,
            discountable=command.discountable,
            period_start=command.period_start if command.period_start is not None else turn.now,
            period_end=command.period_end if command.period_end is not None else turn.now,
            metadata=initial_metadata(command.metadata),
        )
    )
    turn.emit("invoiceitem.created", item)
    if invoice is not None:
        _append(turn, invoice, item)
    return item


def _draft(turn: Turn, invoice_id: str) -> Invoice:
    invoice = turn.invoice(invoice_id, "invoice")
    if invoice.status != "draft":
        raise WrongState(
            "invoice_not_editable",
            f"lines can be changed only while the invoice is a draft; it is {invoice.status}",
            subject=invoice.id,
            field="invoice",
        )
    return invoice


def _append(turn: Turn, invoice: Invoice, item: InvoiceItem) -> None:
    """Items added after the creation of the invoice stand last, oldest first (semantics 1)."""
    if sum(line.type == "invoice_item" for line in invoice.lines) >= INVOICE_LINES_MAX:
        raise invalid("invoice", "parameter_invalid", f"an invoice takes at most {INVOICE_LINES_MAX} items")
    turn.updated(with_lines(turn, invoice, (*invoice.lines, line_of(turn, item))))


def _priced(turn: Turn, command: CreateInvoiceItem) -> tuple[int, int | None, str, str]:
    """(amount, unit amount, currency, text) of an item given by a price, a unit amount or an amount."""
    if command.price is not None:
        price = turn.catalog.in_currency(command.currency).price(command.price)
        check_one_time(price, command.currency or price.currency, "price")
        amount = check_amount(amount_for_quantity(price, command.quantity), "quantity")
        whole = price.unit_amount is not None and price.unit_amount == int(price.unit_amount)
        unit = int(price.unit_amount) if whole and price.unit_amount is not None else None
        return amount, unit, price.currency, describe_item(turn, price, command.quantity)
    currency = command.currency or turn.customer.currency
    if currency is None:
        raise invalid("currency", "parameter_missing", "the customer has no currency yet; name one")
    if command.unit_amount is not None:
        return (
            check_amount(command.unit_amount * command.quantity, "quantity"),
            command.unit_amount,
            currency,
            "Item",
        )
    if command.amount is None:
        raise invalid("amount", "parameter_missing", "give a price, a unit_amount or an amount")
    return command.amount, None, currency, "Item"


def _item(turn: Turn, item_id: str) -> InvoiceItem:
    item = turn.invoice_items.get(item_id)
    if item is None:
        raise ResourceMissing("invoice_item", item_id)
    return item


def _editable(turn: Turn, item: InvoiceItem) -> Invoice | None:
    """The draft the item stands in, or None while it is pending; refused once it is invoiced."""
    if item.invoice is None:
        return None
    invoice = turn.invoices.get(item.invoice)
    if invoice is None or invoice.status != "draft":
        raise WrongState(
            "invoice_item_not_editable",
            "the item stands on a finalized invoice; issue a credit note instead",
            subject=item.id,
        )
    return invoice


def update_invoice_item(turn: Turn, command: UpdateInvoiceItem) -> InvoiceItem:
    """Change an item that is pending or stands in a draft; a proration's amount is not changed."""
    item = _item(turn, command.id)
    check_etag(command.etag, item.version)
    invoice = _editable(turn, item)
    changes: dict[str, Any] = {}
    for name in ("amount", "unit_amount", "quantity", "discountable"):
        value = getattr(command, name)
        if value is not UNSET:
            changes[name] = value
    if item.proration and changes:
        raise WrongState(
            "invoice_item_not_editable",
            "the amounts of a proration follow from its subscription; delete it instead",
            subject=item.id,
        )
    if "unit_amount" in changes or ("quantity" in changes and "amount" not in changes):
        changes |= _repriced(turn, item, changes)
    elif "amount" in changes:
        changes["unit_amount"] = None
    if command.description is not UNSET:
        changes["description"] = command.description or item.description
    if command.metadata is not UNSET:
        changes["metadata"] = merged_metadata(item.metadata, command.metadata)
    item = turn.revise(item, changes)
    if invoice is not None:
        lines = tuple(line_of(turn, item) if line.invoice_item == item.id else line for line in invoice.lines)
        turn.updated(with_lines(turn, invoice, lines))
    return item


def _repriced(turn: Turn, item: InvoiceItem, changes: dict[str, Any]) -> dict[str, Any]:
    quantity = changes.get("quantity", item.quantity)
    unit = changes.get("unit_amount", item.unit_amount)
    if item.price is not None and "unit_amount" not in changes:
        return {"amount": check_amount(amount_for_quantity(turn.catalog.price(item.price), quantity), "quantity")}
    if unit is None:
        raise invalid("quantity", "parameter_invalid", "the item has a fixed amount; change amount or unit_amount")
    return {"amount": check_amount(unit * quantity, "quantity"), "unit_amount": unit}


def delete_invoice_item(turn: Turn, command: DeleteInvoiceItem) -> InvoiceItem:
    """Take an item back that is pending or stands in a draft."""
    item = _item(turn, command.id)
    invoice = _editable(turn, item)
    turn.emit("invoiceitem.deleted", item)
    turn.remove(item)
    if invoice is not None:
        lines = tuple(line for line in invoice.lines if line.invoice_item != item.id)
        turn.updated(with_lines(turn, invoice, lines))
    return item
