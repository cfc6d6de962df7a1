"""All methods as handlers of grpc.aio. The server refuses to be made when a method has no endpoint, or no scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import grpc

from billing_server.api import (
    accounts,
    automations,
    bulk_creation,
    catalog,
    consumers,
    customers,
    events,
    invoices,
    meters,
    payments,
    schedules,
    subscriptions,
    test_clocks,
    webhooks,
)
from billing_server.api.chain import Chain
from billing_server.api.endpoints import Endpoint
from billing_server.wire.contract import METHODS, SERVICES

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *accounts.ENDPOINTS,
    *automations.ENDPOINTS,
    *catalog.ENDPOINTS,
    *customers.ENDPOINTS,
    *subscriptions.ENDPOINTS,
    *bulk_creation.ENDPOINTS,
    *schedules.ENDPOINTS,
    *invoices.ENDPOINTS,
    *meters.ENDPOINTS,
    *payments.ENDPOINTS,
    *events.ENDPOINTS,
    *consumers.ENDPOINTS,
    *test_clocks.ENDPOINTS,
    *webhooks.ENDPOINTS,
)

SERVICE_NAMES: Final = tuple(service.full_name for service in SERVICES)


class IncompleteError(Exception):
    """A method of the contract has no endpoint, or no scope."""


class Handlers(grpc.GenericRpcHandler):
    """Finds the handler of a method by its path."""

    def __init__(self, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler, or None for a method that does not exist."""
        return self._handlers.get(handler_call_details.method)


def make_handlers(chain: Chain) -> Handlers:
    """The handlers of all methods, whose bytes are parsed and made behind the chain. Raises IncompleteError."""
    endpoints = {endpoint.path: endpoint for endpoint in ENDPOINTS}
    missing = sorted(METHODS.keys() - endpoints.keys())
    open_to_all = sorted(path for path, method in METHODS.items() if not method.scope)
    if missing or open_to_all or len(endpoints) != len(ENDPOINTS):
        raise IncompleteError(f"methods without an endpoint: {missing}, without a scope: {open_to_all}")
    return Handlers({path: _handler(chain, endpoint) for path, endpoint in endpoints.items()})


def _handler(chain: Chain, endpoint: Endpoint) -> grpc.RpcMethodHandler[Any, Any]:
    method = METHODS[endpoint.path]
    if endpoint.streaming is not None:
        return grpc.unary_stream_rpc_method_handler(chain.streaming(method, endpoint.streaming))
    if endpoint.gathering is not None:
        return grpc.stream_unary_rpc_method_handler(chain.gathering(method, endpoint.gathering))
    if endpoint.conversing is not None:
        return grpc.stream_stream_rpc_method_handler(chain.conversing(method, endpoint.conversing))
    assert endpoint.unary is not None
    return grpc.unary_unary_rpc_method_handler(chain.unary(method, endpoint.unary))
