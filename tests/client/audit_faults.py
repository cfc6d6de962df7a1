"""Faults planted into a book that adds up, each with the check that must find it and the object that it names."""

from __future__ import annotations

from collections.abc import Callable

from billing.v1 import payment_model_pb2 as pay
from billing.v1.catalog_model_pb2 import Interval
from billing.v1.invoice_model_pb2 import Invoice, InvoiceLine, InvoiceStatus, LineType
from billing.v1.subscription_model_pb2 import SubscriptionStatus
from billing_client.audit.book import Book, Shared
from tests.client.audit_books import START

Fault = Callable[[Book, Shared], None]
FAULTS: list[tuple[str, str, Fault]] = []


def fault(check: str, object_id: str) -> Callable[[Fault], Fault]:
    """A fault that the check of this name must find at this object."""

    def register(plant: Fault) -> Fault:
        FAULTS.append((check, object_id, plant))
        return plant

    return register


def invoice(found: Book, name: str) -> Invoice:
    return next(item for item in found.invoices if item.id == name)


def attempt(found: Book, name: str) -> pay.PaymentAttempt:
    return next(item for item in found.attempts if item.id == name)


# --- invoices


@fault("invoice_lines", "in_10")
def a_line_too_much(found: Book, there: Shared) -> None:
    invoice(found, "in_10").lines.add(amount=1)


@fault("invoice_lines", "in_10")
def a_total_of_its_own(found: Book, there: Shared) -> None:
    invoice(found, "in_10").total += 1


@fault("invoice_amount_due", "in_20")
def a_balance_that_was_not_applied(found: Book, there: Shared) -> None:
    invoice(found, "in_20").amount_due += 500


@fault("invoice_amount_due", "in_10")
def less_than_the_smallest_charge(found: Book, there: Shared) -> None:
    target = invoice(found, "in_10")
    target.total = target.subtotal = target.amount_due = 30


@fault("invoice_amount_due", "in_10")
def a_balance_left_over(found: Book, there: Shared) -> None:
    invoice(found, "in_10").ending_balance = 5


@fault("invoice_remaining", "in_10")
def a_cent_paid_too_much(found: Book, there: Shared) -> None:
    invoice(found, "in_10").amount_paid += 1


@fault("invoice_remaining", "in_10")
def paid_with_a_remainder(found: Book, there: Shared) -> None:
    target = invoice(found, "in_10")
    target.amount_paid -= 10
    target.amount_remaining += 10


@fault("invoice_credit_notes", "in_20")
def a_credit_note_forgotten(found: Book, there: Shared) -> None:
    found.credit_notes.clear()


@fault("invoice_credit_notes", "cn_1")
def a_credit_note_of_other_parts(found: Book, there: Shared) -> None:
    found.credit_notes[0].amount += 1


@fault("invoice_status", "in_10")
def paid_without_a_time(found: Book, there: Shared) -> None:
    invoice(found, "in_10").ClearField("paid_at")


@fault("invoice_status", "in_40")
def open_and_paid(found: Book, there: Shared) -> None:
    invoice(found, "in_40").paid_at.seconds = START + 9 * 86_400


@fault("invoice_status", "in_10")
def finalized_without_a_number(found: Book, there: Shared) -> None:
    invoice(found, "in_10").number = ""


@fault("invoice_status", "in_10")
def paid_before_it_was_finalized(found: Book, there: Shared) -> None:
    invoice(found, "in_10").paid_at.seconds = START


@fault("invoice_status", "in_10")
def still_advancing(found: Book, there: Shared) -> None:
    invoice(found, "in_10").auto_advance = True


@fault("invoice_status", "in_40")
def a_retry_of_what_is_not_collected(found: Book, there: Shared) -> None:
    invoice(found, "in_40").next_payment_attempt.seconds = START + 30 * 86_400


@fault("invoice_status", "in_21")
def sent_without_a_due_date(found: Book, there: Shared) -> None:
    invoice(found, "in_21").ClearField("due_date")


