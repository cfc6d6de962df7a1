"""Reading the telco file: what a row becomes, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from billing_client.replay.rows import FileError, read_rows

HEADER = "customerID,gender,tenure,Contract,PaymentMethod,MonthlyCharges,TotalCharges,Churn"
GOOD = "7590-A,Female,1,Month-to-month,Electronic check,29.85,29.85,No"


def write(folder: Path, *lines: str) -> Path:
    file = folder / "rows.csv"
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return file


def test_a_row_and_its_attributes(tmp_path: Path) -> None:
    (row,) = read_rows(write(tmp_path, HEADER, GOOD))
    assert (row.customer_id, row.tenure_months, row.monthly_cents) == ("7590-A", 1, 2985)
    assert (row.automatic, row.churned, row.total_is_blank) == (False, False, False)
    assert row.attributes["gender"] == "Female"
    assert row.expected_cents == 2985


@pytest.mark.parametrize(
    ("charge", "cents"), [("29.85", 2985), ("56.9", 5690), ("20", 2000), ("0.00", 0), ("118.75", 11875)]
)
def test_prices_to_the_cent(tmp_path: Path, charge: str, cents: int) -> None:
    (row,) = read_rows(write(tmp_path, HEADER, GOOD.replace("29.85,29.85", f"{charge},1")))
    assert row.monthly_cents == cents


def test_a_blank_total_is_noted_and_left_out_of_the_metadata(tmp_path: Path) -> None:
    (row,) = read_rows(write(tmp_path, HEADER, GOOD.replace(",29.85,No", ", ,No")))
    assert row.total_is_blank
    assert "TotalCharges" not in row.attributes


@pytest.mark.parametrize("method", ["Bank transfer (automatic)", "Credit card (automatic)"])
def test_automatic_methods(tmp_path: Path, method: str) -> None:
    (row,) = read_rows(write(tmp_path, HEADER, GOOD.replace("Electronic check", method)))
    assert row.automatic


def test_only_so_many_rows(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, HEADER, GOOD, GOOD.replace("7590-A", "7590-B"), "broken"), limit=2)
    assert [row.customer_id for row in rows] == ["7590-A", "7590-B"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (GOOD.replace(",1,", ",one,"), "line 2: tenure is 'one'"),
        (GOOD.replace(",1,", ",-1,"), "line 2: tenure is '-1'"),
        (GOOD.replace(",1,", ",999,"), "line 2: tenure is '999'"),
        (GOOD.replace("29.85,", "29.855,", 1), "line 2: MonthlyCharges: 29.855 has more decimals"),
        (GOOD.replace("29.85,", "-1,", 1), "line 2: MonthlyCharges is negative"),
        (GOOD.replace("29.85,", ",", 1), "line 2: MonthlyCharges is empty"),
        (GOOD.replace(",No", ",Maybe"), "line 2: Churn is 'Maybe'"),
        (GOOD.replace("7590-A", " "), "line 2: customerID is empty"),
        (GOOD + ",more", "line 2: it does not have as many columns"),
        ("7590-A,Female", "line 2: it does not have as many columns"),
        (GOOD.replace("Female", "x" * 501), "does not fit into metadata"),
        (GOOD + "\n" + GOOD, "line 3: customerID 7590-A stands there a second time"),
    ],
)
def test_what_is_refused(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(FileError, match=complaint):
        read_rows(write(tmp_path, HEADER, line))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="lacks the columns tenure"):
        read_rows(write(tmp_path, HEADER.replace("tenure", "months"), GOOD))
    with pytest.raises(FileError, match="no rows"):
        read_rows(write(tmp_path, HEADER))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="UTF-8"):
        read_rows(tmp_path / "binary.csv")
