"""The server as a process: first start, the pasted lines, restarts, workers, what it says when it cannot start."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from billing.v1.customer_service_pb2 import CreateCustomerRequest, ListCustomersRequest
from billing.v1.customer_service_pb2_grpc import CustomerServiceStub
from billing_server.config import SETTINGS
from tests.conftest import temporary_data_directory
from tests.serving import free_port

START_SECONDS_MAX = 120
STOP_SECONDS_MAX = 60
CALL_SECONDS_MAX = 60
CHECKOUT = Path(__file__).parents[2]


class Process:
    """`python -m billing_server` with a data directory of its own, or a shared one."""

    def __init__(self, directory: Path, *arguments: str, **settings: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")}
        environment |= {"BILLING_DATA_DIR": str(directory / ".data"), "BILLING_LISTEN": "127.0.0.1:0", **settings}
        self.directory = directory
        self.log = directory / "log"
        self.text = ""
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "billing_server", *arguments],
                cwd=directory,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_serving(self, end: str = "StreamEvents\n") -> str:
        """The address that it says it serves on; `end` is the pattern of what it says last."""
        self._read_until(end)
        found = re.search(r"^Serving on (\S+)\.$", self.text, re.MULTILINE)
        assert found is not None, self.text
        return found[1]

    def _read_until(self, end: str) -> None:
        assert self.popen.stdout is not None
        descriptor = self.popen.stdout.fileno()
        give_up_at = time.monotonic() + START_SECONDS_MAX
        while re.search(end, self.text) is None:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, give_up_at - time.monotonic()))
            data = os.read(descriptor, 65_536) if ready else b""
            assert data, f"not said in time: {end!r}\n{self.text}\n{self.log.read_text()}"
            self.text += data.decode()

    @property
    def key(self) -> str:
        """The key that it left in its data directory."""
        return (self.directory / ".data" / "api-key").read_text().strip()

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        found = subprocess.run(["pgrep", "-P", str(self.popen.pid), "-f", "spawn_main"], capture_output=True, text=True)
        return sorted(map(int, found.stdout.split()))

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal, to the whole group as Ctrl-C does, and wait for the end."""
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, number)
        try:
            return self.popen.wait(STOP_SECONDS_MAX)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            assert self.popen.stdout is not None
            self.popen.stdout.close()


@contextlib.contextmanager
def running(directory: Path, *arguments: str, **settings: str) -> Iterator[Process]:
    process = Process(directory, *arguments, **settings)
    try:
        yield process
    finally:
        process.stop(signal.SIGKILL)


@pytest.fixture
def directory() -> Iterator[Path]:
    with temporary_data_directory() as parent:
        yield parent


Login = tuple[tuple[str, str], ...]


@contextlib.contextmanager
def customers(address: str, key: str, tls: grpc.ChannelCredentials | None = None) -> Iterator[tuple[Any, Login]]:
    """A blocking stub, though the types of generated stubs know asyncio only, and the metadata of its calls."""
    channel: Any = grpc.insecure_channel(address) if tls is None else grpc.secure_channel(address, tls)
    with channel:
        yield CustomerServiceStub(channel), (("authorization", f"Bearer {key}"),)


def create(address: str, key: str, name: str) -> str:
    with customers(address, key) as (stub, login):
        request = CreateCustomerRequest(name=name)
        return str(stub.CreateCustomer(request, metadata=login, timeout=CALL_SECONDS_MAX, wait_for_ready=True).id)