@fault("invoice_status", "in_10")
def charged_with_a_due_date(found: Book, there: Shared) -> None:
    invoice(found, "in_10").due_date.seconds = START


@fault("invoice_numbers", "in_11")
def a_number_given_twice(found: Book, there: Shared) -> None:
    invoice(found, "in_11").number = invoice(found, "in_10").number


@fault("invoice_numbers", "cus_1")
def a_number_left_out(found: Book, there: Shared) -> None:
    invoice(found, "in_40").number = "ABC-0009"
    found.customer.next_invoice_sequence = 10


@fault("invoice_numbers", "cus_1")
def the_last_invoice_gone(found: Book, there: Shared) -> None:
    found.customer.next_invoice_sequence = 10


@fault("invoice_numbers", "cus_1")
def a_next_number_that_was_given(found: Book, there: Shared) -> None:
    found.customer.next_invoice_sequence = 8


# --- payments


@fault("payment_sum", "in_10")
def less_collected_than_paid(found: Book, there: Shared) -> None:
    attempt(found, "pa_in_10").amount -= 1


@fault("payment_sum", "in_20")
def collected_and_paid_by_check(found: Book, there: Shared) -> None:
    attempt(found, "pa_in_10").invoice = "in_20"


@fault("payment_once", "in_10")
def charged_twice(found: Book, there: Shared) -> None:
    again = pay.PaymentAttempt()
    again.CopyFrom(attempt(found, "pa_in_10"))
    again.id, again.number = "pa_again", 2
    found.attempts.append(again)


@fault("payment_once", "in_10")
def paid_by_nobody(found: Book, there: Shared) -> None:
    found.attempts.remove(attempt(found, "pa_in_10"))


@fault("payment_of_void_invoice", "pa_in_30")
def a_late_payment_that_was_kept(found: Book, there: Shared) -> None:
    found.refunds.clear()
    attempt(found, "pa_in_30").amount_refunded = 0


@fault("attempt_alone", "in_40")
def two_attempts_at_once(found: Book, there: Shared) -> None:
    for target in found.attempts[-2:]:
        target.state = pay.ATTEMPT_STATE_UNKNOWN
        target.ClearField("settled_at")


@fault("attempt_numbers", "in_40")
def an_attempt_lost(found: Book, there: Shared) -> None:
    attempt(found, "pa_in_40_2").number = 3


@fault("attempt_states", "pa_in_10")
def an_outcome_without_a_time(found: Book, there: Shared) -> None:
    attempt(found, "pa_in_10").ClearField("settled_at")


@fault("attempt_states", "pa_in_40")
def a_failure_without_a_reason(found: Book, there: Shared) -> None:
    attempt(found, "pa_in_40").ClearField("error")


@fault("attempt_states", "pa_in_10")
def a_success_with_an_error(found: Book, there: Shared) -> None:
    attempt(found, "pa_in_10").error.code = "card_declined"


@fault("attempt_states", "pa_in_40")
def an_attempt_about_nothing(found: Book, there: Shared) -> None:
    attempt(found, "pa_in_40").amount = 0


@fault("attempt_count", "in_40")
def a_retry_that_was_not_counted(found: Book, there: Shared) -> None:
    invoice(found, "in_40").attempt_count = 1


@fault("attempt_without_invoice", "pa_lost")
def money_for_nothing(found: Book, there: Shared) -> None:
    lost = pay.PaymentAttempt()
    lost.CopyFrom(attempt(found, "pa_in_10"))
    lost.id, lost.invoice = "pa_lost", ""
    found.attempts.append(lost)


@fault("refund_sums", "pa_in_30")
def a_refund_that_its_attempt_does_not_know(found: Book, there: Shared) -> None:
    found.refunds[0].amount = 400


@fault("refund_sums", "pa_in_10")
def more_given_back_than_collected(found: Book, there: Shared) -> None:
    again = pay.Refund()
    again.CopyFrom(found.refunds[0])
    again.id, again.invoice, again.attempt, again.amount = "re_2", "in_10", "pa_in_10", 1001
    again.reason = pay.REFUND_REASON_DUPLICATE
    attempt(found, "pa_in_10").amount_refunded = 1001
    found.refunds.append(again)


