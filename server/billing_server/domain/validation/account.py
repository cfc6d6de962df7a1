"""What the settings of an account, and its API keys, have to be like."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from billing_server.domain import commands as c
from billing_server.domain.account import EmailSettings, OverduePolicy
from billing_server.domain.dunning import RetryPolicy, check_retry_policy
from billing_server.domain.validation import numbers, text
from billing_server.domain.validation.findings import Findings
from billing_server.domain.validation.shapes import Shape, each, nested

TEAM_USERS_MAX: Final = 100
UPCOMING_RENEWAL_DAYS_MAX: Final = 365
FINALIZATION_DELAY_SECONDS_MAX: Final = 259_200
DAYS_AFTER_DUE_MAX: Final = 3650
ALL_SCOPES: Final = "*"
"""The scope that may call everything."""


def retry_policy(policy: Any, field: str, findings: Findings) -> None:
    """A schedule within the limits of semantics section 6, with nothing that only the other kind has."""
    default = RetryPolicy(kind=policy.kind)
    foreign = ("retry_days",) if policy.kind == "smart" else ("max_retries", "window")
    for name in foreign:
        if getattr(policy, name) != getattr(default, name):
            text = f"not together with kind={policy.kind}, which does not look at it; leave it out, or change the kind"
            findings.add(f"{field}.{name}", "parameters_exclusive", text)
    try:
        check_retry_policy(policy)
    except ValueError as error:
        inner = "max_retries" if policy.kind == "smart" else "retry_days"
        findings.add(f"{field}.{inner}", "parameter_invalid", str(error))


OVERDUE_POLICY: Final = Shape(OverduePolicy, {"days_after_due": numbers.whole(1, DAYS_AFTER_DUE_MAX, " days")})
EMAILS: Final = Shape(EmailSettings, {"cancellation_policy_url": text.URL, "billing_page_url": text.URL})

SHAPES: Final = (
    Shape(
        c.UpdateSettings,
        {
            "default_currency": numbers.currency,
            "exchange_rates": numbers.exchange_rates,
            "company_name": text.NAME,
            "company_domain": text.DOMAIN,
            "team_users": each(text.EMAIL, most=TEAM_USERS_MAX),
            "retry_policy": retry_policy,
            "one_off_retry_policy": retry_policy,
            "overdue_policy": nested(OVERDUE_POLICY),
            "upcoming_renewal_days": numbers.whole(0, UPCOMING_RENEWAL_DAYS_MAX, " days"),
            "finalization_delay_seconds": numbers.whole(0, FINALIZATION_DELAY_SECONDS_MAX, " seconds"),
            "statement_descriptor": text.STATEMENT_DESCRIPTOR,
            "emails": nested(EMAILS),
            "etag": text.ID,
        },
    ),
)


def check_api_key(name: str, scopes: Sequence[str], known_scopes: Collection[str]) -> None:
    """Refuse an API key without a name, or with scopes that no method asks for.

    Raises:
        InvalidArgument: with all violations.
    """
    findings = Findings(now=0)
    if name:
        text.NAME(name, "name", findings)
    else:
        findings.add("name", "parameter_missing", "is required")
    if not scopes:
        findings.add("scopes", "parameter_missing", f"name at least one scope, or '{ALL_SCOPES}' for everything")
    for index, scope in enumerate(scopes):
        if scope != ALL_SCOPES and scope not in known_scopes:
            findings.add(
                f"scopes[{index}]",
                "parameter_invalid",
                f"must be '{ALL_SCOPES}' or one of {', '.join(sorted(known_scopes))}",
            )
        elif scope in scopes[:index]:
            findings.add(f"scopes[{index}]", "parameters_exclusive", f"'{scope}' is named twice; name it once")
    findings.raise_any()
