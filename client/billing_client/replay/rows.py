"""The rows of the telco churn file: read, checked, and told by line when they cannot be billed."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from billing_client.money import parse_money

CURRENCY = "usd"

_REQUIRED = ("customerID", "tenure", "MonthlyCharges", "Contract", "PaymentMethod", "Churn")
_TENURE_MONTHS_MAX = 480
_METADATA_KEYS_MAX = 48
_METADATA_KEY_LENGTH_MAX = 40
_METADATA_VALUE_LENGTH_MAX = 500


class FileError(ValueError):
    """The file cannot be replayed; the message names the line, the rule and a way out."""


@dataclass(frozen=True, slots=True)
class Row:
    """One subscriber. `attributes` are all filled columns as they stand in the file."""

    customer_id: str
    tenure_months: int
    monthly_cents: int
    contract: str
    payment_method: str
    churned: bool
    attributes: Mapping[str, str] = field(hash=False)
    total_is_blank: bool = False

    @property
    def automatic(self) -> bool:
        """Whether a card or account is charged; otherwise invoices are sent and paid by check."""
        return "(automatic)" in self.payment_method

    @property
    def expected_cents(self) -> int:
        """What is billed by the end: the monthly price for each month."""
        return self.tenure_months * self.monthly_cents


def read_rows(path: Path, limit: int | None = None) -> list[Row]:
    """The first `limit` rows of the file, all without a limit. Raises FileError, and OSError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_read(csv.DictReader(file), limit))
    except UnicodeDecodeError:
        raise FileError(f"{path} is not text in UTF-8") from None
    except csv.Error as error:
        raise FileError(f"{path} is not a CSV file: {error}") from None
    if not rows:
        raise FileError(f"{path} has no rows to bill")
    return rows


def _read(reader: csv.DictReader[str], limit: int | None) -> Iterator[Row]:
    missing = [name for name in _REQUIRED if name not in (reader.fieldnames or ())]
    if missing:
        raise FileError(f"the first line lacks the columns {', '.join(missing)}; they are needed for billing")
    seen: set[str] = set()
    for number, texts in enumerate(reader):
        if limit is not None and number >= limit:
            return
        row = parse_row(texts, reader.line_num)
        if row.customer_id in seen:
            raise FileError(f"line {reader.line_num}: customerID {row.customer_id} stands there a second time")
        seen.add(row.customer_id)
        yield row


def parse_row(texts: Mapping[str, str | None], line: int) -> Row:
    """A row from the texts of its columns. Raises FileError."""
    if None in texts or None in texts.values():
        raise FileError(f"line {line}: it does not have as many columns as the first line")
    cells = {name: (text or "").strip() for name, text in texts.items()}
    empty = [name for name in _REQUIRED if not cells[name]]
    if empty:
        raise FileError(f"line {line}: {', '.join(empty)} is empty")
    if cells["Churn"] not in ("Yes", "No"):
        raise FileError(f"line {line}: Churn is {cells['Churn']!r}, neither Yes nor No")
    return Row(
        customer_id=cells["customerID"],
        tenure_months=_tenure(cells["tenure"], line),
        monthly_cents=_cents(cells["MonthlyCharges"], line),
        contract=cells["Contract"],
        payment_method=cells["PaymentMethod"],
        churned=cells["Churn"] == "Yes",
        attributes=_metadata(cells.items(), line),
        total_is_blank=not cells.get("TotalCharges", "filled"),
    )


def _tenure(text: str, line: int) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > _TENURE_MONTHS_MAX:
        raise FileError(f"line {line}: tenure is {text!r}, no number of months up to {_TENURE_MONTHS_MAX}")
    return int(text)


def _cents(text: str, line: int) -> int:
    try:
        cents = parse_money(text, CURRENCY)
    except ValueError as error:
        raise FileError(f"line {line}: MonthlyCharges: {error}") from None
    if cents < 0:
        raise FileError(f"line {line}: MonthlyCharges is negative")
    return cents


def _metadata(cells: Iterable[tuple[str, str]], line: int) -> dict[str, str]:
    """The filled columns, within the limits of metadata. An empty value would not be kept."""
    filled = {name: text for name, text in cells if text}
    if len(filled) > _METADATA_KEYS_MAX:
        raise FileError(f"line {line}: more than {_METADATA_KEYS_MAX} columns do not fit into metadata")
    for name, text in filled.items():
        if len(name) > _METADATA_KEY_LENGTH_MAX or len(text) > _METADATA_VALUE_LENGTH_MAX:
            raise FileError(
                f"line {line}: column {name[:60]!r} does not fit into metadata, whose keys have up to "
                f"{_METADATA_KEY_LENGTH_MAX} characters and values up to {_METADATA_VALUE_LENGTH_MAX}"
            )
    return filled
