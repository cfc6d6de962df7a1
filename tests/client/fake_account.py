"""The lists and objects of an account, served from a book, for tests that read it through RPCs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message

from billing.v1 import (
    catalog_service_pb2,
    customer_service_pb2,
    event_service_pb2,
    invoice_service_pb2,
    payment_service_pb2,
    subscription_service_pb2,
    test_clock_service_pb2,
)
from billing.v1.event_model_pb2 import Event, EventBatch
from billing_client.audit.book import Book, Shared
from tests.client.fake_server import Context, FakeServer, refuse

_FILTERS = ("customer", "invoice", "object_id")


class FakeAccount:
    """Serves one book. `stale` holds lists that are served once, before the true ones."""

    def __init__(self, server: FakeServer, book: Book, shared: Shared) -> None:
        self.book = book
        self.events: list[Event] = []
        self.stale: dict[str, Sequence[Any]] = {}
        lists: dict[str, tuple[type[Any], str, Callable[[], Sequence[Any]]]] = {
            "ListProducts": (catalog_service_pb2.ListProductsResponse, "products", lambda: [*shared.products.values()]),
            "ListPrices": (catalog_service_pb2.ListPricesResponse, "prices", lambda: [*shared.prices.values()]),
            "ListTestClocks": (
                test_clock_service_pb2.ListTestClocksResponse,
                "test_clocks",
                lambda: [*shared.clocks.values()],
            ),
            "ListCustomers": (customer_service_pb2.ListCustomersResponse, "customers", lambda: [book.customer]),
            "ListSubscriptions": (
                subscription_service_pb2.ListSubscriptionsResponse,
                "subscriptions",
                lambda: book.subscriptions,
            ),
            "ListInvoices": (invoice_service_pb2.ListInvoicesResponse, "invoices", lambda: book.invoices),
            "ListInvoiceItems": (
                invoice_service_pb2.ListInvoiceItemsResponse,
                "invoice_items",
                lambda: book.invoice_items,
            ),
            "ListCreditNotes": (invoice_service_pb2.ListCreditNotesResponse, "credit_notes", lambda: book.credit_notes),
            "ListPaymentAttempts": (
                payment_service_pb2.ListPaymentAttemptsResponse,
                "payment_attempts",
                lambda: book.attempts,
            ),
            "ListRefunds": (payment_service_pb2.ListRefundsResponse, "refunds", lambda: book.refunds),
            "ListBalanceTransactions": (
                customer_service_pb2.ListBalanceTransactionsResponse,
                "balance_transactions",
                lambda: book.balance_transactions,
            ),
            "ListPaymentMethods": (
                customer_service_pb2.ListPaymentMethodsResponse,
                "payment_methods",
                lambda: [*book.payment_methods.values()],
            ),
            "ListEvents": (event_service_pb2.ListEventsResponse, "events", lambda: self.events),
        }
        for method, (response, field, entries) in lists.items():
            server.unary(method, self._list(method, response, field, entries))
        server.unary("GetCustomer", self._get_customer)
        server.unary("GetPaymentMethod", self._no_method)
        server.streaming("StreamEvents", self._stream)

    def log(self, *objects: tuple[str, str, Message]) -> None:
        """Append events, given as type, field of the event's object, and object."""
        for type_, field, state in objects:
            event = Event(position=len(self.events) + 1, type=type_, object_id=str(getattr(state, "id", "")))
            getattr(event, field).CopyFrom(state)
            self.events.append(event)

    def log_book(self, shared: Shared) -> None:
        """Append an event for each object that must have one."""
        book = self.book
        self.log(*(("product.created", "product", item) for item in shared.products.values()))
        self.log(*(("price.created", "price", item) for item in shared.prices.values()))
        self.log(*(("test_helpers.test_clock.ready", "test_clock", item) for item in shared.clocks.values()))
        self.log(("customer.created", "customer_object", book.customer))
        self.log(*(("payment_method.attached", "payment_method", item) for item in book.payment_methods.values()))
        self.log(*(("customer.subscription.created", "subscription", item) for item in book.subscriptions))
        self.log(*(("invoiceitem.created", "invoice_item", item) for item in book.invoice_items))
        self.log(*(("credit_note.created", "credit_note", item) for item in book.credit_notes))
        self.log(*(("invoice.paid", "invoice", item) for item in book.invoices))

    def _list(self, method: str, response: type[Any], field: str, entries: Callable[[], Sequence[Any]]) -> Any:
        async def handler(request: Any, context: Context) -> Any:
            found = self.stale.pop(method, None) or entries()
            for name in _FILTERS:
                wanted = getattr(request, name, "")
                if wanted:
                    found = [entry for entry in found if getattr(entry, name, wanted) == wanted]
            # Newest first, in pages of two at most, so that pages are joined as well.
            newest_first = list(reversed(found))
            start = int(request.page_token or 0)
            end = start + min(request.page_size or 50, 2)
            token = str(end) if end < len(newest_first) else ""
            return response(**{field: newest_first[start:end], "next_page_token": token})

        return handler

    async def _get_customer(self, request: Any, context: Context) -> Any:
        if request.id != self.book.customer.id:
            await refuse(context, grpc.StatusCode.NOT_FOUND, "no such customer", "RESOURCE_MISSING")
        return self.book.customer

    async def _no_method(self, request: Any, context: Context) -> None:
        await refuse(context, grpc.StatusCode.NOT_FOUND, "no such payment method", "RESOURCE_MISSING")

    async def _stream(self, request: Any, context: Context) -> AsyncIterator[EventBatch]:
        events = [event for event in self.events if event.position > request.after_position]
        head = self.events[-1].position if self.events else 0
        yield EventBatch(events=events, head_position=head, caught_up=True)
