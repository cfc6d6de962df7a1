"""How customers, their payment methods and their balance transactions are stored and listed."""

from __future__ import annotations

from billing_server.domain.customer import BalanceTransaction, Customer, PaymentMethod
from billing_server.store.listing import Filter
from billing_server.store.rows import Rows

CUSTOMERS = Rows(Customer, "customer", "customers", "customer_row")
PAYMENT_METHODS = Rows(PaymentMethod, "payment_method", "payment_methods", "payment_method_row")
BALANCE_TRANSACTIONS = Rows(
    BalanceTransaction, "balance_transaction", "balance_transactions", "balance_transaction_row"
)


class CustomerFilter(Filter[Customer], frozen=True, kw_only=True):
    """Which customers to list. Spans of time are from (inclusive) … before."""

    email: str | None = None
    test_clock: str | None = None
    deleted: bool | None = False
    created_from: int | None = None
    created_before: int | None = None


class PaymentMethodFilter(Filter[PaymentMethod], frozen=True, kw_only=True):
    """Which payment methods to list; without more, those that are attached."""

    customer: str | None = None
    attached: bool | None = True


class BalanceTransactionFilter(Filter[BalanceTransaction], frozen=True, kw_only=True):
    """Which balance transactions to list."""

    customer: str | None = None
    invoice: str | None = None