def listed(address: str, key: str) -> list[str]:
    with customers(address, key) as (stub, login):
        found = stub.ListCustomers(
            ListCustomersRequest(), metadata=login, timeout=CALL_SECONDS_MAX, wait_for_ready=True
        )
        return [customer.id for customer in found.customers]


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A run that ends by itself."""
    environment: Mapping[str, str] = {**os.environ, **settings}
    return subprocess.run(
        [sys.executable, "-m", "billing_server", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=START_SECONDS_MAX,
    )


def grpcurl() -> str | None:
    """Where grpcurl is, if it is."""
    return shutil.which("grpcurl") or shutil.which("grpcurl", path=str(Path.home() / "go" / "bin"))


def test_help_lists_every_setting_and_version_is_told() -> None:
    told = run("--help").stdout
    assert all(setting.name in told for setting in SETTINGS)
    assert re.fullmatch(r"billing-server \S+\n", run("--version").stdout)


def test_wrong_settings_are_told_together() -> None:
    ended = run(BILLING_LISTEN="nowhere", BILLING_LOG_LEVEL="loud")
    assert ended.returncode == 1
    assert [line.split(":")[1].strip() for line in ended.stderr.splitlines()] == ["BILLING_LISTEN", "BILLING_LOG_LEVEL"]


def test_the_first_start_leaves_a_key_and_lines_that_work(directory: Path) -> None:
    with running(directory) as process:
        address = process.wait_until_serving()
        key_file = directory / ".data" / "api-key"
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        assert (directory / ".data" / "address").read_text().strip() == address
        customer = create(address, process.key, "Bo")
        lines = [line.strip() for line in process.text.replace("\\\n", " ").splitlines() if "grpcurl" in line]
        assert len(lines) == 3
        program = grpcurl()
        if program is not None:
            outputs = [_paste(line, program, directory) for line in lines[:2]]
            assert "billing.v1.SubscriptionService" in outputs[0]
            assert '"name": "Ada"' in outputs[1]
            assert '"customer.created"' in _paste(lines[2], program, directory, until=customer)
        assert process.stop() == 0
    assert "Traceback" not in process.log.read_text()


def _paste(line: str, program: str, directory: Path, until: str | None = None) -> str:
    """Run a line as a shell would, and return what it says; a stream, which has no end, `until` it has said this."""
    limited = re.sub(r"^grpcurl", f"{program} -max-time {CALL_SECONDS_MAX}", line)
    running = subprocess.Popen(
        ["sh", "-c", f"exec {limited}"], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with running:
        assert running.stdout is not None and running.stderr is not None
        told = ""
        for said in running.stdout:
            told += said
            if until is not None and until in told:
                running.kill()
                return told
        problem = running.stderr.read()
    assert until is None and running.returncode == 0, f"{told}\n{problem}"
    return told


def test_data_and_key_survive_ctrl_c_and_kill(directory: Path) -> None:
    made = []
    keys = set()
    for number in (signal.SIGINT, signal.SIGKILL, signal.SIGTERM):
        with running(directory) as process:
            address = process.wait_until_serving()
            keys.add(process.key)
            made.append(create(address, process.key, number.name))
            assert sorted(listed(address, process.key)) == sorted(made)
            status = process.stop(number)
            assert status == (-number if number == signal.SIGKILL else 0)
    assert len(keys) == 1


def test_a_second_server_says_what_is_in_its_way(directory: Path) -> None:
    with running(directory) as process:
        address = process.wait_until_serving()
        data = str(directory / ".data")
        taken = run(BILLING_DATA_DIR=data, BILLING_LISTEN=address)
        assert taken.returncode == 1
        assert f"{address} cannot be listened on" in taken.stderr
        assert "BILLING_LISTEN" in taken.stderr
        held = run(BILLING_DATA_DIR=data, BILLING_LISTEN="127.0.0.1:0")
        assert held.returncode == 1
        assert str(process.popen.pid) in held.stderr
        assert "BILLING_DATA_DIR" in held.stderr
        nowhere = run(BILLING_LISTEN="192.0.2.1:50051", BILLING_ALLOW_PLAINTEXT="true")
        assert "BILLING_LISTEN" in nowhere.stderr
        assert all("Traceback" not in ended.stderr for ended in (taken, held, nowhere))


def test_workers_share_the_port_and_are_started_again(directory: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    with running(directory, "--workers", "2", BILLING_LISTEN=listen) as process:
        address = process.wait_until_serving()
        first = process.workers()
        assert (address, len(first)) == (listen, 2)
        customer = create(address, process.key, "Ada")
        os.kill(first[0], signal.SIGKILL)
        _wait_for(lambda: len(process.workers()) == 2 and first[0] not in process.workers())
        assert [listed(address, process.key) for _ in range(6)] == [[customer]] * 6
        workers = process.workers()
        assert process.stop() == 0
    _wait_for(lambda: not any(map(_lives, workers)))


def test_workers_end_with_a_parent_that_is_killed(directory: Path) -> None:
    with running(directory, BILLING_LISTEN=f"127.0.0.1:{free_port()}", BILLING_WORKERS="2") as process:
        process.wait_until_serving()
        workers = process.workers()
        process.popen.kill()
        _wait_for(lambda: not any(map(_lives, workers)))


def _lives(process_id: int) -> bool:
    """Whether it still runs: an orphan that has ended may stay a zombie where nobody collects it, as in containers."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process_id)], capture_output=True, text=True).stdout.strip()
    return state != "" and not state.startswith("Z")


def _wait_for(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


def test_tls_with_certificates_on_both_sides(directory: Path, database_url: str) -> None:
    authority = trustme.CA()
    server, client = authority.issue_cert("localhost"), authority.issue_cert("client@example.com")
    server.cert_chain_pems[0].write_to_path(directory / "server.pem")
    server.private_key_pem.write_to_path(directory / "server.key")
    authority.cert_pem.write_to_path(directory / "authority.pem")
    settings = {
        "BILLING_TLS_CERT": str(directory / "server.pem"),
        "BILLING_TLS_KEY": str(directory / "server.key"),
        "BILLING_TLS_CLIENT_CA": str(directory / "authority.pem"),
    }
    with running(directory, BILLING_LISTEN="localhost:0", **settings) as process:
        address = process.wait_until_serving()
        assert "-plaintext" not in process.text
        known = grpc.ssl_channel_credentials(
            authority.cert_pem.bytes(), client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes()
        )
        unknown = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        with customers(address, process.key, known) as (stub, login):
            assert stub.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=login, timeout=CALL_SECONDS_MAX).id
        for credentials in (unknown, None):
            with customers(address, process.key, credentials) as (stub, login), pytest.raises(grpc.RpcError):
                stub.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=login, timeout=CALL_SECONDS_MAX)


def test_metrics_tell_of_calls_and_work(directory: Path) -> None:
    metrics = f"127.0.0.1:{free_port()}"
    with running(directory, BILLING_METRICS_LISTEN=metrics) as process:
        create(process.wait_until_serving(), process.key, "Ada")
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=CALL_SECONDS_MAX) as response:
            told = response.read().decode()
    assert 'billing_calls_total{code="OK",method="billing.v1.CustomerService/CreateCustomer"} 1.0' in told
    assert "billing_due_books 0.0" in told
    for name in (
        "due_seconds",
        "charges",
        "books_parked_total",
        "streams_open",
        "stream_lag_events",
        "call_seconds_bucket",
    ):
        assert f"billing_{name}" in told
