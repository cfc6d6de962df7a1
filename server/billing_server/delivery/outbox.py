"""Outboxes: where letters go. An SMTP server, or files in a folder for whoever has none yet.

DeliveryError
├── Rejected        the server will never take this letter
├── Postponed       it does not take this letter now
└── Unreachable     no letter gets through: the server is away, or does not let us in
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from email.message import EmailMessage
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec
from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPDataError,
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientRefused,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
)

SEND_SECONDS_MAX: Final = 30.0
"""How long one letter may take, connecting included."""

_IDLE_MAX: Final = 10
_PERMANENT: Final = range(500, 600)


class DeliveryError(Exception):
    """A letter was not delivered; the text says why."""


class Rejected(DeliveryError):
    """The server will never take this letter."""


class Postponed(DeliveryError):
    """The server does not take this letter now."""


class Unreachable(DeliveryError):
    """No letter gets through at present."""


class Outbox(Protocol):
    """Where letters go."""

    async def send(self, letter: EmailMessage, name: str) -> None:
        """Hand a letter over; `name` is its message's id. Raises DeliveryError."""

    async def close(self) -> None:
        """Give up what is kept open."""


class FolderOutbox:
    """Writes each letter as NAME.eml. Written twice it is still one file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, letter: EmailMessage, name: str) -> None:
        """Write the letter, whole or not at all. Raises Unreachable when the folder cannot be written to."""
        try:
            await asyncio.to_thread(self._write, letter.as_bytes(), name)
        except OSError as error:
            raise Unreachable(f"{self._folder} cannot be written to: {error.strerror}") from error

    def _write(self, content: bytes, name: str) -> None:
        # Letters hold names and amounts: nobody but the server's user needs to read them.
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self._folder / f".{name}.{os.getpid()}"
        try:
            unfinished.write_bytes(content)
            unfinished.replace(self._folder / f"{name}.eml")
        finally:
            unfinished.unlink(missing_ok=True)

    async def close(self) -> None:
        """Nothing is kept open."""


class SmtpServer(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the SMTP server. `security` is TLS from the start, after STARTTLS, or none."""

    host: str
    port: int
    security: Literal["tls", "starttls", "none"]
    user: str | None = None
    password: str | None = None


class SmtpOutbox:
    """Hands letters to an SMTP server; connections are kept for the next letters.

    A refusal with 5xx of the recipient or the content is for good. One of the login or the sender is not: it comes
    from wrong settings, and would throw away every letter until somebody mends them.
    """

    def __init__(self, server: SmtpServer, *, tls: ssl.SSLContext | None = None) -> None:
        self._server = server
        self._tls = tls
        self._idle: list[SMTP] = []

    async def send(self, letter: EmailMessage, name: str) -> None:  # noqa: ARG002  # letters bear their ids
        """Hand a letter over. Raises Rejected, Postponed and Unreachable."""
        try:
            async with asyncio.timeout(SEND_SECONDS_MAX):
                client = await self._reuse() or await self._connect()
                await self._send(client, letter)
        except TimeoutError as error:
            raise Unreachable(f"{self._server.host} does not answer in {SEND_SECONDS_MAX:.0f} s") from error

    async def _send(self, client: SMTP, letter: EmailMessage) -> None:
        try:
            await client.send_message(letter)
        except BaseException as error:
            client.close()
            if isinstance(error, SMTPException | OSError):
                raise _meaning(error) from error
            raise
        if len(self._idle) < _IDLE_MAX:
            self._idle.append(client)
        else:
            await _part(client)

    async def _reuse(self) -> SMTP | None:
        """A kept connection that still works."""
        while self._idle:
            client = self._idle.pop()
            try:
                await client.rset()
            except (SMTPException, OSError):
                client.close()
            except BaseException:
                client.close()
                raise
            else:
                return client
        return None

    async def _connect(self) -> SMTP:
        server = self._server
        client = SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            use_tls=server.security == "tls",
            start_tls=server.security == "starttls",
            tls_context=self._tls,
            timeout=SEND_SECONDS_MAX,
        )
        try:
            await client.connect()
        except BaseException as error:
            client.close()
            if isinstance(error, SMTPException | OSError | ValueError):
                raise Unreachable(f"{server.host}:{server.port}: {describe(error)}") from error
            raise
        return client

    async def close(self) -> None:
        """Take leave of the server."""
        while self._idle:
            await _part(self._idle.pop())


async def _part(client: SMTP) -> None:
    with contextlib.suppress(SMTPException, OSError, TimeoutError):
        async with asyncio.timeout(1):
            await client.quit()
    client.close()


def _meaning(error: SMTPException | OSError) -> DeliveryError:
    """What the server's refusal means for the letter, and for the others."""
    if isinstance(error, SMTPRecipientsRefused) and error.recipients:
        error = error.recipients[0]
    if isinstance(error, SMTPNotSupported):
        return Rejected(f"the server takes no such address: {describe(error)}")
    if isinstance(error, SMTPRecipientRefused | SMTPDataError):
        return (Rejected if error.code in _PERMANENT else Postponed)(describe(error))
    if isinstance(error, SMTPSenderRefused | SMTPAuthenticationError):
        return Unreachable(describe(error))
    # The connection broke, perhaps after the letter had been taken: it will be sent again.
    return Postponed(describe(error))


def describe(error: BaseException) -> str:
    """An error in one line: the server's code and words where it said something."""
    if isinstance(error, SMTPResponseException):
        return f"{error.code} {' '.join(error.message.split())}"
    return " ".join(str(error).split()) or type(error).__name__
