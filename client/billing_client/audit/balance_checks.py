"""The customer's balance against its history (semantics sections 1 and 3)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from billing.v1.customer_model_pb2 import BalanceTransactionType
from billing_client.audit.book import Book, Shared
from billing_client.audit.check import Fault, check
from billing_client.audit.invoice_checks import VOID

_CONSUMED = frozenset(
    {
        BalanceTransactionType.BALANCE_TRANSACTION_TYPE_APPLIED_TO_INVOICE,
        BalanceTransactionType.BALANCE_TRANSACTION_TYPE_INVOICE_TOO_SMALL,
    }
)
_RETURNED = BalanceTransactionType.BALANCE_TRANSACTION_TYPE_UNAPPLIED_FROM_INVOICE


@check
def balance_chain(book: Book, _shared: Shared) -> Iterator[Fault]:
    """Each change starts where the one before ended, the last one ends at the customer's balance.

    In the order in which they were made, which is that of their ids: what time does late, after an outage, bears the
    moment at which it was due, which may lie before that of a command that was carried out in between.
    """
    balance = 0
    for transaction in sorted(book.balance_transactions, key=lambda made: made.id):
        balance += transaction.amount
        if transaction.ending_balance != balance:
            yield transaction.id, f"it should end at {balance}, but ends at {transaction.ending_balance}"
            balance = transaction.ending_balance
        if transaction.currency != book.customer.currency:
            yield transaction.id, f"it is in {transaction.currency}, the customer's currency is another"
    if balance != book.customer.balance:
        yield book.customer.id, f"its changes sum up to {balance}, but its balance is {book.customer.balance}"


@check
def balance_of_invoices(book: Book, _shared: Shared) -> Iterator[Fault]:
    """A finalized invoice changed the balance by what it says; a void one gave that back."""
    consumed: dict[str, int] = defaultdict(int)
    returned: dict[str, int] = defaultdict(int)
    for transaction in book.balance_transactions:
        if transaction.type in _CONSUMED:
            consumed[transaction.invoice] += transaction.amount
        elif transaction.type == _RETURNED:
            returned[transaction.invoice] += transaction.amount
    for invoice in book.invoices:
        finalized = invoice.HasField("finalized_at")
        change = invoice.ending_balance - invoice.starting_balance if finalized else 0
        if consumed[invoice.id] != change:
            yield invoice.id, f"it changes the balance by {change}, but the history says {consumed[invoice.id]}"
        back = -change if invoice.status == VOID else 0
        if returned[invoice.id] != back:
            yield invoice.id, f"its end gives back {back}, but the history says {returned[invoice.id]}"
