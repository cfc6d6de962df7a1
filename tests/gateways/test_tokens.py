"""The payment methods of semantics section 11, as a table: token, then what a charge of it becomes."""

from __future__ import annotations

import pytest

from billing_server.domain.commands import ChargeOutcome
from billing_server.domain.dunning import HARD_DECLINE_CODES, is_hard_decline
from billing_server.gateways.remote import _CODES
from billing_server.gateways.tokens import DECLINES, METHODS, SHORT_FORMS, SUFFIXES, decide, parse
from tests.gateways.samples import charge_request

# token | state | code | decline code | hard
OUTCOMES = """
pm_card_visa                                        succeeded -                -                       -
pm_card_mastercard                                  succeeded -                -                       -
tok_visa                                            succeeded -                -                       -
4242                                                succeeded -                -                       -
pm_card_refundFail                                  succeeded -                -                       -
pm_usBankAccount_success                            succeeded -                -                       -
pm_sepaDebit_success                                succeeded -                -                       -
pm_card_chargeCustomerFail                          failed    card_declined    generic_decline         soft
tok_chargeCustomerFail                              failed    card_declined    generic_decline         soft
0341                                                failed    card_declined    generic_decline         soft
tok_visa_chargeCustomerFailLostCard                 failed    card_declined    lost_card               hard
tok_visa_chargeCustomerFailStolenCard               failed    card_declined    stolen_card             hard
pm_card_visa_chargeDeclined                         failed    card_declined    generic_decline         soft
pm_card_chargeDeclined                              failed    card_declined    generic_decline         soft
0002                                                failed    card_declined    generic_decline         soft
pm_card_visa_chargeDeclinedInsufficientFunds        failed    card_declined    insufficient_funds      soft
9995                                                failed    card_declined    insufficient_funds      soft
pm_card_visa_chargeDeclinedLostCard                 failed    card_declined    lost_card               hard
9987                                                failed    card_declined    lost_card               hard
pm_card_visa_chargeDeclinedStolenCard               failed    card_declined    stolen_card             hard
9979                                                failed    card_declined    stolen_card             hard
pm_card_chargeDeclinedExpiredCard                   failed    expired_card     expired_card            soft
pm_card_visa_chargeDeclinedExpiredCard              failed    expired_card     expired_card            soft
0069                                                failed    expired_card     expired_card            soft
pm_card_chargeDeclinedIncorrectCvc                  failed    incorrect_cvc    incorrect_cvc           soft
0127                                                failed    incorrect_cvc    incorrect_cvc           soft
pm_card_chargeDeclinedProcessingError               failed    processing_error processing_error        soft
0119                                                failed    processing_error processing_error        soft
pm_card_visa_chargeDeclinedVelocityLimitExceeded    failed    card_declined    card_velocity_exceeded  soft
6975                                                failed    card_declined    card_velocity_exceeded  soft
pm_card_radarBlock                                  failed    card_declined    highest_risk_level      hard
0019                                                failed    card_declined    highest_risk_level      hard
pm_card_chargeDeclinedDoNotHonor                    failed    card_declined    do_not_honor            soft
pm_card_chargeDeclinedIssuerNotAvailable            failed    card_declined    issuer_not_available    soft
pm_card_chargeDeclinedTryAgainLater                 failed    card_declined    try_again_later         soft
pm_card_chargeDeclinedReenterTransaction            failed    card_declined    reenter_transaction     soft
pm_card_chargeDeclinedIncorrectNumber               failed    incorrect_number incorrect_number        hard
pm_card_chargeDeclinedPickupCard                    failed    card_declined    pickup_card             hard
pm_card_chargeDeclinedTransactionNotAllowed         failed    card_declined    transaction_not_allowed hard
pm_card_chargeDeclinedRevocationOfAuthorization     failed    card_declined    revocation_of_authorization hard
pm_card_chargeDeclinedRevocationOfAllAuthorizations failed    card_declined    revocation_of_all_authorizations hard
pm_usBankAccount_insufficientFunds                  failed    card_declined    insufficient_funds      soft
pm_sepaDebit_insufficientFunds                      failed    card_declined    insufficient_funds      soft
pm_customerBalance                                  failed    card_declined    transaction_not_allowed hard
pm_card_authenticationRequired                      requires_action authentication_required authentication_required hard
3184                                                requires_action authentication_required authentication_required hard
3155                                                requires_action authentication_required authentication_required hard
pm_gateway_down                                     unknown   -                -                       -
pm_card_visa_timeoutAfterEffect                     succeeded -                -                       -
pm_card_visa_timeoutBeforeEffect                    succeeded -                -                       -
pm_card_visa_chargeDeclinedInsufficientFunds_slow   failed    card_declined    insufficient_funds      soft
4242_duplicate                                      succeeded -                -                       -
pm_card_visa_failFirst2                             failed    card_declined    generic_decline         soft
pm_nobody                                           failed    processing_error -                       soft
"""
ROWS = [line.split() for line in OUTCOMES.strip().splitlines()]


