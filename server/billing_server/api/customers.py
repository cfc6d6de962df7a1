"""CustomerService: customers, their payment methods and their balances."""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec

from billing_server.api.endpoints import Edge, command, get, listing, required, span
from billing_server.domain import commands as c
from billing_server.domain.customer import Customer, PaymentMethod
from billing_server.domain.validation import validate
from billing_server.store.customer import BalanceTransactionFilter, CustomerFilter, PaymentMethodFilter


def _describe_card(edge: Edge, wanted: c.AttachPaymentMethod) -> c.AttachPaymentMethod:
    """Show of the card what its gateway knows, unless the caller said it. Card numbers never get that far."""
    validate(wanted, now=int(time.time()))
    described = edge.engine.gateway.describe(wanted.token, wanted.type)
    return wanted if wanted.card is not None else msgspec.structs.replace(wanted, card=described)


def _customers(request: Any) -> CustomerFilter:
    created_from, created_before = span(request, "created")
    return CustomerFilter(
        email=request.email or None,
        test_clock=request.test_clock or None,
        created_from=created_from,
        created_before=created_before,
    )


def _payment_methods(request: Any) -> PaymentMethodFilter:
    required(request, "customer")
    return PaymentMethodFilter(customer=request.customer)


def _balance_transactions(request: Any) -> BalanceTransactionFilter:
    required(request, "customer")
    return BalanceTransactionFilter(customer=request.customer, invoice=request.invoice or None)


ENDPOINTS: Final = (
    command("CustomerService/CreateCustomer", c.CreateCustomer),
    get("CustomerService/GetCustomer", Customer, "customer"),
    listing("CustomerService/ListCustomers", "customers", _customers),
    command("CustomerService/UpdateCustomer", c.UpdateCustomer),
    command("CustomerService/DeleteCustomer", c.DeleteCustomer),
    command("CustomerService/AttachPaymentMethod", c.AttachPaymentMethod, refine=_describe_card),
    get("CustomerService/GetPaymentMethod", PaymentMethod, "payment_method"),
    listing("CustomerService/ListPaymentMethods", "payment_methods", _payment_methods),
    command("CustomerService/UpdatePaymentMethod", c.UpdatePaymentMethod),
    command("CustomerService/DetachPaymentMethod", c.DetachPaymentMethod),
    command("CustomerService/AdjustBalance", c.AdjustBalance),
    listing("CustomerService/ListBalanceTransactions", "balance_transactions", _balance_transactions),
)
