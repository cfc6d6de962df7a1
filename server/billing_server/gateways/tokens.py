"""The payment methods of the built-in test gateway, by token (semantics section 11), and what they answer.

A token is written `pm_card_<name>`; `tok_<name>` means the same, and so does the end of the test card's number
where the specification gives one ("4242", "0341"). `visa_` may be left out, or put in, before `charge…`.
An appended fault makes the same payment method misbehave, for demonstrations and forecasts:

    …_timeoutAfterEffect    charged, but the answer is lost: unknown; asked later, the gateway tells the truth
    …_timeoutBeforeEffect   the first request for a key is lost: unknown, later not found; the second arrives
    …_slow                  the answer comes some seconds late
    …_duplicate             the request arrives twice, money moves once
    …_failFirst1 to 9       the first so many attempts of an invoice are declined, the later ones are not
    pm_gateway_down         unknown, whenever and however often it is asked

Amounts never matter.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from billing_server.domain.commands import ChargeOutcome
from billing_server.domain.customer import Card, PaymentMethodType
from billing_server.domain.payment import PaymentError
from billing_server.gateways.faults import Fault
from billing_server.gateways.port import ChargeRequest

_EXPIRES: Final = (12, 2060)

DECLINES: Final[dict[str, tuple[str, str]]] = {
    "generic_decline": ("card_declined", "the card was declined; the bank gave no reason"),
    "insufficient_funds": ("card_declined", "there is not enough money in the account"),
    "do_not_honor": ("card_declined", "the bank declined the charge; the customer can ask it why"),
    "issuer_not_available": ("card_declined", "the bank could not be reached"),
    "try_again_later": ("card_declined", "the bank could not decide; a later attempt may succeed"),
    "card_velocity_exceeded": ("card_declined", "the card has been used too often or for too much lately"),
    "reenter_transaction": ("card_declined", "the bank could not process the charge; a new attempt may succeed"),
    "expired_card": ("expired_card", "the card has expired"),
    "incorrect_cvc": ("incorrect_cvc", "the security code of the card is wrong"),
    "processing_error": ("processing_error", "an error occurred while the charge was processed"),
    "incorrect_number": ("incorrect_number", "the number of the card is wrong"),
    "lost_card": ("card_declined", "the card was declined: it is reported lost"),
    "stolen_card": ("card_declined", "the card was declined: it is reported stolen"),
    "pickup_card": ("card_declined", "the card was declined: the bank wants it back"),
    "revocation_of_authorization": ("card_declined", "the customer has revoked this authorization"),
    "revocation_of_all_authorizations": ("card_declined", "the customer has revoked all authorizations"),
    "highest_risk_level": ("card_declined", "the charge was blocked: its risk is too high"),
    "transaction_not_allowed": ("card_declined", "the card does not allow charges of this kind"),
}
"""Decline code: the error code and the message that go with it."""

AUTHENTICATION_REQUIRED: Final = PaymentError(
    code="authentication_required",
    decline_code="authentication_required",
    message="the bank wants the customer to authenticate the payment, and the customer is absent",
)


class SimulatedMethod(msgspec.Struct, frozen=True, kw_only=True):
    """One payment method of the test gateway."""

    name: str
    type: PaymentMethodType = "card"
    brand: str = "visa"
    last4: str = "4242"
    decline_code: str | None = None
    authentication: bool = False
    refunds_fail: bool = False

    @property
    def card(self) -> Card | None:
        """What may be shown of it."""
        if self.type != "card":
            return None
        month, year = _EXPIRES
        fingerprint = f"test_{self.brand}_{self.last4}"
        return Card(brand=self.brand, last4=self.last4, exp_month=month, exp_year=year, fingerprint=fingerprint)


class Behavior(msgspec.Struct, frozen=True, kw_only=True):
    """What a token makes the gateway do."""

    method: SimulatedMethod
    fault: Fault | None = None
    fail_first: int = 0


def _declining(name: str, decline_code: str, last4: str = "0002") -> SimulatedMethod:
    return SimulatedMethod(name=name, decline_code=decline_code, last4=last4)


METHODS: Final = (
    SimulatedMethod(name="pm_card_visa"),
    SimulatedMethod(name="pm_card_mastercard", brand="mastercard", last4="4444"),
    _declining("pm_card_chargeCustomerFail", "generic_decline", "0341"),
    _declining("pm_card_visa_chargeCustomerFailLostCard", "lost_card", "0341"),
    _declining("pm_card_visa_chargeCustomerFailStolenCard", "stolen_card", "0341"),
    _declining("pm_card_visa_chargeDeclined", "generic_decline", "0002"),
    _declining("pm_card_visa_chargeDeclinedInsufficientFunds", "insufficient_funds", "9995"),
    _declining("pm_card_visa_chargeDeclinedLostCard", "lost_card", "9987"),
    _declining("pm_card_visa_chargeDeclinedStolenCard", "stolen_card", "9979"),
    _declining("pm_card_chargeDeclinedExpiredCard", "expired_card", "0069"),
    _declining("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", "0127"),
    _declining("pm_card_chargeDeclinedProcessingError", "processing_error", "0119"),
    _declining("pm_card_visa_chargeDeclinedVelocityLimitExceeded", "card_velocity_exceeded", "6975"),
    _declining("pm_card_radarBlock", "highest_risk_level", "0019"),
    SimulatedMethod(name="pm_card_authenticationRequired", authentication=True, last4="3184"),
    SimulatedMethod(name="pm_card_refundFail", refunds_fail=True, last4="5126"),
    _declining("pm_card_chargeDeclinedDoNotHonor", "do_not_honor"),
    _declining("pm_card_chargeDeclinedIssuerNotAvailable", "issuer_not_available"),
    _declining("pm_card_chargeDeclinedTryAgainLater", "try_again_later"),
    _declining("pm_card_chargeDeclinedReenterTransaction", "reenter_transaction"),
    _declining("pm_card_chargeDeclinedIncorrectNumber", "incorrect_number"),
    _declining("pm_card_chargeDeclinedPickupCard", "pickup_card"),
    _declining("pm_card_chargeDeclinedRevocationOfAuthorization", "revocation_of_authorization"),
    _declining("pm_card_chargeDeclinedRevocationOfAllAuthorizations", "revocation_of_all_authorizations"),
    _declining("pm_card_chargeDeclinedTransactionNotAllowed", "transaction_not_allowed"),
    SimulatedMethod(name="pm_usBankAccount_success", type="us_bank_account"),
    SimulatedMethod(
        name="pm_usBankAccount_insufficientFunds",
        type="us_bank_account",
        decline_code="insufficient_funds",
    ),
    SimulatedMethod(name="pm_sepaDebit_success", type="sepa_debit"),
    SimulatedMethod(name="pm_sepaDebit_insufficientFunds", type="sepa_debit", decline_code="insufficient_funds"),
    SimulatedMethod(name="pm_customerBalance", type="customer_balance", decline_code="transaction_not_allowed"),
)
"""All payment methods. Those down to `authenticationRequired` are semantics section 11's; the others add the soft
and hard declines that it names without a card, a charge that cannot be refunded, and bank debits."""

SHORT_FORMS: Final = {
    "4242": "pm_card_visa",
    "4444": "pm_card_mastercard",
    "0341": "pm_card_chargeCustomerFail",
    "0002": "pm_card_visa_chargeDeclined",
    "9995": "pm_card_visa_chargeDeclinedInsufficientFunds",
    "9987": "pm_card_visa_chargeDeclinedLostCard",
    "9979": "pm_card_visa_chargeDeclinedStolenCard",
    "0069": "pm_card_chargeDeclinedExpiredCard",
    "0127": "pm_card_chargeDeclinedIncorrectCvc",
    "0119": "pm_card_chargeDeclinedProcessingError",
    "6975": "pm_card_visa_chargeDeclinedVelocityLimitExceeded",
    "3184": "pm_card_authenticationRequired",
    "3155": "pm_card_authenticationRequired",
    "0019": "pm_card_radarBlock",
}
"""The last four digits of test card numbers, and the tokens that they stand for."""

GATEWAY_DOWN: Final = "pm_gateway_down"
SUFFIXES: Final[dict[str, Fault]] = {
    "timeoutAfterEffect": "timeout_after_effect",
    "timeoutBeforeEffect": "timeout_before_effect",
    "slow": "slow",
    "duplicate": "duplicate",
}
_FAIL_FIRST: Final = re.compile(r"failFirst([1-9])")


def _spelling(token: str) -> str:
    """The token without what may be written in more than one way."""
    token = SHORT_FORMS.get(token, token)
    if token.startswith("tok_"):
        token = "pm_card_" + token.removeprefix("tok_")
    return token.replace("pm_card_visa_charge", "pm_card_charge", 1)


_BY_SPELLING: Final = {_spelling(method.name): method for method in METHODS}


def parse(token: str) -> Behavior | None:
    """What a token makes the gateway do; None for one that means nothing to it."""
    if token == GATEWAY_DOWN:
        return Behavior(method=METHODS[0], fault="down")
    if method := _BY_SPELLING.get(_spelling(token)):
        return Behavior(method=method)
    base, _, suffix = token.rpartition("_")
    method = _BY_SPELLING.get(_spelling(base))
    if method is None:
        return None
    if counted := _FAIL_FIRST.fullmatch(suffix):
        return Behavior(method=method, fail_first=int(counted[1]))
    fault = SUFFIXES.get(suffix)
    return None if fault is None else Behavior(method=method, fault=fault)


def decide(request: ChargeRequest) -> ChargeOutcome:
    """What becomes of a charge. Pure: forecasts ask it as the gateway does."""
    behavior = parse(request.token)
    if behavior is None:
        return _unknown_token(request.token)
    if behavior.fault == "down":
        return ChargeOutcome(state="unknown")
    method = behavior.method
    if request.attempt <= behavior.fail_first:
        return declined("generic_decline")
    if method.decline_code is not None:
        return declined(method.decline_code)
    if method.authentication and not request.authenticated:
        error = AUTHENTICATION_REQUIRED if request.off_session else None
        return ChargeOutcome(state="requires_action", error=error)
    return ChargeOutcome(state="succeeded", gateway_reference="ch_" + request.key)


def declined(decline_code: str) -> ChargeOutcome:
    """The outcome of a charge that was declined for one of the reasons in `DECLINES`."""
    code, message = DECLINES[decline_code]
    error = PaymentError(code=code, decline_code=decline_code, message=message)
    return ChargeOutcome(state="failed", error=error)


def _unknown_token(token: str) -> ChargeOutcome:
    message = f"the test gateway knows no payment method '{token}'"
    error = PaymentError(type="invalid_request_error", code="processing_error", message=message)
    return ChargeOutcome(state="failed", error=error)
