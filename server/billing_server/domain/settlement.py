"""Outcomes of the gateway come back into the book (promises 1 to 5).

A proposal is a command that is carried out only if its charge succeeds. It is decided anew then; should it no
longer be possible, or cost another amount, the money goes back.
"""

from __future__ import annotations

import msgspec

from billing_server.domain import change, collection, credit_notes, signup
from billing_server.domain.commands import (
    Command,
    CreateSubscription,
    SettleAttempt,
    SettleRefund,
    UpdateSubscription,
)
from billing_server.domain.errors import DomainError
from billing_server.domain.payment import UNRESOLVED, PaymentAttempt, Refund
from billing_server.domain.subscription import Subscription
from billing_server.domain.turn import Turn

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(CreateSubscription | UpdateSubscription)


def encode_proposal(command: Command) -> bytes:
    """A command as it is kept beside its attempt."""
    return _ENCODER.encode(command)


def settle_attempt(turn: Turn, command: SettleAttempt) -> msgspec.Struct | None:
    """Take the outcome of a charge. The result is the attempt, or what its proposal has made."""
    attempt = turn.attempts.get(command.attempt)
    if attempt is None or attempt.state not in UNRESOLVED:
        return attempt
    if attempt.proposal is not None and command.outcome.state == "succeeded":
        return _carry_out(turn, attempt, command)
    collection.settle(turn, attempt, command.outcome)
    return turn.attempts[attempt.id]


def settle_refund(turn: Turn, command: SettleRefund) -> Refund | None:
    """Take the outcome of a refund."""
    refund = turn.refunds.get(command.refund)
    if refund is not None:
        credit_notes.settle_refund(turn, refund, command.outcome)
        refund = turn.refunds[refund.id]
    return refund


def _carry_out(turn: Turn, attempt: PaymentAttempt, command: SettleAttempt) -> msgspec.Struct:
    """Decide the proposal on a trial run first; take it over if its charge is the one that was made."""
    proposal = _DECODER.decode(attempt.proposal or b"")
    trial = Turn(
        turn.book,
        now=attempt.due_at,
        wall_now=turn.wall_now,
        pages=turn.pages,
        new_id=turn.new_id,
        cause=turn.cause,
    )
    try:
        subscription = _decide(trial, proposal)
    except DomainError:
        return _refuse(turn, attempt, command)
    if len(trial.charges) != 1 or trial.charges[0].amount != attempt.amount:
        return _refuse(turn, attempt, command)
    planned = trial.charges[0]
    turn.take_over(trial)
    turn.remove(planned)
    turn.charges.clear()
    attempt = turn.put(
        msgspec.structs.replace(
            attempt,
            invoice=planned.invoice,
            subscription=planned.subscription,
            number=planned.number,
            proposal=None,
        )
    )
    collection.settle(turn, attempt, command.outcome)
    return turn.subscriptions[subscription.id]


def _decide(turn: Turn, proposal: CreateSubscription | UpdateSubscription) -> Subscription:
    if isinstance(proposal, CreateSubscription):
        return signup.create_subscription(turn, proposal)
    return change.update_subscription(turn, proposal)


def _refuse(turn: Turn, attempt: PaymentAttempt, command: SettleAttempt) -> PaymentAttempt:
    """The charge succeeded for something that cannot be any more: the money goes back."""
    attempt = turn.alter(
        attempt,
        state="succeeded",
        check_at=None,
        settled_at=turn.now,
        gateway_reference=command.outcome.gateway_reference,
    )
    collection.give_back(turn, attempt)
    return turn.attempts[attempt.id]
