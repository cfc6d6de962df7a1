"""Every way in which the engine says no.

    DomainError
    ├── InvalidArgument      the request can never succeed as it is          INVALID_ARGUMENT
    ├── ResourceMissing      no such object in this account                  NOT_FOUND
    ├── AlreadyExists        the name or key is taken                        ALREADY_EXISTS
    ├── WrongState           the object's state forbids it now               FAILED_PRECONDITION
    ├── PaymentFailed        the gateway refused the charge                  FAILED_PRECONDITION
    ├── Conflict             somebody else was faster; read and try again    ABORTED
    ├── LimitReached         too much for now, or for good                   RESOURCE_EXHAUSTED
    └── OutOfRange           the position is no longer, or not yet, there    OUT_OF_RANGE

Each carries a reason out of `REASONS`; a test proves these one-to-one with the proto enum ErrorReason.
"""

from __future__ import annotations

import msgspec

REASONS: frozenset[str] = frozenset(
    {
        "parameter_missing",
        "parameter_unknown",
        "parameter_invalid",
        "parameter_invalid_empty",
        "parameter_invalid_integer",
        "parameters_exclusive",
        "currency_mismatch",
        "interval_mismatch",
        "price_type_invalid",
        "amount_too_small",
        "amount_too_large",
        "time_out_of_range",
        "metadata_invalid",
        "card_number_refused",
        "page_token_invalid",
        "idempotency_mismatch",
        "resource_missing",
        "resource_already_exists",
        "etag_mismatch",
        "idempotency_key_in_use",
        "payment_in_progress",
        "test_clock_advancing",
        "test_clock_backwards",
        "customer_max_subscriptions",
        "customer_deleted",
        "rate_limit",
        "position_out_of_range",
        "subscription_terminal",
        "subscription_incomplete",
        "subscription_not_paused",
        "subscription_paused",
        "subscription_collection_method",
        "subscription_state_invalid",
        "subscription_scheduled",
        "schedule_ended",
        "automation_run_ended",
        "invoice_not_editable",
        "invoice_state_invalid",
        "invoice_not_deletable",
        "invoice_no_lines",
        "invoice_upcoming_none",
        "invoice_no_payment_method",
        "invoice_item_not_editable",
        "payment_method_detached",
        "payment_method_unsuitable",
        "payment_intent_unexpected_state",
        "refund_exceeds_payment",
        "credit_note_exceeds_invoice",
        "credit_note_not_voidable",
        "price_inactive",
        "price_in_use",
        "balance_currency_unknown",
        "meter_inactive",
        "automation_pair_invalid",
        "automation_deleted",
        "automation_limit",
        "webhook_endpoint_disabled",
        "webhook_max_endpoints",
        "webhook_max_secrets",
        "account_max_consumers",
        "card_declined",
        "expired_card",
        "incorrect_cvc",
        "incorrect_number",
        "processing_error",
        "authentication_required",
        "payment_outcome_unknown",
        "unauthenticated",
        "scope_missing",
        "deadline_exceeded",
        "unavailable",
        "internal",
        "consumer_silent",
    }
)


class Violation(msgspec.Struct, frozen=True):
    """One thing wrong with a request: which field, the machine-readable reason, the rule and the way out."""

    field: str
    reason: str
    description: str


class DomainError(Exception):
    """A refusal. `reason` is machine-readable, `message` names the rule and the way out."""

    def __init__(self, reason: str, message: str, *, field: str = "") -> None:
        if reason not in REASONS:
            raise AssertionError(f"unknown error reason: {reason}")
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field


class InvalidArgument(DomainError):
    """The request breaks one or more rules whatever the state; all violations are told at once."""

    def __init__(self, *violations: Violation) -> None:
        first = violations[0]
        super().__init__(
            first.reason,
            "; ".join(f"{violation.field}: {violation.description}" for violation in violations),
            field=first.field,
        )
        self.violations = violations


def invalid(field: str, reason: str, description: str) -> InvalidArgument:
    """An `InvalidArgument` with a single violation."""
    return InvalidArgument(Violation(field, reason, description))


class ResourceMissing(DomainError):
    """No object of this type with this id in the account (also when it belongs to another account).

    `by` is what it is known by where that is not the id.
    """

    def __init__(self, resource_type: str, resource_id: str, *, field: str = "id", by: str = "id") -> None:
        super().__init__(
            "resource_missing", f"no {resource_type.replace('_', ' ')} with {by} '{resource_id}'", field=field
        )
        self.resource_type = resource_type
        self.resource_id = resource_id


class AlreadyExists(DomainError):
    """The name, key or attachment is taken."""


class WrongState(DomainError):
    """The state of the object forbids this; `subject` is its id."""

    def __init__(self, reason: str, message: str, *, subject: str = "", field: str = "") -> None:
        super().__init__(reason, message, field=field)
        self.subject = subject


class PaymentFailed(DomainError):
    """The gateway refused the charge, and the caller asked for all or nothing."""

    def __init__(self, reason: str, message: str, *, decline_code: str | None = None) -> None:
        super().__init__(reason, message)
        self.decline_code = decline_code


class Conflict(DomainError):
    """Somebody else changed or is changing the object; read it and try again."""

    def __init__(self, reason: str, message: str, *, retry_after_seconds: int = 1, field: str = "") -> None:
        super().__init__(reason, message, field=field)
        self.retry_after_seconds = retry_after_seconds


class LimitReached(DomainError):
    """A bound of the engine or of the account is reached."""

    def __init__(self, reason: str, message: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(reason, message)
        self.retry_after_seconds = retry_after_seconds


class OutOfRange(DomainError):
    """The wanted position is below what is kept, or above what exists."""

    def __init__(self, message: str, *, oldest: int, newest: int) -> None:
        super().__init__("position_out_of_range", message)
        self.oldest = oldest
        self.newest = newest


def ahead_of_log(position: int, head: int) -> str:
    """Why a position is refused that no event has yet, and what to send instead."""
    return f"{position} is ahead of the log, whose newest event is at {head}; send the position of the last one handled"
