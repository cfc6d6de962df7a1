"""The processes that are harmed: servers and the gateway, each with a port that it keeps across its deaths."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.serving import free_port

START_SECONDS_MAX: Final = 180.0
_POLL_SECONDS: Final = 0.05


class ChildProcess:
    """A process that is started, killed, frozen and started again."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._environment = environment
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def process_id(self) -> int:
        """The process's id. Only while it runs."""
        assert self._popen is not None
        return self._popen.pid

    def launch(self, command: Sequence[str]) -> None:
        """Start it, without waiting until it is ready."""
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                [sys.executable, *command], env=dict(self._environment), stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()
            self._popen = None

    def freeze(self) -> None:
        """Stop it where it is, with all locks and connections that it has."""
        if self.runs:
            os.kill(self.process_id, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if self.runs:
            os.kill(self.process_id, signal.SIGCONT)

    def ended(self, seconds_max: float) -> int:
        """Wait until it ends by itself; its exit status. Raises subprocess.TimeoutExpired."""
        assert self._popen is not None
        return self._popen.wait(seconds_max)

    def stop(self, seconds_max: float) -> int | None:
        """Ask it to end, and return its exit status; None when it had to be killed."""
        if not self.runs or self._popen is None:
            return 0
        self.thaw()
        self._popen.terminate()
        try:
            return self._popen.wait(seconds_max)
        except subprocess.TimeoutExpired:
            self.kill()
            return None


class ServerProcess(ChildProcess):
    """`python -m billing_server` on a database, a gateway and a post office; with plants, with these bugs in it.

    `command` is what the next start runs: a module and its arguments.
    """

    def __init__(
        self, name: str, folder: Path, database_url: str, gateway: str, mail_port: int, plants: Sequence[str]
    ) -> None:
        self.target = f"127.0.0.1:{free_port()}"
        self._data = folder / name
        self.command = ["tests.chaos.plants", *plants] if plants else ["billing_server"]
        self._starting = asyncio.Lock()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")}
        environment |= {
            "BILLING_LISTEN": self.target,
            "BILLING_DATABASE_URL": database_url,
            "BILLING_DATABASE_CONNECTIONS": "8",
            "BILLING_DATA_DIR": str(self._data),
            "BILLING_GATEWAY_TARGET": gateway,
            "BILLING_DRAIN_SECONDS": "5",
            "BILLING_LOG_LEVEL": "warning",
            "BILLING_WEBHOOK_ALLOW_PRIVATE": "true",
            "BILLING_SMTP_HOST": "127.0.0.1",
            "BILLING_SMTP_PORT": str(mail_port),
            "BILLING_SMTP_FROM": "billing@shop.example",
            "BILLING_SMTP_TEST_CLOCKS": "true",
        }
        super().__init__(name, folder, environment)

    @property
    def api_key(self) -> str:
        """The key that the first server of a database leaves behind."""
        return (self._data / "api-key").read_text().strip()

    async def start(self) -> None:
        """Start it, if it does not run, and wait until it serves; the database may be away at first.

        Raises TimeoutError.
        """
        async with self._starting:
            await self._start()

    async def _start(self) -> None:
        give_up_at = time.monotonic() + START_SECONDS_MAX
        address = self._data / "address"
        while time.monotonic() < give_up_at:
            if not self.runs:
                address.unlink(missing_ok=True)
                self.launch(["-m", *self.command])
            if address.exists():
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise TimeoutError(f"{self.name} did not start:\n{self.log.read_text()[-4000:]}")


class GatewayProcess(ChildProcess):
    """The payment gateway, whose ledger is a file."""

    def __init__(self, folder: Path) -> None:
        self.target = f"127.0.0.1:{free_port()}"
        self.ledger_file = folder / "ledger.sqlite3"
        super().__init__("gateway", folder, os.environ)

    async def start(self, seed: int | None) -> None:
        """Start it, with bad manners by this seed or with good ones, and wait until it serves."""
        before = self.log.read_bytes().count(b"serving") if self.log.exists() else 0
        manners = [] if seed is None else ["--seed", str(seed)]
        self.launch(["-m", "tests.chaos.gateway", "--listen", self.target, "--ledger", str(self.ledger_file), *manners])
        async with asyncio.timeout(START_SECONDS_MAX):
            while self.log.read_bytes().count(b"serving") == before:
                assert self.runs, f"the gateway did not start:\n{self.log.read_text()[-4000:]}"
                await asyncio.sleep(_POLL_SECONDS)
