"""A running `billing-server`, as a client in another language meets it: an address and a key."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_START_SECONDS = 180
_STOP_SECONDS = 120


@dataclass(frozen=True, slots=True)
class ServedEngine:
    """Where an engine listens, and a key that may do everything there."""

    target: str
    api_key: str


@contextlib.contextmanager
def served_engine(data_directory: Path) -> Iterator[ServedEngine]:
    """Run the server as a process of its own, with the embedded PostgreSQL, on a free loopback port."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")}
    environment |= {"BILLING_DATA_DIR": str(data_directory), "BILLING_LISTEN": "127.0.0.1:0"}
    log = data_directory / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "billing_server"], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield _login(process, data_directory, log)
        finally:
            process.terminate()
            try:
                status = process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"the server took over {_STOP_SECONDS} s to end:\n{log.read_text()}") from None
    assert status == 0, f"the server ended with status {status}:\n{log.read_text()}"


def _login(process: subprocess.Popen[bytes], data_directory: Path, log: Path) -> ServedEngine:
    """Wait until the server listens: only then it leaves its address beside the key."""
    address = data_directory / "address"
    deadline = time.monotonic() + _START_SECONDS
    while not address.is_file():
        assert process.poll() is None, f"the server did not start:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"the server took over {_START_SECONDS} s to start:\n{log.read_text()}"
        time.sleep(0.1)
    return ServedEngine(address.read_text().strip(), (data_directory / "api-key").read_text().strip())