@fault("payment_intent", "pi_10")
def paid_but_still_asking(found: Book, there: Shared) -> None:
    invoice(found, "in_10").payment_intent.status = pay.PAYMENT_INTENT_STATUS_PROCESSING


@fault("payment_intent", "pi_30")
def void_but_still_asking(found: Book, there: Shared) -> None:
    invoice(found, "in_30").payment_intent.status = pay.PAYMENT_INTENT_STATUS_REQUIRES_ACTION


@fault("payment_intent", "pi_40")
def asking_for_another_amount(found: Book, there: Shared) -> None:
    invoice(found, "in_40").payment_intent.amount -= 1


@fault("payment_intent", "pi_40")
def given_up_too_early(found: Book, there: Shared) -> None:
    invoice(found, "in_40").payment_intent.status = pay.PAYMENT_INTENT_STATUS_CANCELED


@fault("payment_intent", "pi_40")
def of_another_invoice(found: Book, there: Shared) -> None:
    invoice(found, "in_40").payment_intent.invoice = "in_10"


@fault("payment_intent", "in_10")
def collected_without_an_intent(found: Book, there: Shared) -> None:
    invoice(found, "in_10").ClearField("payment_intent")


# --- balance


@fault("balance_chain", "cbtxn_1")
def a_change_lost(found: Book, there: Shared) -> None:
    del found.balance_transactions[0]


@fault("balance_chain", "cus_1")
def a_balance_of_its_own(found: Book, there: Shared) -> None:
    found.customer.balance += 1


@fault("balance_chain", "cbtxn_0")
def a_change_in_another_currency(found: Book, there: Shared) -> None:
    found.balance_transactions[0].currency = "eur"


@fault("balance_of_invoices", "in_20")
def a_balance_consumed_without_a_trace(found: Book, there: Shared) -> None:
    found.balance_transactions[2].invoice = "in_30"


@fault("balance_of_invoices", "in_30")
def a_balance_not_given_back(found: Book, there: Shared) -> None:
    del found.balance_transactions[-1]


# --- links


@fault("links_of_customer", "cus_1")
def a_clock_gone(found: Book, there: Shared) -> None:
    there.clocks.clear()


@fault("links_of_customer", "cus_1")
def no_customer_at_all(found: Book, there: Shared) -> None:
    found.customer.invoice_prefix = ""


@fault("links_of_customer", "cus_1")
def a_default_that_is_detached(found: Book, there: Shared) -> None:
    found.payment_methods["pm_1"].detached_at.seconds = START


@fault("links_of_subscriptions", "si_1")
def a_price_gone(found: Book, there: Shared) -> None:
    del there.prices["price_1"]


@fault("links_of_subscriptions", "si_1")
def a_price_in_another_currency(found: Book, there: Shared) -> None:
    there.prices["price_1"].currency = "eur"


@fault("links_of_subscriptions", "si_1")
def a_price_of_another_interval(found: Book, there: Shared) -> None:
    there.prices["price_1"].recurring.interval = Interval.INTERVAL_YEAR


@fault("links_of_subscriptions", "sub_1")
def a_latest_invoice_gone(found: Book, there: Shared) -> None:
    found.subscriptions[0].latest_invoice = "in_99"


@fault("links_of_subscriptions", "sub_1")
def a_subscription_of_nothing(found: Book, there: Shared) -> None:
    del found.subscriptions[0].items[:]


@fault("links_of_subscriptions", "sub_1")
def a_method_of_somebody_else(found: Book, there: Shared) -> None:
    found.subscriptions[0].default_payment_method = "pm_2"


@fault("links_of_invoices", "in_10")
def a_subscription_gone(found: Book, there: Shared) -> None:
    del found.subscriptions[0]


@fault("links_of_invoices", "in_40")
def an_item_that_is_elsewhere(found: Book, there: Shared) -> None:
    found.invoice_items[1].invoice = "in_30"


