"""One run of a command: the global options, the connection they ask for, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import typer
from google.protobuf.message import Message

from billing_client.channel import Tls
from billing_client.client import BillingClient
from billing_client.command_line.output import Output
from billing_client.credentials import find_login
from billing_client.errors import BillingError, ConnectionFailed, Refusal
from billing_client.pages import PAGE_SIZE_MAX, Request, Response
from billing_client.retry import RetryPolicy

FAILED = 1
INTERRUPTED = 130

_ATTEMPTS = 6
"""About three seconds: long enough for a restart, short enough for somebody who waits."""

_PATIENT_ATTEMPTS = 100

Item = TypeVar("Item", bound=Message)


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """What stands before, or anywhere in, a command."""

    target: str | None = None
    api_key: str | None = None
    plaintext: bool = False
    authorities_file: Path | None = None
    timeout_seconds: float = 30.0
    as_json: bool = False
    color: bool = True

    def tls(self) -> Tls | bool | None:
        """What `BillingClient` takes: None leaves the choice to it."""
        if self.authorities_file is not None:
            return Tls(root_certificates=self.authorities_file.read_bytes())
        return False if self.plaintext else None


@dataclass(frozen=True, slots=True)
class Session:
    """A connected client and the place for its answers."""

    client: BillingClient
    output: Output

    async def list(
        self,
        method: Callable[[Request], Awaitable[Response]],
        request: Request,
        pick: Callable[[Response], Iterable[Item]],
        limit: int,
    ) -> None:
        """Show the first `limit` objects of a list, all of them for 0; JSON is written page by page."""
        page_size = min(limit, PAGE_SIZE_MAX) or PAGE_SIZE_MAX
        found: list[Item] = []
        more = False
        async for item in self.client.list_all(method, request, pick, page_size):
            if limit and len(found) == limit:
                more = True
                break
            found.append(item)
            if self.output.as_json:
                self.output.messages([item])
                if not limit:
                    found.clear()
        if not self.output.as_json:
            self.output.messages(found)
        if more:
            self.output.note(f"These are the first {limit}; --limit 0 lists all.")


def run(context: typer.Context, work: Callable[[Session], Awaitable[None]], *, patient: bool = False) -> None:
    """Connect, do the work, close. A BillingError becomes one line and exit status 1.

    `patient` calls are repeated for minutes while the server is away, for work that outlives its restarts.
    """
    options = context.find_object(GlobalOptions) or GlobalOptions()
    output = Output(as_json=options.as_json, color=options.color)
    try:
        asyncio.run(_connected(options, output, work, patient))
    except ConnectionFailed as error:
        if error.reason:
            output.error(error)
        else:
            output.error(_no_server(options, error))
        raise typer.Exit(FAILED) from None
    except BillingError as error:
        output.error(error)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _no_server(options: GlobalOptions, error: ConnectionFailed) -> ConnectionFailed:
    """The transport's failure with what a person can do about it."""
    target = find_login(options.target, options.api_key).target
    message = f"no server answers at {target}: start one with `make run`, or name another by --target"
    return ConnectionFailed(Refusal(code=error.code, message=f"{message} ({error.message})"))


async def _connected(
    options: GlobalOptions, output: Output, work: Callable[[Session], Awaitable[None]], patient: bool
) -> None:
    retry = RetryPolicy(attempts_max=_PATIENT_ATTEMPTS if patient else _ATTEMPTS)
    async with BillingClient(
        options.target,
        options.api_key,
        tls=options.tls(),
        timeout_seconds=options.timeout_seconds,
        retry=retry,
    ) as client:
        await work(Session(client, output))


def show(context: typer.Context, call: Callable[[BillingClient], Awaitable[Message]]) -> None:
    """Make one call and show what comes back."""

    async def work(session: Session) -> None:
        session.output.message(await call(session.client))

    run(context, work)
