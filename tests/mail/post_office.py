"""A real SMTP server (aiosmtpd) in the loop of the test, which answers as its script says."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, Final

from aiosmtpd.smtp import SMTP, Envelope, Session

from billing_server.delivery.outbox import SmtpServer

OPEN_SECONDS_MAX: Final = 60.0
OK: Final = "250 taken"
DROP: Final = "drop"
"""Hang up without a word."""
TAKE_AND_DROP: Final = "take and drop"
"""Take the letter, and hang up before saying so."""


def _hang_up(server: SMTP) -> None:
    """Break the connection."""
    assert isinstance(server.transport, asyncio.Transport)
    server.transport.abort()


class PostOffice:
    """Takes letters. `answers` maps a recipient to what is said to the tries for it, one after the other.

    An answer is a line of SMTP, or DROP, or TAKE_AND_DROP; when there are none left, the letter is taken. `at_rcpt`
    says them to the address, otherwise they are said to the content. `taken` counts letters by Message-ID.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = defaultdict(list)
        self.at_rcpt = False
        self.chance: Callable[[], str] | None = None
        self.letters: list[EmailMessage] = []
        self.taken: Counter[str] = Counter()
        self.took = asyncio.Event()
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._transports: set[Any] = set()

    async def open(self, port: int = 0) -> None:
        """Begin to listen. While it was away somebody may have been given its port for a connection; that ends."""
        async with asyncio.timeout(OPEN_SECONDS_MAX):
            while self._server is None:
                try:
                    self._server = await asyncio.get_running_loop().create_server(self._protocol, "127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.1)
        self.port = self._server.sockets[0].getsockname()[1]

    def _protocol(self) -> SMTP:
        self.connections += 1
        return SMTP(self, enable_SMTPUTF8=False, loop=asyncio.get_running_loop())

    async def close(self) -> None:
        """Stop listening, and hang up on everybody."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in self._transports:
            # What is closed already cannot be aborted over TLS by the first releases of Python 3.11.
            if not transport.is_closing():
                transport.abort()
        await asyncio.sleep(0.01)

    @property
    def server(self) -> SmtpServer:
        """How to reach it."""
        return SmtpServer(host="127.0.0.1", port=self.port, security="none")

    # --- what aiosmtpd calls

    def _answer(self, recipient: str) -> str:
        if self.chance is not None:
            return self.chance()
        return self.answers[recipient].pop(0) if self.answers[recipient] else OK

    async def handle_EHLO(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        self._transports.add(server.transport)
        session.host_name = hostname
        return responses

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.at_rcpt:
            answer = self._answer(address)
            if answer == DROP:
                _hang_up(server)
            elif answer != OK:
                return answer
        envelope.rcpt_tos.append(address)
        return OK

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # its name
        answer = OK if self.at_rcpt else self._answer(envelope.rcpt_tos[0])
        if answer in (OK, TAKE_AND_DROP):
            content = envelope.content
            assert isinstance(content, bytes)
            letter = message_from_bytes(content, _class=EmailMessage, policy=default)
            self.letters.append(letter)
            self.took.set()
            self.taken[str(letter["Message-ID"])] += 1
        if answer in (DROP, TAKE_AND_DROP):
            _hang_up(server)
            return OK
        return answer