@fault("links_of_invoices", "in_10")
def an_invoice_in_another_currency(found: Book, there: Shared) -> None:
    invoice(found, "in_10").currency = "eur"


@fault("links_of_invoices", "in_10")
def an_invoice_in_another_time(found: Book, there: Shared) -> None:
    invoice(found, "in_10").test_clock = ""


@fault("links_of_payments", "pa_in_10")
def an_attempt_for_an_invoice_of_somebody_else(found: Book, there: Shared) -> None:
    attempt(found, "pa_in_10").invoice = "in_99"


@fault("links_of_payments", "re_1")
def a_refund_of_nothing(found: Book, there: Shared) -> None:
    found.refunds[0].attempt = "pa_99"


@fault("links_of_payments", "pa_in_10")
def an_attempt_in_another_currency(found: Book, there: Shared) -> None:
    attempt(found, "pa_in_10").currency = "eur"


@fault("links_of_invoice_items", "ii_41")
def an_item_billed_nowhere(found: Book, there: Shared) -> None:
    found.invoice_items[-1].invoice = "in_40"


@fault("links_of_invoice_items", "ii_40")
def an_item_billed_twice(found: Book, there: Shared) -> None:
    target = invoice(found, "in_40")
    target.lines.append(InvoiceLine(amount=700, type=LineType.LINE_TYPE_INVOICE_ITEM, invoice_item="ii_40"))


# --- subscriptions


@fault("subscription_times", "sub_1")
def ended_but_active(found: Book, there: Shared) -> None:
    found.subscriptions[0].ended_at.seconds = START


@fault("subscription_times", "sub_1")
def canceled_without_a_time(found: Book, there: Shared) -> None:
    found.subscriptions[0].status = SubscriptionStatus.SUBSCRIPTION_STATUS_CANCELED


@fault("subscription_times", "sub_1")
def incomplete_for_ever(found: Book, there: Shared) -> None:
    found.subscriptions[0].status = SubscriptionStatus.SUBSCRIPTION_STATUS_INCOMPLETE


@fault("subscription_times", "si_1")
def an_item_in_another_period(found: Book, there: Shared) -> None:
    found.subscriptions[0].items[0].current_period_end.seconds += 1


@fault("subscription_period", "sub_1")
def a_renewal_missed(found: Book, there: Shared) -> None:
    there.clocks["clock_1"].frozen_time.seconds = found.subscriptions[0].current_period_end.seconds


@fault("subscription_period", "sub_1")
def a_renewal_too_early(found: Book, there: Shared) -> None:
    there.clocks["clock_1"].frozen_time.seconds = found.subscriptions[0].current_period_start.seconds - 1


@fault("subscription_status", "sub_1")
def past_due_although_paid(found: Book, there: Shared) -> None:
    found.subscriptions[0].status = SubscriptionStatus.SUBSCRIPTION_STATUS_PAST_DUE


@fault("subscription_status", "sub_1")
def active_although_declined(found: Book, there: Shared) -> None:
    invoice(found, "in_12").status = InvoiceStatus.INVOICE_STATUS_OPEN


@fault("subscription_latest_invoice", "sub_1")
def an_older_invoice_as_latest(found: Book, there: Shared) -> None:
    found.subscriptions[0].latest_invoice = "in_11"


@fault("periods_tile", "in_12")
def a_month_not_billed(found: Book, there: Shared) -> None:
    found.invoices.remove(invoice(found, "in_11"))


@fault("periods_tile", "in_12")
def a_month_billed_twice(found: Book, there: Shared) -> None:
    line = invoice(found, "in_12").lines[0]
    before = invoice(found, "in_11").lines[0]
    line.period_start.CopyFrom(before.period_start)
    line.period_end.CopyFrom(before.period_end)


@fault("periods_tile", "sub_1")
def the_current_month_not_billed(found: Book, there: Shared) -> None:
    found.invoices.remove(invoice(found, "in_12"))