def _told(outcome: ChargeOutcome) -> list[str]:
    error = outcome.error
    if error is None:
        return [outcome.state, "-", "-", "-"]
    hard = "hard" if is_hard_decline(error.decline_code or error.code) else "soft"
    return [outcome.state, error.code, error.decline_code or "-", hard]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_token_decides_what_a_charge_becomes(row: list[str]) -> None:
    token, *expected = row
    assert _told(decide(charge_request("acct_1", token=token))) == expected


def test_the_table_has_every_method_and_every_short_form() -> None:
    spellings = {row[0] for row in ROWS}
    tested = {behavior.method.name for token in spellings if (behavior := parse(token))}
    assert tested == {method.name for method in METHODS}
    assert SHORT_FORMS.keys() - spellings == {"4444"}


def test_every_hard_decline_can_be_had() -> None:
    declined = {method.decline_code for method in METHODS if method.decline_code}
    assert declined == DECLINES.keys()
    assert {code for code in declined if is_hard_decline(code)} == HARD_DECLINE_CODES - {"authentication_required"}


def test_declines_use_the_codes_of_the_contract() -> None:
    assert {code for code, _ in DECLINES.values()} < _CODES


def test_amounts_never_matter() -> None:
    for amount in (1, 2, 4242, 9_223_372_036_854_775_807):
        assert decide(charge_request("acct_1", amount=amount)).state == "succeeded"


def test_authentication_is_wanted_once_and_never_without_the_customer() -> None:
    token = "pm_card_authenticationRequired"
    present = decide(charge_request("acct_1", token=token, off_session=False))
    assert (present.state, present.error) == ("requires_action", None)
    absent = decide(charge_request("acct_1", token=token, off_session=True))
    assert absent.state == "requires_action"
    assert absent.error is not None
    assert is_hard_decline(absent.error.decline_code)
    for off_session in (True, False):
        passed = charge_request("acct_1", token=token, off_session=off_session, authenticated=True)
        assert decide(passed).state == "succeeded"


def test_the_first_attempts_of_an_invoice_fail() -> None:
    states = [
        decide(charge_request("acct_1", token="pm_card_visa_failFirst2", attempt=attempt)).state
        for attempt in (1, 2, 3, 4)
    ]
    assert states == ["failed", "failed", "succeeded", "succeeded"]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "pm_card",
        "pm_card_visa_",
        "_slow",
        "pm_card_visa_failFirst0",
        "pm_card_visa_failFirst10",
        "pm_card_visa_slow_slow",
        "pm_gateway_down_slow",
        "PM_CARD_VISA",
        "pm_card_visa ",
        "1234",
    ],
)
def test_what_is_no_token(token: str) -> None:
    assert parse(token) is None


def test_every_method_takes_every_fault() -> None:
    for method in METHODS:
        for suffix, fault in SUFFIXES.items():
            behavior = parse(f"{method.name}_{suffix}")
            assert behavior is not None
            assert (behavior.method, behavior.fault) == (method, fault)
