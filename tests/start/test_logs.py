"""Log lines: one JSON object each, with the call that wrote them and without secrets."""

from __future__ import annotations

import json
import logging
import sys

from billing_server.api.call import RUNNING, Call, Identity
from billing_server.logs import JsonFormatter
from billing_server.wire.contract import METHODS

SECRET = "sk_very_secret"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def record(message: str, *arguments: object, error: bool = False) -> logging.LogRecord:
    error_info = sys.exc_info() if error else None
    return logging.LogRecord("billing_server.api", logging.WARNING, __file__, 1, message, arguments, error_info)


def test_a_line_outside_of_calls_tells_time_level_and_message() -> None:
    line = json.loads(JsonFormatter().format(record("%d books", 3)))
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "warning", "logger": "billing_server.api", "message": "3 books"}


def test_a_line_of_a_call_tells_whose_it_is() -> None:
    metadata = (
        ("authorization", f"Bearer {SECRET}"),
        ("x-request-id", "r-1"),
        ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),
        ("binary-bin", b"\x00"),
    )
    call = Call(METHODS["/billing.v1.InvoiceService/PayInvoice"], metadata)
    call.identity = Identity("acct_1", "key_1", frozenset({"*"}), b"hash")
    token = RUNNING.set(call)
    try:
        text = JsonFormatter().format(record("slow\nvery"))
    finally:
        RUNNING.reset(token)
    line = json.loads(text)
    assert "\n" not in text
    assert SECRET not in text
    assert {name: line[name] for name in ("method", "request_id", "trace_id", "account", "api_key")} == {
        "method": "billing.v1.InvoiceService/PayInvoice",
        "request_id": "r-1",
        "trace_id": TRACE,
        "account": "acct_1",
        "api_key": "key_1",
    }


def test_an_error_comes_with_its_trace() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        line = json.loads(JsonFormatter().format(record("failed", error=True)))
    assert "ValueError: broken" in line["error"]
