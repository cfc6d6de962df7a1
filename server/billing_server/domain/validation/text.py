"""Rules of text: what can be stored, how long it may be, and what its shape is.

Lengths count characters. Text that is there is never empty or blank: in requests an empty text clears its
field, and what cannot be cleared needs a value.
"""

from __future__ import annotations

import re
from typing import Any, Final

from billing_server.domain.metadata import metadata_violations
from billing_server.domain.validation.card_numbers import has_card_number
from billing_server.domain.validation.findings import Findings
from billing_server.domain.validation.shapes import Rule

NAME_LENGTH_MAX: Final = 250
DESCRIPTION_LENGTH_MAX: Final = 500
LONG_TEXT_LENGTH_MAX: Final = 5000
EMAIL_LENGTH_MAX: Final = 512
ID_LENGTH_MAX: Final = 255
LOOKUP_KEY_LENGTH_MAX: Final = 200
UNIT_LABEL_LENGTH_MAX: Final = 50
PHONE_DIGITS_MAX: Final = 15
URL_LENGTH_MAX: Final = 2048
DOMAIN_LENGTH_MAX: Final = 253

_CARD_REFUSAL: Final = "looks like a card number, which must never be stored; send the token that the gateway gave"
_UNSTORABLE: Final = "must not contain the NUL character or lone surrogates; remove them"

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"


def is_storable(text: str) -> bool:
    """Whether the text can be written as UTF-8 into a database: no NUL, no lone surrogates."""
    if text.isascii():
        return "\x00" not in text
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def text(most: int, *, pattern: str | None = None, shape: str = "", cards: bool = True) -> Rule:
    """Text of at most so many characters, of a shape when one is asked for; with `cards=False` it is an identifier,
    in which digits are no card number."""
    compiled = None if pattern is None else re.compile(pattern)

    def rule(value: str, field: str, findings: Findings) -> None:
        if len(value) > most:
            findings.add(field, "parameter_invalid", f"has at most {most} characters, not {len(value)}; shorten it")
        elif not value or value.isspace():
            findings.add(field, "parameter_invalid_empty", "must not be empty; give it a value or leave it out")
        elif not is_storable(value):
            findings.add(field, "parameter_invalid", _UNSTORABLE)
        elif compiled is not None and compiled.fullmatch(value) is None:
            findings.add(field, "parameter_invalid", f"must be {shape}")
        elif cards and has_card_number(value):
            findings.add(field, "card_number_refused", _CARD_REFUSAL)

    return rule


ID: Final = text(ID_LENGTH_MAX, cards=False)
NAME: Final = text(NAME_LENGTH_MAX)
DESCRIPTION: Final = text(DESCRIPTION_LENGTH_MAX)
LONG_TEXT: Final = text(LONG_TEXT_LENGTH_MAX)
TOKEN: Final = text(ID_LENGTH_MAX)
LOOKUP_KEY: Final = text(LOOKUP_KEY_LENGTH_MAX)
UNIT_LABEL: Final = text(UNIT_LABEL_LENGTH_MAX)
POSTAL_CODE: Final = text(20)
EMAIL: Final = text(
    EMAIL_LENGTH_MAX,
    pattern=r"[^\s@<>,;\"]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_][\w-]{0,61}[^\W_]",
    shape="an e-mail address such as jenny@example.com",
)
DOMAIN: Final = text(
    DOMAIN_LENGTH_MAX,
    pattern=rf"(?:{_LABEL}\.)+[A-Za-z]{_LABEL}",
    shape="a domain such as example.com, without protocol or path",
)
URL: Final = text(
    URL_LENGTH_MAX,
    pattern=rf"https?://{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?(?:[/?#][^\s\x00-\x1f]*)?",
    shape="an address such as https://example.com/cancel",
)
LOCALE: Final = text(
    35, pattern="[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*", shape="a BCP 47 language tag such as en or pt-BR"
)
COUNTRY: Final = text(2, pattern="[A-Z]{2}", shape="an ISO 3166-1 alpha-2 code in capitals, such as DE")
INVOICE_PREFIX: Final = text(12, pattern="[A-Z0-9]{3,12}", shape="3 to 12 capital letters A to Z or digits")
LAST_FOUR: Final = text(4, pattern="[0-9]{4}", shape="the last four digits of the card's number")
STATEMENT_DESCRIPTOR: Final = text(
    22,
    pattern=r"(?=.*[^\W\d_])[^<>'\"*\\\x00-\x1f\x7f]{5,22}",
    shape="5 to 22 characters with at least one letter and none of < > ' \" * \\",
)

_PHONE_SHAPE: Final = text(
    40,
    pattern=r"(?:\+ ?)?[0-9(][0-9 ().\-/]{2,37}(?: ?(?:x|ext\.?) ?[0-9]{1,6})?",
    shape="a telephone number such as +1 415 555 2671",
    cards=False,
)


def phone(value: str, field: str, findings: Findings) -> None:
    """A telephone number. Behind a + it can be no card number; without one it is looked at as any other text."""
    mark = len(findings.violations)
    _PHONE_SHAPE(value, field, findings)
    if len(findings.violations) > mark:
        return
    digits = sum(character.isdigit() for character in value.partition("x")[0])
    if not value.startswith("+") and has_card_number(value):
        findings.add(field, "card_number_refused", _CARD_REFUSAL)
    elif digits > PHONE_DIGITS_MAX:
        findings.add(field, "parameter_invalid", f"has at most {PHONE_DIGITS_MAX} digits, not {digits}")


def metadata(values: Any, field: str, findings: Findings) -> None:
    """The caller's own keys and values: their limits, and no card numbers."""
    if not values:
        return
    if not all(map(is_storable, values)):
        findings.add(field, "metadata_invalid", f"keys {_UNSTORABLE}")
        return
    findings.violations += metadata_violations(values, field)
    for key, value in values.items():
        if not is_storable(value):
            findings.add(f"{field}[{key[:40]}]", "metadata_invalid", _UNSTORABLE)
        elif has_card_number(value[:1000]) or has_card_number(key[:1000]):
            findings.add(f"{field}[{key[:40]}]", "card_number_refused", _CARD_REFUSAL)
