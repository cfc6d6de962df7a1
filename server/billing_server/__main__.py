"""`billing-server`: from the environment to a running server, and down again in order."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from billing_server import logs
from billing_server.bootstrap import PortTakenError, open_engine
from billing_server.config import Address, Config, ConfigError, help_text
from billing_server.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
from billing_server.first_start import Login, example_lines, first_login, leave_address
from billing_server.processes import (
    WorkerFailedError,
    refuse_taken_port,
    run_loop,
    serve_by_workers,
    serve_here,
)
from billing_server.store.errors import StoreError
from billing_server.store.migrate import MigrationError, migrate

_INTERRUPTED = 130
"""The exit status of a program that Ctrl-C has ended, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until it is told to stop; the exit status."""
    chosen = _parse(arguments)
    environment = dict(os.environ)
    if chosen.workers is not None:
        environment["BILLING_WORKERS"] = chosen.workers
    try:
        config = Config.from_environment(environment)
    except ConfigError as error:
        return _fail(*error.problems)
    logs.set_up(config.log_level)
    for line in config.describe():
        _say(f"  {line}")
    try:
        _run(config)
    except (EmbeddedPostgresError, MigrationError, PortTakenError, StoreError, WorkerFailedError, OSError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="billing-server",
        description="Subscription billing over gRPC and PostgreSQL. Without any setting it brings its own PostgreSQL.",
        epilog=help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"billing-server {version('billing-engine')}")
    parser.add_argument("--workers", metavar="NUMBER", help="the same as BILLING_WORKERS, and stronger")
    return parser.parse_args(arguments)


def _run(config: Config) -> None:
    refuse_taken_port(config)
    if config.database_url is not None:
        _serve(config, config.database_url)
        return
    with EmbeddedPostgres(config.data_directory) as postgres:
        _serve(config, postgres.database_url)


def _serve(config: Config, database_url: str) -> None:
    """Bring the database up to date, make sure that somebody can log in, and serve until a signal."""
    login = run_loop(_prepare(config, database_url))
    serve = serve_here if config.workers == 1 else serve_by_workers
    serve(config, database_url, lambda address: _welcome(config, address, login))
    _say("Stopped.")


async def _prepare(config: Config, database_url: str) -> Login:
    await migrate(database_url)
    engine = await open_engine(config, database_url)
    try:
        return await first_login(config, engine)
    finally:
        await engine.close()
        await engine.store.close()


def _welcome(config: Config, address: Address, login: Login) -> None:
    leave_address(config, address)
    _say("", login.remark, f"Serving on {address}.")
    if login.key_file is not None:
        _say("", "Try it:", "", *(f"  {line}" for line in example_lines(config, login.key_file, address)), "")


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _fail(*problems: str) -> int:
    for problem in problems:
        sys.stderr.write(f"billing-server: {problem}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
