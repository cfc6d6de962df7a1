"""The audit of webhooks, consumers and letters, finding by finding; what really happens is in `test_chaos.py`."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence

import pytest
from google.protobuf import json_format
from standardwebhooks import Webhook

from billing.v1.event_model_pb2 import Event
from billing_server.delivery.signature import signed_headers
from billing_server.domain.webhook import delivery_id
from tests.chaos import audit_deliveries
from tests.chaos.consumers import Note
from tests.chaos.receivers import Receiver

SECRET = "whsec_" + "c2VjcmV0" * 4
ENDPOINT = "we_1"


def _event(position: int, type_: str = "invoice.paid", account: str = "acct_1", object_id: str = "in_1") -> Event:
    return Event(position=position, type=type_, account=account, object_id=object_id)


LOG = (_event(1, "webhook_endpoint.created", object_id=ENDPOINT), _event(2), _event(3, "customer.created"), _event(4))


def _receiver(*taken: Event) -> Receiver:
    receiver = Receiver("books", ["invoice.*"], random.Random(0))
    receiver.endpoint, receiver.secrets = ENDPOINT, [SECRET]
    for event in taken:
        receiver.taken[delivery_id(ENDPOINT, event.position)] = json_format.MessageToJson(event).encode()
    return receiver


@pytest.mark.parametrize(
    ("taken", "quiet", "telling"),
    [
        ([_event(2), _event(4)], (), []),
        ([_event(2)], (4,), []),
        ([_event(2)], (), ["never got 1 of 2 events, such as 4 (invoice.paid)"]),
        ([], (), ["never got 2 of 2"]),
        ([_event(2), _event(4, account="acct_2")], (), ["tells of the account acct_2"]),
        ([_event(2), _event(4), LOG[2]], (), ["tells of 3 (customer.created), which it does not want"]),
        ([_event(2), _event(4, object_id="in_2")], (), ["tells 4 in other words than the log: objectId"]),
    ],
)
def test_webhooks_are_compared_with_the_log(
    taken: Sequence[Event], quiet: Sequence[int], telling: Sequence[str]
) -> None:
    found = list(audit_deliveries.webhooks(_receiver(*taken), "acct_1", LOG, frozenset(quiet)))
    _told(found, telling)


def test_an_endpoint_gets_what_follows_its_creation() -> None:
    assert list(audit_deliveries.webhooks(_receiver(), "acct_1", LOG[:1], frozenset())) == []
    found = list(audit_deliveries.webhooks(_receiver(), "acct_1", LOG[1:], frozenset()))
    assert found == ["the receiver books: no event tells of its endpoint"]


def test_a_receiver_knows_its_secrets() -> None:
    receiver, body = _receiver(), b"{}"
    other = "whsec_" + "b3RoZXIx" * 4
    keys = [Webhook(secret)._whsecret for secret in (SECRET, other)]
    moment = int(time.time())
    assert receiver.is_signed(body, signed_headers(keys[:1], "wd_1", moment, body))
    assert receiver.is_signed(body, signed_headers(keys[::-1], "wd_1", moment, body))
    assert not receiver.is_signed(body, signed_headers(keys[1:], "wd_1", moment, body))
    assert not receiver.is_signed(b"[]", signed_headers(keys[:1], "wd_1", moment, body))
    receiver.secrets.append(other)
    assert receiver.is_signed(body, signed_headers(keys[1:], "wd_1", moment, body))


def _given(member: str, *positions: int, account: str = "acct_1") -> list[Note]:
    return [Note("given", member, position, account) for position in positions]


def _done(member: str, *positions: int) -> list[Note]:
    return [Note("done", member, position) for position in positions]


WANTED = {1: "cus_1", 2: "cus_2", 3: "cus_1"}


@pytest.mark.parametrize(
    ("notes", "telling"),
    [
        (_given("a", 1, 2, 3) + _done("a", 1, 2, 3), []),
        ([*_given("a", 1, 2, 3), Note("gone", "a"), *_given("b", 1, 2, 3), *_done("b", 1, 2, 3)], []),
        (
            [*_given("a", 1, 3), Note("declined", "a", 1), *_given("a", 1, 3, 2), *_done("a", 1, 2, 3)],
            [],
        ),
        (_given("a", 1, 2, 3) + _done("a", 1, 2), ["1 of 3 events were never done, such as [3]"]),
        (_given("a", 1, 2) + _done("a", 1, 2), ["1 of 3 events were never done"]),
        (_given("a", 2, 3, 1) + _done("a", 1, 2, 3), ["3 was given to a, and 1 was passed over"]),
        (
            [*_given("a", 1), Note("gone", "a"), *_given("b", 3, 1, 2), *_done("b", 1, 2, 3)],
            ["3 was given to b, and 1 was passed over"],
        ),
        (_given("a", 1, 2, 3, 4) + _done("a", 1, 2, 3), ["was given 4, which it does not want"]),
        (
            _given("a", 1, 2, 3) + _given("a", 7, account="acct_2") + _done("a", 1, 2, 3),
            ["was given an event of the account acct_2"],
        ),
    ],
)
def test_consumers_are_judged(notes: Sequence[Note], telling: Sequence[str]) -> None:
    _told(list(audit_deliveries.judged(notes, "acct_1", WANTED)), telling)


@pytest.mark.parametrize(
    ("taken", "state", "telling"),
    [
        ({"<msg_1@shop.example>": 2}, "sent", []),
        ({}, "sent", ["the message msg_1 was sent, but no letter of it arrived"]),
        ({"<msg_1@shop.example>": 1}, "due", ["the message msg_1 is due"]),
        ({}, "failed", ["the message msg_1 is failed"]),
        (
            {"<msg_1@shop.example>": 1, "<msg_2@shop.example>": 1},
            "sent",
            ["the letter msg_2 is of no message"],
        ),
    ],
)
def test_letters_are_compared_with_messages(taken: dict[str, int], state: str, telling: Sequence[str]) -> None:
    messages = [{"id": "msg_1", "state": state, "error": None}]
    _told(list(audit_deliveries.letters(Counter(taken), messages)), telling)


def _told(found: Sequence[str], telling: Sequence[str]) -> None:
    assert len(found) == len(telling), found
    for finding, part in zip(found, telling, strict=True):
        assert part in finding
