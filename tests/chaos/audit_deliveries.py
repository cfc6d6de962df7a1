"""The audit of what was told to others: webhooks, durable consumers and e-mail, each against the log or the rows.

Receivers, consumers and the post office are the witnesses; the log as it was read in peace says what they must have
been told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from google.protobuf import json_format

from billing.v1.event_model_pb2 import Event
from billing_server.domain.webhook import delivery_id, wants
from tests.chaos.audit import Row
from tests.chaos.consumers import DurableConsumer, Note
from tests.chaos.receivers import Receiver
from tests.delivery.referee import Referee

_SHOWN_MAX: Final = 3


# --- webhooks


def webhooks(receiver: Receiver, account: str, log: Sequence[Event], quiet: frozenset[int]) -> Iterator[str]:
    """An endpoint got every event that it wants since it was made, word for word, and nothing else (promise 21).

    `quiet` are the positions of events that are for readers of the log alone.
    """
    who = f"the receiver {receiver.name}"
    yield from (f"{who}: {fault}" for fault in receiver.faults)
    made_at = next((e.position for e in log if e.object_id == receiver.endpoint), None)
    if made_at is None:
        yield f"{who}: no event tells of its endpoint"
        return
    wanted = {
        delivery_id(receiver.endpoint, event.position): event
        for event in log
        if event.position > made_at and event.position not in quiet and wants(receiver.event_types, event.type)
    }
    missing = [event for identity, event in wanted.items() if identity not in receiver.taken]
    if missing:
        some = ", ".join(f"{event.position} ({event.type})" for event in missing[:_SHOWN_MAX])
        yield f"{who} never got {len(missing)} of {len(wanted)} events, such as {some}"
    for identity, body in receiver.taken.items():
        yield from (f"{who}: {identity} {fault}" for fault in _told(body, account, wanted.get(identity)))


def _told(body: bytes, account: str, event: Event | None) -> Iterator[str]:
    told = json_format.Parse(body, Event())
    if told.account != account:
        yield f"tells of the account {told.account}"
    elif event is None:
        yield f"tells of {told.position} ({told.type}), which it does not want"
    elif told != event:
        there, here = (json_format.MessageToDict(one) for one in (event, told))
        fields = [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
        yield f"tells {told.position} in other words than the log: {', '.join(fields)}"


# --- durable consumers


def consumed(consumer: DurableConsumer, account: str, log: Sequence[Event]) -> Iterator[str]:
    """Every event that a consumer wants was done, and each customer's events were given in their order."""
    wanted = {e.position: e.customer or e.object_id for e in log if wants(consumer.types, e.type)}
    yield from (f"the consumer {consumer.name}: {fault}" for fault in judged(consumer.notes, account, wanted))


def judged(notes: Sequence[Note], account: str, wanted: Mapping[int, str]) -> Iterator[str]:
    """What is off in what happened to a consumer's members, if it wants these positions, of these customers.

    A lease may end while a frozen server still believes in it, so an event may be with two members for a moment; none
    may be given past an earlier one that is not done.
    """
    referee = Referee(wanted, held_seconds=0)
    for note in notes:
        if note.kind == "gone":
            referee.gone(note.member)
        elif note.kind == "given" and note.account != account:
            yield f"was given an event of the account {note.account}"
        elif note.position not in wanted:
            yield f"was given {note.position}, which it does not want"
        elif note.kind == "given":
            referee.delivered(note.member, note.position)
        elif note.kind == "declined":
            referee.give_back(note.member, note.position)
        else:
            referee.acknowledge(note.member, note.position)
    missing = sorted(wanted.keys() - referee.acknowledged)
    if missing:
        yield f"{len(missing)} of {len(wanted)} events were never done, such as {missing[:_SHOWN_MAX]}"
    for broken in referee.violations[:_SHOWN_MAX]:
        yield f"{broken.position} was given to {broken.connection}, and {broken.earlier} {broken.problem}"


# --- e-mail


def letters(taken: Counter[str], messages: Sequence[Row]) -> Iterator[str]:
    """Every message was sent, and the post office has a letter of it; there are no letters of anything else."""
    arrived = {identity.strip("<>").partition("@")[0] for identity in taken}
    for message in messages:
        if message["state"] != "sent":
            yield f"the message {message['id']} is {message['state']}: {message['error']}"
        elif message["id"] not in arrived:
            yield f"the message {message['id']} was sent, but no letter of it arrived"
    for identity in arrived - {message["id"] for message in messages}:
        yield f"the letter {identity} is of no message"
