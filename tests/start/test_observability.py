"""What whoever is on call looks at: metrics, the dashboard over them, and logs that keep secrets."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from billing.v1.account_service_pb2 import CreateApiKeyRequest, RevokeApiKeyRequest
from billing.v1.account_service_pb2_grpc import AccountServiceStub
from billing.v1.customer_service_pb2 import AttachPaymentMethodRequest, CreateCustomerRequest, GetCustomerRequest
from billing.v1.customer_service_pb2_grpc import CustomerServiceStub
from tests.conftest import temporary_data_directory
from tests.serving import free_port
from tests.start.test_server import CHECKOUT, Process, directory, running

__all__ = ["directory"]

DASHBOARD = CHECKOUT / "docs" / "grafana-dashboard.json"
OPERATIONS = CHECKOUT / "docs" / "operations.md"
CARD = "4242424242424242"


@pytest.fixture(scope="module")
def scraped() -> str:
    """The metrics of a server that has done a little."""
    metrics = f"127.0.0.1:{free_port()}"
    with temporary_data_directory() as home, running(home, BILLING_METRICS_LISTEN=metrics) as process:
        address = process.wait_until_serving()
        with grpc.insecure_channel(address) as channel:
            opened: Any = channel
            customers: Any = CustomerServiceStub(opened)
            request = CreateCustomerRequest(name="Ada")
            assert customers.CreateCustomer(request, metadata=login(process.key), timeout=60).id
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=60) as response:
            told: str = response.read().decode()
    return told


def login(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


def names_in(expression: str) -> set[str]:
    """The metrics that an expression names, without what histograms and counters append."""
    return set(re.findall(r"\b(?:billing|process)_[a-z_]+", expression))


def queries(panels: Any) -> Iterator[str]:
    for panel in panels:
        yield from (target["expr"] for target in panel.get("targets", ()))


def test_the_dashboard_shows_all_metrics_there_are_and_no_others(scraped: str) -> None:
    families = set(re.findall(r"^# TYPE (\S+) ", scraped, re.MULTILINE))
    series = families | {f"{name}_{part}" for name in families for part in ("bucket", "sum", "count")}
    dashboard = json.loads(DASHBOARD.read_text())
    shown = {name for query in queries(dashboard["panels"]) for name in names_in(query)}
    assert shown <= series, "the dashboard asks for what is not there"
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    ours = {name for name in families if name.startswith("billing_") and not name.endswith("_created")}
    assert ours <= bases, "nobody would see these"
    alerts = {name for line in OPERATIONS.read_text().splitlines() if line.startswith("| `") for name in names_in(line)}
    assert alerts and alerts <= series
    # A panel for each title, and none beside another.
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", ['lateness_seconds_bucket{le="+Inf"}', "connection_wait_seconds_count"])
def test_what_is_measured_has_values(scraped: str, name: str) -> None:
    (value,) = re.findall(rf"^billing_(?:wake_)?{re.escape(name)} (\S+)$", scraped, re.MULTILINE)
    assert float(value) >= 0
    assert name.startswith("lateness") or float(value) > 0


def test_logs_keep_secrets(directory: Path) -> None:
    """All that is said at the most talkative level, about calls that go well, fail, and are refused."""
    with running(directory, BILLING_LOG_LEVEL="debug") as process:
        address = process.wait_until_serving()
        with grpc.insecure_channel(address) as channel:
            secrets = _talk(channel, process)
        process.stop()
        log = process.log.read_text() + process.text
    assert "CustomerService" in log, "nothing was logged, so this proves nothing"
    for secret in secrets:
        assert secret not in log


def _talk(channel: Any, process: Process) -> list[str]:
    """Give a server secrets in every way there is; return them."""
    known = login(process.key)
    accounts: Any = AccountServiceStub(channel)
    customers: Any = CustomerServiceStub(channel)
    made = accounts.CreateApiKey(CreateApiKeyRequest(name="n", scopes=["*"]), metadata=known, timeout=60)
    customer = customers.CreateCustomer(
        CreateCustomerRequest(name="Ada Lovelace", email="ada@secret.example"), metadata=known, timeout=60
    )
    token = "tok_very_secret"
    refused: list[tuple[Any, Any, Any]] = [
        (customers.CreateCustomer, CreateCustomerRequest(name=f"my card is {CARD}"), known),
        (customers.AttachPaymentMethod, AttachPaymentMethodRequest(customer=customer.id, token=token), known),
        (customers.GetCustomer, GetCustomerRequest(id="cus_unknown"), known),
        (customers.GetCustomer, GetCustomerRequest(id=customer.id), login("sk_wrong_but_somebodys_secret")),
    ]
    for method, request, metadata in refused:
        with pytest.raises(grpc.RpcError):
            method(request, metadata=metadata, timeout=60)
    accounts.RevokeApiKey(RevokeApiKeyRequest(id=made.api_key.id), metadata=known, timeout=60)
    return [process.key, made.secret, CARD, token, "sk_wrong_but_somebodys_secret", "ada@secret.example", "Lovelace"]
