"""Server processes: this one alone, or several workers that share the port and are watched over.

Workers are spawned, never forked: a fork after grpc has begun to work hangs (reliability, trap 8). Each has its
own loop and connections; the kernel hands new connections to one of them (SO_REUSEPORT).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import gc
import logging
import multiprocessing
import multiprocessing.connection
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Final, TypeVar

import uvloop

from billing_server import logs
from billing_server.bootstrap import PortTakenError, Server, port_taken
from billing_server.config import Address, Config
from billing_server.store.errors import StoreError

LOGGER = logging.getLogger(__name__)

Ready = Callable[[Address], None]
"""Told once that calls are answered, and where."""

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_RESTART_SECONDS: Final = 1.0
_RESTART_SECONDS_MAX: Final = 30.0
_STEADY_SECONDS: Final = 60.0
_GRACE_SECONDS: Final = 10.0

_COLLECT_AFTER: Final = (50_000, 20, 20)
"""New objects before the young ones are looked through, and how many such looks before the older ones are."""

T = TypeVar("T")


class WorkerFailedError(Exception):
    """A worker could not start; the message is its own."""


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in an event loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def calm_collector() -> None:
    """Have the garbage collector look at less, and less often: a batch makes tens of thousands of objects that live
    until it is committed, and looking through them again and again took a twentieth of a billing run.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


def refuse_taken_port(config: Config) -> None:
    """Say early and clearly that the port cannot be had. Raises PortTakenError."""
    family = socket.AF_INET6 if ":" in config.listen.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((config.listen.host, config.listen.port))
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise port_taken(config.listen, reason=None if taken else error.strerror) from error


def serve_here(config: Config, database_url: str, ready: Ready) -> None:
    """Serve in this process until a signal tells it to stop."""
    run_loop(_serve(config, database_url, ready, _STOP_SIGNALS))


async def _serve(config: Config, database_url: str, ready: Ready, stop_signals: tuple[signal.Signals, ...]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in stop_signals:
        loop.add_signal_handler(number, stopped.set)
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop.add_reader(parent.sentinel, stopped.set)
    server = await Server.start(config, database_url)
    calm_collector()
    try:
        ready(server.address)
        await stopped.wait()
    finally:
        if parent is not None:
            loop.remove_reader(parent.sentinel)
        await server.close()


# --- workers


def _work(config: Config, database_url: str, to_parent: Connection) -> None:
    """A worker's life. What a user can mend is told to the parent; everything else is in the log."""
    # Ctrl-C reaches every process of the terminal; only the parent decides when workers stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.set_up(config.log_level)
    try:
        run_loop(_serve(config, database_url, lambda _: to_parent.send(None), (signal.SIGTERM,)))
    except (PortTakenError, StoreError) as error:
        with contextlib.suppress(OSError):
            to_parent.send(str(error))
        raise SystemExit(1) from error


class _Worker:
    """One worker and how its starts have gone."""

    def __init__(self, number: int, config: Config, database_url: str) -> None:
        self.number = number
        self._config = config
        self._database_url = database_url
        self._pause = _RESTART_SECONDS
        self.restart_at: float | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, to_parent = context.Pipe(duplex=False)
        self.process: SpawnProcess = context.Process(
            target=_work, args=(self._config, self._database_url, to_parent), name=f"billing-worker-{self.number}"
        )
        self.process.start()
        to_parent.close()
        self.restart_at = None
        self._started_at = time.monotonic()

    def told(self) -> str | None:
        """What the worker says: None once it serves. Raises WorkerFailedError, EOFError when it ended silently."""
        problem: str | None = self.pipe.recv()
        if problem is not None:
            raise WorkerFailedError(problem)
        return problem

    def ended(self) -> None:
        """Plan the next start; a worker that keeps dying is started more and more seldom."""
        self.process.join()
        LOGGER.error("worker %d ended with exit code %s", self.number, self.process.exitcode)
        self.pipe.close()
        steady = time.monotonic() - self._started_at > _STEADY_SECONDS
        self._pause = _RESTART_SECONDS if steady else min(self._pause * 2, _RESTART_SECONDS_MAX)
        self.restart_at = time.monotonic() + self._pause

    def restart_if_due(self) -> None:
        """Start again when its pause is over."""
        if self.restart_at is not None and time.monotonic() >= self.restart_at:
            self._start()

    def stop(self, kill_at: float) -> None:
        """Wait for the end that was asked for; end it the hard way when it takes too long."""
        self.process.join(max(0.0, kill_at - time.monotonic()))
        if self.process.is_alive():
            LOGGER.error("worker %d does not end; it is killed", self.number)
            self.process.kill()
            self.process.join()


def serve_by_workers(config: Config, database_url: str, ready: Ready) -> None:
    """Serve by several processes until a signal; one that dies is started again. Raises WorkerFailedError."""
    with _stop_signal() as stopped:
        workers = [_Worker(number, _config_of(config, number), database_url) for number in range(config.workers)]
        try:
            for worker in workers:
                _await_start(worker)
            ready(config.listen)
            _watch(workers, stopped)
        finally:
            for worker in workers:
                worker.process.terminate()
            kill_at = time.monotonic() + config.drain_seconds + _GRACE_SECONDS
            for worker in workers:
                worker.stop(kill_at)


def _config_of(config: Config, number: int) -> Config:
    """A worker's settings: metrics are each worker's own, on ports that follow each other."""
    metrics = config.metrics_listen
    if metrics is None:
        return config
    return dataclasses.replace(config, metrics_listen=Address(metrics.host, metrics.port + number))


def _await_start(worker: _Worker) -> None:
    try:
        worker.told()
    except EOFError:
        raise WorkerFailedError(f"worker {worker.number} ended while it started; its log says why") from None


def _watch(workers: list[_Worker], stopped: socket.socket) -> None:
    """Start workers that died again, until the stop signal."""
    while True:
        sentinels = {worker.process.sentinel: worker for worker in workers if worker.restart_at is None}
        pauses = [worker.restart_at - time.monotonic() for worker in workers if worker.restart_at is not None]
        timeout = max(0.0, min(pauses)) if pauses else None
        for woken in multiprocessing.connection.wait([*sentinels, stopped], timeout):
            if woken is stopped:
                return
            if isinstance(woken, int):
                sentinels[woken].ended()
        for worker in workers:
            worker.restart_if_due()


@contextlib.contextmanager
def _stop_signal() -> Iterator[socket.socket]:
    """A socket that becomes readable when this process is told to stop."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in _STOP_SIGNALS}
    fd_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(fd_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()
