"""Every check of the audit, against planted faults; and what looks odd, but is none."""

from __future__ import annotations

import pytest

from billing.v1 import payment_model_pb2 as pay
from billing.v1 import test_clock_model_pb2 as clocks
from billing.v1.invoice_model_pb2 import BillingReason, Invoice, InvoiceLine, InvoiceStatus, LineType
from billing_client.audit import inspection  # noqa: F401  (importing it registers all checks)
from billing_client.audit.check import CHECKS, findings_of
from tests.client.audit_books import CHARGED, START, at, book, shared
from tests.client.audit_faults import FAULTS, Fault, attempt, invoice


def test_a_book_that_adds_up_passes_all_checks() -> None:
    assert list(findings_of(book(), shared())) == []


@pytest.mark.parametrize(("check", "object_id", "plant"), FAULTS, ids=[plant.__name__ for _, _, plant in FAULTS])
def test_a_planted_fault_is_found(check: str, object_id: str, plant: Fault) -> None:
    found, there = book(), shared()
    plant(found, there)
    assert (check, object_id) in {(finding.check, finding.object_id) for finding in findings_of(found, there)}


def test_every_check_has_a_planted_fault() -> None:
    assert {check for check, _, _ in FAULTS} == set(CHECKS)


def test_a_price_may_have_the_currency_as_an_option() -> None:
    there = shared()
    there.prices["price_1"].currency = "eur"
    there.prices["price_1"].currency_options.add(currency="usd", unit_amount="1000")
    assert list(findings_of(book(), there)) == []


def test_a_clock_on_the_move_says_nothing_about_periods() -> None:
    found, there = book(), shared()
    there.clocks["clock_1"].status = clocks.TEST_CLOCK_STATUS_ADVANCING
    there.clocks["clock_1"].frozen_time.seconds = START + 10 * 365 * 86_400
    assert list(findings_of(found, there)) == []


def test_changes_of_the_balance_may_bear_moments_out_of_order() -> None:
    """After an outage time catches up, at moments before those of commands that were faster."""
    found = book()
    found.balance_transactions.insert(1, found.balance_transactions.pop())
    assert list(findings_of(found, shared())) == []


def test_in_real_time_a_renewal_may_lag_a_little() -> None:
    found, there = book(), shared()
    found.customer.test_clock = ""
    for subscription in found.subscriptions:
        subscription.test_clock = ""
    for member in found.invoices:
        member.test_clock = ""
    there.now = found.subscriptions[0].current_period_end.seconds + 60
    assert list(findings_of(found, there)) == []
    there.now += 3600
    assert {finding.check for finding in findings_of(found, there)} == {"subscription_period"}


def test_a_trial_whose_end_moved_is_no_gap() -> None:
    found = book()
    first = invoice(found, "in_10")
    first.lines[0].amount = first.subtotal = first.total = first.amount_due = first.amount_paid = 0
    first.lines[0].period_end.seconds += 5 * 86_400
    first.ClearField("payment_intent")
    first.attempt_count = 0
    found.attempts.remove(attempt(found, "pa_in_10"))
    assert list(findings_of(found, shared())) == []


def test_a_change_that_was_dropped_breaks_no_row() -> None:
    found = book()
    dropped = Invoice(
        id="in_15",
        created=at(START + 40 * 86_400),
        customer="cus_1",
        currency="usd",
        status=InvoiceStatus.INVOICE_STATUS_VOID,
        billing_reason=BillingReason.BILLING_REASON_SUBSCRIPTION_UPDATE,
        collection_method=CHARGED,
        subscription="sub_1",
        voided_at=at(START + 41 * 86_400),
        test_clock="clock_1",
        lines=[
            InvoiceLine(
                type=LineType.LINE_TYPE_SUBSCRIPTION_ITEM,
                subscription_item="si_1",
                period_start=at(START + 40 * 86_400),
                period_end=at(START + 70 * 86_400),
            )
        ],
    )
    found.invoices.append(dropped)
    found.invoices.sort(key=lambda item: (item.created.seconds, item.id))
    assert list(findings_of(found, shared())) == []


def test_numbers_left_out_on_request_are_no_fault() -> None:
    found = book()
    invoice(found, "in_40").number = "ABC-0012"
    found.customer.next_invoice_sequence = 13
    found.sequence_jumps = [(8, 12)]
    assert list(findings_of(found, shared())) == []


def test_a_refund_on_request_leaves_the_invoice_paid() -> None:
    found = book()
    again = pay.Refund()
    again.CopyFrom(found.refunds[0])
    again.id, again.invoice, again.attempt, again.amount = "re_2", "in_10", "pa_in_10", 1000
    again.reason = pay.REFUND_REASON_REQUESTED_BY_CUSTOMER
    attempt(found, "pa_in_10").amount_refunded = 1000
    found.refunds.append(again)
    assert list(findings_of(found, shared())) == []
