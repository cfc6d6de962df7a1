"""HTTP requests to the receivers of webhooks, who may be anybody: only where they may go, and within bounds.

A name is resolved once for each connection, all of its addresses are checked, and the connection is made to one of
these (promise 26): there is no second resolution that could answer otherwise. Redirects are not followed. Of an
answer only its head counts; of its body no more is read than keeps the connection usable.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from billing_server.domain.webhook_address import refusal_of_address, refusal_of_addresses, refusal_of_url

SECONDS_MAX: Final = 15.0
"""How long one request may take, from the resolution of the name to the head of the answer."""

_BODY_SECONDS_MAX: Final = 1.0
_BODY_BYTES_MAX: Final = 16_384
_KEPT_SECONDS: Final = 15.0
_LOOKUPS_AT_ONCE_MAX: Final = 32
_USER_AGENT: Final = "billing-engine webhooks"

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""Gives the IP addresses of a host name. Raises OSError."""


class NotSentError(Exception):
    """There was no answer; the text says why."""


class Reply(msgspec.Struct, frozen=True):
    """The head of an answer. `retry_after` are the seconds that a receiver asks to be left in peace."""

    status: int
    retry_after: int | None = None


class Receivers:
    """The connections to receivers. `allow_private` lets requests go anywhere, also by http, for development."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        lookup: Lookup | None = None,
        tls: ssl.SSLContext | None = None,
        seconds_max: float = SECONDS_MAX,
    ) -> None:
        self._allow_private = allow_private
        self._threads = ThreadPoolExecutor(_LOOKUPS_AT_ONCE_MAX, thread_name_prefix="webhook-lookup")
        self._lookup = lookup or self._system_lookup
        self._tls = tls
        self._seconds_max = seconds_max
        self._open: aiohttp.ClientSession | None = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Send a body, and return the head of the answer. Raises NotSentError."""
        refusal = None if self._allow_private else refusal_of_url(url)
        if refusal is not None:
            raise NotSentError(refusal)
        try:
            async with self._session().post(url, data=body, headers=headers, allow_redirects=False) as response:
                await _discard_body(response)
                return Reply(response.status, _seconds(response.headers.get("retry-after", "")))
        except TimeoutError as error:
            raise NotSentError(f"no answer within {self._seconds_max:g} s") from error
        except aiohttp.ClientError as error:
            raise NotSentError(_words(error)) from error

    async def close(self) -> None:
        """Give up all connections."""
        if self._open is not None:
            await self._open.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _session(self) -> aiohttp.ClientSession:
        if self._open is None:
            connector = aiohttp.TCPConnector(
                resolver=_CheckingResolver(self._lookup, allow_private=self._allow_private),
                use_dns_cache=False,
                # Whoever sends bounds what is under way, endpoint by endpoint; a limit here would let one wait for
                # another.
                limit=0,
                ssl=self._tls or True,
                keepalive_timeout=_KEPT_SECONDS,
                socket_factory=None if self._allow_private else _checked_socket,
            )
            self._open = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=self._seconds_max),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=_BODY_BYTES_MAX,
                headers={"User-Agent": _USER_AGENT, "Content-Type": "application/json"},
            )
        return self._open

    async def _system_lookup(self, host: str) -> Sequence[str]:
        """What the system's resolver says, in threads of its own: one that hangs must delay nobody else's."""
        ask = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return [str(sockaddr[0]) for *_, sockaddr in found]


class _CheckingResolver(AbstractResolver):
    """Resolves names for the connector, which then connects to these very addresses."""

    def __init__(self, lookup: Lookup, *, allow_private: bool) -> None:
        self._lookup = lookup
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host. Raises OSError when there are none, or when one of them must not be used."""
        del family
        addresses = list(dict.fromkeys(await self._lookup(host)))
        refusal = None if self._allow_private else refusal_of_addresses(addresses)
        if refusal is not None or not addresses:
            raise OSError(None, refusal or "the name stands for no address")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is kept open."""


def _checked_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for an address that is just being connected to: the last look, whichever way led here."""
    family, kind, protocol, _, sockaddr = address
    refusal = refusal_of_address(str(sockaddr[0]))
    if refusal is not None:
        raise OSError(None, refusal)
    return socket.socket(family, kind, protocol)


async def _discard_body(response: aiohttp.ClientResponse) -> None:
    """Read a short body, so that the connection can be used again; a long or slow one costs the connection."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_BODY_SECONDS_MAX):
            left = _BODY_BYTES_MAX
            while left > 0 and (chunk := await response.content.read(left)):
                left -= len(chunk)


def _seconds(text: str) -> int | None:
    """The seconds of a Retry-After header; dates are not heeded."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _words(error: aiohttp.ClientError) -> str:
    """An error in one line."""
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = error.os_error
        text = reason.strerror or str(reason)
        return f"cannot connect: {text}" if text else "cannot connect"
    return " ".join(str(error).split()) or type(error).__name__
