"""What the engine asks of a payment gateway, whichever it is.

A gateway answers what it knows about money. A decline is an answer, never an exception; a timeout, a broken
connection or a failing server is the answer `unknown` (promise 2). Whatever else is raised is a bug, and the
engine takes it for `unknown`, too.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from billing_server.domain.commands import ChargeOutcome, RefundOutcome
from billing_server.domain.customer import Card, PaymentMethodType
from billing_server.domain.payment import RefundReason


class ChargeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A charge to be made once for its key. Sent again, it must be equal in every field.

    `key` is the id of the payment attempt and `attempt` its number on the invoice, from 1; `amount` is in minor
    units of `currency`, above zero. `off_session` tells that the customer is absent, `authenticated` that the
    customer has passed the check that an earlier charge of the invoice asked for. `metadata` must be something
    that cannot change while the outcome is unknown.
    """

    account_id: str
    key: str
    customer: str
    invoice: str
    attempt: int
    amount: int
    currency: str
    token: str
    off_session: bool
    authenticated: bool = False
    statement_descriptor: str | None = None
    metadata: dict[str, str] = {}


class RefundRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A refund to be made once for its key, the refund's id. Sent again, it must be equal in every field.

    The charge is named by the key that it was made with, and by what the gateway calls it. `amount` is in minor
    units of `currency`, above zero and at most what is left of the charge.
    """

    account_id: str
    key: str
    charge_key: str
    charge_reference: str | None
    amount: int
    currency: str
    reason: RefundReason
    metadata: dict[str, str] = {}


class PaymentGateway(Protocol):
    """Moves money, at most once for a key. All methods may be called many at a time."""

    async def charge(self, request: ChargeRequest) -> ChargeOutcome:
        """Charge once for the request's key. Never answers `not_found`."""

    async def get_charge(self, account_id: str, key: str) -> ChargeOutcome:
        """Tell what became of a charge: `not_found` when it never arrived, and so will not be made."""

    async def refund(self, request: RefundRequest) -> RefundOutcome:
        """Give money back once for the request's key. Never answers `not_found`."""

    async def get_refund(self, account_id: str, key: str) -> RefundOutcome:
        """Tell what became of a refund: `not_found` when it never arrived, and so will not be made."""

    def describe(self, token: str, method_type: PaymentMethodType) -> Card | None:
        """What may be shown of the card behind a token; None where there is no card, or nothing is known.

        Raises InvalidArgument, field `token`, when the gateway cannot know such a token of this type.
        """

    async def close(self) -> None:
        """Let calls under way end, and give up connections."""
