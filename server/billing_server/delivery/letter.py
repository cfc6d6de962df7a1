"""Letters: the text of a message in HTML and plain text, as an e-mail ready to be sent.

Templates are files beside this module. They run sandboxed, escape what they show in HTML, and may write only so
much. What they show comes from callers: names are brought onto one line, so that nobody writes a second paragraph
or a header of his own into somebody's e-mail. Money and dates are written as the customer's locale has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from datetime import UTC, datetime
from decimal import Decimal
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from babel import Locale, UnknownLocaleError
from babel.dates import format_date
from jinja2 import FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from billing_server.domain.message import Facts, Message
from billing_server.domain.money import minor_unit_exponent

LETTER_CHARACTERS_MAX: Final = 64 * 1024
"""How much one template may write."""

_POLICY: Final = SMTP.clone(cte_type="7bit")
_FALLBACK_LOCALE: Final = Locale("en")
_SUBJECT_CHARACTERS_MAX: Final = 200


class LetterError(Exception):
    """A message cannot be written down: it would be too long, or a fact that its text needs is not there."""


class Sender(msgspec.Struct, frozen=True):
    """Whom letters are from. Without a name of its own, each bears that of its company."""

    address: str
    name: str | None = None

    @property
    def domain(self) -> str:
        """The part behind the @, which also makes the ids of letters worldwide unique."""
        return self.address.rpartition("@")[2]


def write_letter(message: Message, sender: Sender) -> EmailMessage:
    """The letter of a message; always the same for the same message, its Message-ID included. Raises LetterError."""
    try:
        subject, text, html = _render(message)
    except (TemplateError, ValueError, TypeError, ArithmeticError) as error:
        raise LetterError(f"the {message.kind} cannot be written: {error}") from error
    letter = EmailMessage(policy=_POLICY)
    letter["Message-ID"] = f"<{message.id}@{sender.domain}>"
    letter["Date"] = format_datetime(datetime.fromtimestamp(message.created, UTC))
    letter["From"] = _address(sender.name or message.facts.company, sender.address)
    letter["To"] = message.recipient
    letter["Subject"] = subject
    letter["Auto-Submitted"] = "auto-generated"
    letter["X-Billing-Message"] = message.id
    letter["X-Billing-Kind"] = message.kind
    letter["X-Billing-Customer"] = message.customer
    if message.test_clock is not None:
        letter["X-Billing-Test-Clock"] = message.test_clock
    letter.set_content(text)
    letter.add_alternative(html, subtype="html")
    letter.set_boundary(f"={message.id}=")
    return letter


def _address(name: str, address: str) -> Address:
    user, _, domain = address.rpartition("@")
    return Address(display_name=_one_line(name), username=user, domain=domain)


# --- text


def _render(message: Message) -> tuple[str, str, str]:
    """Subject, plain text and HTML. The first line of the text template is the subject."""
    locale = _locale(message.locale)
    shown = _shown(message.facts)
    shown["money"] = lambda amount, currency: format_money(amount, currency, locale)
    shown["day"] = lambda moment: format_day(moment, locale)
    written = _bounded(_TEXTS.get_template(f"{message.kind}.txt").generate(shown))
    subject, _, text = written.partition("\n")
    html = _bounded(_PAGES.get_template(f"{message.kind}.html").generate({**shown, "subject": subject}))
    return _one_line(subject)[:_SUBJECT_CHARACTERS_MAX], text.strip() + "\n", html


def _bounded(chunks: Iterator[str]) -> str:
    """What a template writes, as long as it is not too much."""
    written, length = [], 0
    for chunk in chunks:
        length += len(chunk)
        if length > LETTER_CHARACTERS_MAX:
            raise LetterError(f"the letter has more than {LETTER_CHARACTERS_MAX} characters")
        written.append(chunk)
    return "".join(written)


def _shown(facts: Facts) -> dict[str, Any]:
    """The facts as templates see them: texts on one line, but for the memo, which has lines of its own."""
    shown: dict[str, Any] = msgspec.structs.asdict(facts)
    for name, value in shown.items():
        if isinstance(value, str):
            shown[name] = "\n".join(map(_one_line, value.splitlines())) if name == "memo" else _one_line(value)
    return shown


def _one_line(text: str) -> str:
    """A text without line breaks and invisible characters that could turn it into something else."""
    return " ".join("".join(c if c.isprintable() or c.isspace() else "" for c in text).split())


def _locale(tag: str | None) -> Locale:
    """The locale of a language tag, or the nearest one that is known."""
    parts = (tag or "").split("-")
    while parts and parts[0]:
        try:
            return Locale.parse("-".join(parts), sep="-")
        except (UnknownLocaleError, ValueError):
            parts.pop()
    return _FALLBACK_LOCALE


def format_money(amount: int, currency: str, locale: Locale) -> str:
    """An amount of minor units as the locale writes it, with the decimals that the engine counts in."""
    exponent = minor_unit_exponent(currency)
    # Babel knows decimals of its own for some currencies, which are not those that amounts are counted in.
    pattern = copy(locale.currency_formats["standard"])
    pattern.frac_prec = (exponent, exponent)
    value = Decimal(amount).scaleb(-exponent)
    return str(pattern.apply(value, locale, currency=currency.upper(), currency_digits=False))


def format_day(moment: int, locale: Locale) -> str:
    """The day of an instant (UTC) as the locale writes it."""
    return format_date(datetime.fromtimestamp(moment, UTC), format="long", locale=locale)


def _environment(*, autoescape: bool) -> SandboxedEnvironment:
    return SandboxedEnvironment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


_TEXTS: Final = _environment(autoescape=False)
_PAGES: Final = _environment(autoescape=True)
