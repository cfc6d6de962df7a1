"""Signatures are those of Standard Webhooks: its own library accepts them, and nothing that was altered."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from billing_server.delivery.signature import signed_headers

OLD, NEW = b"o" * 32, b"n" * 32
BODY = '{"id":"evt_1","type":"invoice.paid","name":"Zoë"}'.encode()


def reader(secret: bytes) -> Webhook:
    return Webhook("whsec_" + base64.b64encode(secret).decode())


def test_the_public_library_verifies_it() -> None:
    headers = signed_headers([NEW], "wd_1", int(time.time()), BODY)
    assert reader(NEW).verify(BODY, headers)["name"] == "Zoë"
    assert headers["webhook-id"] == "wd_1"


def test_a_known_signature() -> None:
    """The example of the convention's own specification."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_both_secrets_sign_while_both_are_valid() -> None:
    headers = signed_headers([NEW, OLD], "wd_1", int(time.time()), BODY)
    for secret in (OLD, NEW):
        reader(secret).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        reader(b"x" * 32).verify(BODY, headers)


@pytest.mark.parametrize(
    ("header", "value"), [("webhook-id", "wd_2"), ("webhook-timestamp", str(int(time.time()) - 30))]
)
def test_nothing_can_be_exchanged(header: str, value: str) -> None:
    headers = signed_headers([NEW], "wd_1", int(time.time()), BODY)
    with pytest.raises(WebhookVerificationError):
        reader(NEW).verify(BODY, {**headers, header: value})
    with pytest.raises(WebhookVerificationError):
        reader(NEW).verify(BODY + b" ", headers)
