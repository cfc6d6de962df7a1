"""Reading the account: all lists into the spool, and single customers whole when they need a second look."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from billing.v1.catalog_service_pb2 import ListPricesRequest, ListProductsRequest
from billing.v1.customer_model_pb2 import Customer
from billing.v1.customer_service_pb2 import (
    GetCustomerRequest,
    GetPaymentMethodRequest,
    ListBalanceTransactionsRequest,
    ListCustomersRequest,
    ListPaymentMethodsRequest,
)
from billing.v1.event_service_pb2 import ListEventsRequest
from billing.v1.invoice_service_pb2 import (
    ListCreditNotesRequest,
    ListInvoiceItemsRequest,
    ListInvoicesRequest,
)
from billing.v1.payment_service_pb2 import ListPaymentAttemptsRequest, ListRefundsRequest
from billing.v1.subscription_service_pb2 import ListSubscriptionsRequest
from billing.v1.test_clock_service_pb2 import ListTestClocksRequest
from billing_client.audit.book import Book, Member, Shared
from billing_client.audit.spool import Spool
from billing_client.client import BillingClient
from billing_client.errors import NotFound


class Watcher(Protocol):
    """Is told how the audit comes along."""

    def phase(self, text: str, total: int | None) -> None:
        """Something begins that has so many steps, or nobody knows how many."""

    def step(self, done: int = 1) -> None:
        """So many more steps are done."""


async def read_shared(client: BillingClient) -> Shared:
    """What belongs to the account: products, prices and test clocks."""
    shared = Shared(now=int(time.time()))
    async for products in client.pages(client.catalog.ListProducts, ListProductsRequest()):
        shared.products.update((product.id, product) for product in products.products)
    async for prices in client.pages(client.catalog.ListPrices, ListPricesRequest()):
        shared.prices.update((price.id, price) for price in prices.prices)
    async for clocks in client.pages(client.test_clocks.ListTestClocks, ListTestClocksRequest()):
        shared.clocks.update((clock.id, clock) for clock in clocks.test_clocks)
    return shared


async def fill(spool: Spool, client: BillingClient, watcher: Watcher) -> None:
    """Read all customers and their objects, page by page, into the spool."""
    watcher.phase("reading", None)
    async for page in client.pages(client.customers.ListCustomers, ListCustomersRequest()):
        spool.add_customers(page.customers)
        watcher.step(len(page.customers))
    async for members in _all_members(client):
        spool.add_members(members)
        watcher.step(len(members))
    for customer in spool.customers_missing():
        spool.add_customers([await _customer(client, customer)])
    spool.finish_reading()


async def _all_members(client: BillingClient) -> AsyncIterator[Sequence[Member]]:
    """Pages of everything that customers have. What pays comes before what is paid.

    Read in this order, an account at work shows payments of invoices rather than invoices without payments.
    """
    payments, invoices = client.payments, client.invoices
    async for attempts in client.pages(payments.ListPaymentAttempts, ListPaymentAttemptsRequest()):
        yield attempts.payment_attempts
    async for refunds in client.pages(payments.ListRefunds, ListRefundsRequest()):
        yield refunds.refunds
    async for notes in client.pages(invoices.ListCreditNotes, ListCreditNotesRequest()):
        yield notes.credit_notes
    async for items in client.pages(invoices.ListInvoiceItems, ListInvoiceItemsRequest()):
        yield items.invoice_items
    async for page in client.pages(invoices.ListInvoices, ListInvoicesRequest()):
        yield page.invoices
    subscriptions = client.subscriptions
    every = ListSubscriptionsRequest(include_ended=True)
    async for found in client.pages(subscriptions.ListSubscriptions, every):
        yield found.subscriptions


async def complete(book: Book, client: BillingClient) -> None:
    """Add what can only be read customer by customer: the balance's history, and payment methods."""
    customer = book.customer.id
    history = ListBalanceTransactionsRequest(customer=customer)
    try:
        async for page in client.pages(client.customers.ListBalanceTransactions, history):
            book.balance_transactions.extend(page.balance_transactions)
        attached = ListPaymentMethodsRequest(customer=customer)
        async for methods in client.pages(client.customers.ListPaymentMethods, attached):
            book.payment_methods.update((method.id, method) for method in methods.payment_methods)
    except NotFound:
        return
    book.balance_transactions.reverse()
    for method in _methods_named(book) - book.payment_methods.keys():
        try:
            found = await client.customers.GetPaymentMethod(GetPaymentMethodRequest(id=method))
        except NotFound:
            continue
        book.payment_methods[method] = found


def _methods_named(book: Book) -> set[str]:
    named = {book.customer.default_payment_method}
    named.update(subscription.default_payment_method for subscription in book.subscriptions)
    named.update(invoice.default_payment_method for invoice in book.invoices)
    named.update(attempt.payment_method for attempt in book.attempts)
    return named - {""}


async def read_book(client: BillingClient, customer: str) -> Book:
    """One customer with all that is theirs, as it is now."""
    book = Book(await _customer(client, customer))
    payments, invoices = client.payments, client.invoices
    async for page in client.pages(invoices.ListInvoices, ListInvoicesRequest(customer=customer)):
        book.invoices.extend(page.invoices)
    async for refunds in client.pages(payments.ListRefunds, ListRefundsRequest(customer=customer)):
        book.refunds.extend(refunds.refunds)
    async for notes in client.pages(invoices.ListCreditNotes, ListCreditNotesRequest(customer=customer)):
        book.credit_notes.extend(notes.credit_notes)
    async for items in client.pages(invoices.ListInvoiceItems, ListInvoiceItemsRequest(customer=customer)):
        book.invoice_items.extend(items.invoice_items)
    every = ListSubscriptionsRequest(customer=customer, include_ended=True)
    async for found in client.pages(client.subscriptions.ListSubscriptions, every):
        book.subscriptions.extend(found.subscriptions)
    for entries in (book.invoices, book.refunds, book.credit_notes, book.invoice_items, book.subscriptions):
        entries.reverse()
    for invoice in book.invoices:
        wanted = ListPaymentAttemptsRequest(invoice=invoice.id)
        async for attempts in client.pages(payments.ListPaymentAttempts, wanted):
            book.attempts.extend(attempts.payment_attempts)
    book.sequence_jumps.extend(await _sequence_jumps(client, customer))
    await complete(book, client)
    return book


async def _customer(client: BillingClient, customer: str) -> Customer:
    """The customer, deleted or not; an empty one with its id when there is none."""
    try:
        return await client.customers.GetCustomer(GetCustomerRequest(id=customer))
    except NotFound:
        return Customer(id=customer)


async def _sequence_jumps(client: BillingClient, customer: str) -> list[tuple[int, int]]:
    """Numbers of invoices that somebody left out on purpose, known from the customer's events."""
    jumps = []
    request = ListEventsRequest(object_id=customer, types=["customer.updated"])
    async for page in client.pages(client.event_log.ListEvents, request):
        for event in page.events:
            before = event.previous_attributes.fields.get("next_invoice_sequence")
            if before is not None:
                jumps.append((int(before.string_value or before.number_value), _next_number(event.customer_object)))
    return jumps


def _next_number(customer: Customer) -> int:
    return customer.next_invoice_sequence
