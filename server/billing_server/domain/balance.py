"""The customer's balance: every change is a transaction, and the transactions sum to the balance."""

from __future__ import annotations

from billing_server.domain.customer import BalanceTransaction, BalanceTransactionType
from billing_server.domain.errors import InvalidArgument, Violation
from billing_server.domain.money import INT64_MAX
from billing_server.domain.turn import Turn


def change_balance(
    turn: Turn,
    amount: int,
    type_: BalanceTransactionType,
    *,
    currency: str,
    invoice: str | None = None,
    credit_note: str | None = None,
    description: str | None = None,
    metadata: dict[str, str] | None = None,
) -> BalanceTransaction:
    """Add `amount` (negative: credit of the customer) to the balance and record why."""
    ending = turn.customer.balance + amount
    if abs(ending) > INT64_MAX:
        raise InvalidArgument(
            Violation("amount", "amount_too_large", "the balance would not fit into 64 bits; use a smaller amount")
        )
    transaction = BalanceTransaction(
        id=turn.new_id("cbtxn"),
        created=turn.now,
        customer=turn.customer.id,
        currency=currency,
        amount=amount,
        ending_balance=ending,
        type=type_,
        invoice=invoice,
        credit_note=credit_note,
        description=description,
        metadata=metadata or {},
    )
    turn.put(transaction)
    turn.alter(turn.customer, balance=ending)
    return transaction
