"""What the protos promise: scopes, names, examples, error reasons."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from billing_server.domain import commands, errors
from billing_server.wire.contract import METHODS, REASONS, Method, Reason
from billing_server.wire.pairs import COMMANDS, MODELS

SERVICE_FILES = sorted((Path(__file__).parents[2] / "protos/billing/v1").glob("*_service.proto"))
SCOPE = re.compile(
    r"(account|api_keys|automations|catalog|customers|subscriptions|schedules|invoices|meters|payments|events|webhooks|"
    r"test_clocks)"
    r":(read|write)|meters:report|events:consume"
)
EXAMPLE = re.compile(
    r"grpcurl -plaintext -H \"authorization: Bearer \$BILLING_API_KEY\" \\\n"
    r"\s*//\s+-d '(?P<data>[^']*)' \\\n"
    r"\s*//\s+127\.0\.0\.1:50051 (?P<path>\S+)\n"
    r"\s*rpc (?P<name>\w+)\("
)

SERVER = Path(__file__).parents[2] / "server/billing_server"
CODES = {
    "invalid": "INVALID_ARGUMENT",
    "Violation": "INVALID_ARGUMENT",
    "WrongState": "FAILED_PRECONDITION",
    "PaymentFailed": "FAILED_PRECONDITION",
    "Conflict": "ABORTED",
    "LimitReached": "RESOURCE_EXHAUSTED",
    "AlreadyExists": "ALREADY_EXISTS",
}
"""Status codes of the domain's errors, by what raises them (see the tree in domain/errors.py)."""

COMMENTED = re.compile(r"((?:^ *//.*\n)+) *rpc (\w+)\(", re.MULTILINE)

WITHOUT_COMMAND = {
    "CreateApiKey",
    "RevokeApiKey",
    "CreateTestClock",
    "DeleteTestClock",
    "AdvanceTestClock",
    "ReportMeterEvent",
    "ReportMeterEvents",
    "CreateSubscriptions",
    "Consume",
    "CreateConsumer",
    "UpdateConsumer",
    "SeekConsumer",
    "DeleteConsumer",
    "RetryParkedEvents",
    "DropParkedEvents",
}
"""Methods that change something without a command of the domain: no decision is taken for them."""

NEVER_ASKED_FOR = {"Command", "SettleAttempt", "SettleRefund"}
"""Commands that no caller gives: the engine gives them itself."""

methods = pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.path)


def name_of(method: Method) -> str:
    return method.path.rpartition("/")[2]


@methods
def test_every_method_declares_its_scope(method: Method) -> None:
    assert SCOPE.fullmatch(method.scope)
    assert method.scope.endswith((":write", ":report", ":consume")) is method.mutates


@methods
def test_names_of_requests_and_responses(method: Method) -> None:
    name = name_of(method)
    assert method.request_type.DESCRIPTOR.full_name == f"billing.v1.{name}Request"
    resources = {message.DESCRIPTOR.full_name for message, _ in MODELS.values()}
    assert method.response_type.DESCRIPTOR.full_name in resources | {
        f"billing.v1.{name}Response",
        "billing.v1.Event",
        "billing.v1.EventBatch",
        "billing.v1.AdvanceTestClockProgress",
        "billing.v1.Consumer",
        "google.protobuf.Empty",
    }


@methods
def test_what_changes_something_has_a_command(method: Method) -> None:
    name = name_of(method)
    command = getattr(commands, name, None)
    assert (command is not None) is (method.mutates and name not in WITHOUT_COMMAND)
    if command is not None:
        assert COMMANDS[command] is method.request_type


def test_every_command_has_a_method() -> None:
    given = {
        name
        for name, member in inspect.getmembers(commands, inspect.isclass)
        if issubclass(member, commands.Command) and name not in NEVER_ASKED_FOR
    }
    assert given == {command.__name__ for command in COMMANDS}
    assert given <= {name_of(method) for method in METHODS.values()}


@methods
def test_lists_are_paged(method: Method) -> None:
    # Recipes are a fixed handful that comes with the server.
    if name_of(method).startswith("List") and name_of(method) != "ListRecipes":
        assert {"page_size", "page_token"} <= set(method.request_type.DESCRIPTOR.fields_by_name)
        assert "next_page_token" in method.response_type.DESCRIPTOR.fields_by_name
        assert not method.mutates


def test_every_method_has_an_example_that_works() -> None:
    seen = set()
    for proto in SERVICE_FILES:
        for example in EXAMPLE.finditer(proto.read_text()):
            method = METHODS["/" + example["path"]]
            assert example["name"] == name_of(method)
            ParseDict(json.loads(example["data"]), method.request_type())
            seen.add(method.path)
    assert seen == set(METHODS)


@pytest.mark.parametrize("proto", SERVICE_FILES, ids=lambda path: path.stem)
def test_comments_name_the_scope(proto: Path) -> None:
    scopes = {name_of(method): method.scope for method in METHODS.values()}
    for comment, name in COMMENTED.findall(proto.read_text()):
        words = " ".join(re.sub(r"^\s*//", "", comment, flags=re.MULTILINE).split())
        assert f"the scope {scopes[name]}." in words


def test_error_reasons_are_those_of_the_domain() -> None:
    assert set(REASONS) == errors.REASONS


def raised_with() -> dict[str, set[str]]:
    """The status codes of the errors that the server raises, by reason, as its source has them."""
    found: dict[str, set[str]] = {}
    for source in SERVER.rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Call)):
            code = CODES.get(call.func.id) if isinstance(call.func, ast.Name) else None
            given = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
            for value in given:
                if code is not None and isinstance(value, str) and value in REASONS:
                    found.setdefault(value, set()).add(code)
    return found


def test_error_reasons_come_with_the_code_that_they_promise() -> None:
    found = raised_with()
    assert found
    promised = {reason: REASONS[reason].grpc_code for reason in found}
    assert {reason for reason, code in promised.items() if code not in found[reason]} == set()


@pytest.mark.parametrize("reason", REASONS.values(), ids=lambda reason: reason.name)
def test_error_reasons_are_described(reason: Reason) -> None:
    assert reason.grpc_code in grpc.StatusCode.__members__
    assert reason.cause.endswith(".")
    assert reason.way_out.endswith(".")
