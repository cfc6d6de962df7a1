"""Letters travel encrypted and after a login; settings that are wrong cost no letter."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from billing_server.delivery.letter import Sender, write_letter
from billing_server.delivery.outbox import SmtpOutbox, SmtpServer, Unreachable
from tests.mail.post_office import PostOffice
from tests.store import samples

# The mail server does not see that TLS came first, and warns of a login without it.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")

LETTER = write_letter(samples.message(samples.customer()), Sender("billing@shop.example"))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def login(server: SMTP, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    known = isinstance(data, LoginPassword) and (data.login, data.password) == (b"engine", b"secret")
    return AuthResult(success=known, handled=False)


@asynccontextmanager
async def served(authority: trustme.CA, security: str) -> AsyncIterator[tuple[PostOffice, int]]:
    """A mail server that takes letters only after TLS and a login."""
    office = PostOffice()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {"authenticator": login, "auth_required": True, "loop": loop}
    if security == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    else:
        options |= {"auth_require_tls": False}
    listener = await loop.create_server(
        lambda: SMTP(office, **options), "127.0.0.1", 0, ssl=context if security == "tls" else None
    )
    yield office, listener.sockets[0].getsockname()[1]
    listener.close()
    await office.close()
    await asyncio.sleep(0.05)


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("security", ["tls", "starttls"])
async def test_encrypted_and_logged_in(authority: trustme.CA, security: Any) -> None:
    async with served(authority, security) as (office, port):
        server = SmtpServer(host="127.0.0.1", port=port, security=security, user="engine", password="secret")
        outbox = SmtpOutbox(server, tls=trusting(authority))
        await outbox.send(LETTER, "msg_1")
        await outbox.close()
    assert len(office.letters) == 1


@pytest.mark.parametrize(
    ("security", "trusted", "password"),
    [("starttls", True, "wrong"), ("tls", True, "wrong"), ("starttls", False, "secret"), ("tls", False, "secret")],
)
async def test_wrong_settings_are_nothing_about_the_letter(
    authority: trustme.CA, security: Any, trusted: bool, password: str
) -> None:
    async with served(authority, security) as (office, port):
        server = SmtpServer(host="127.0.0.1", port=port, security=security, user="engine", password=password)
        outbox = SmtpOutbox(server, tls=trusting(authority) if trusted else None)
        with pytest.raises(Unreachable):
            await outbox.send(LETTER, "msg_1")
        await outbox.close()
    assert office.letters == []


async def test_a_server_without_starttls_gets_no_letter(post_office: PostOffice) -> None:
    server = SmtpServer(host="127.0.0.1", port=post_office.port, security="starttls")
    with pytest.raises(Unreachable):
        await SmtpOutbox(server).send(LETTER, "msg_1")
    assert post_office.letters == []
