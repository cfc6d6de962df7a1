"""`billing mail`: the e-mails in the data directory."""

from __future__ import annotations

import json
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from billing_client.command_line.main import app, hoist

RUNNER = CliRunner()


def run(data_directory: Path, *arguments: str) -> Any:
    """Run a command beside a data directory."""
    return RUNNER.invoke(app, hoist(list(arguments)), env={"BILLING_DATA_DIR": str(data_directory)})


@pytest.fixture
def data_directory(tmp_path: Path) -> Path:
    """A data directory with two e-mails, and what a writer that died has left."""
    folder = tmp_path / "mail"
    folder.mkdir()
    for number, kind, customer in ((1, "receipt", "cus_1"), (2, "trial_reminder", "cus_2")):
        letter = EmailMessage()
        letter["Date"] = f"Wed, 0{number} Jan 2025 10:00:00 +0000"
        letter["From"] = "Shop <billing@shop.example>"
        letter["To"] = "jenny@example.com"
        letter["Subject"] = f"Grüße {number} [red]"
        letter["X-Billing-Kind"] = kind
        letter["X-Billing-Customer"] = customer
        letter.set_content(f"Text {number}\n")
        letter.add_alternative(f"<p>Page {number}</p>\n", subtype="html")
        (folder / f"msg_{number}.eml").write_bytes(letter.as_bytes())
    (folder / ".msg_3.77").write_bytes(b"unfinished")
    return tmp_path


def test_list(data_directory: Path) -> None:
    shown = run(data_directory, "mail", "list").stdout.splitlines()
    assert [line.split()[0] for line in shown[2:]] == ["msg_2", "msg_1"], "newest first"
    assert "Grüße 2 [red]" in shown[2]


def test_list_as_json_with_filters(data_directory: Path) -> None:
    result = run(data_directory, "mail", "list", "--kind", "trial-reminder", "--json")
    assert json.loads(result.stdout) == {
        "id": "msg_2",
        "time": "2025-01-02T10:00:00Z",
        "kind": "trial_reminder",
        "customer": "cus_2",
        "to": "jenny@example.com",
        "subject": "Grüße 2 [red]",
    }
    assert '"msg_1"' in run(data_directory, "mail", "list", "--customer", "cus_1", "--json").stdout
    assert len(run(data_directory, "mail", "list", "--limit", "1", "--json").stdout.splitlines()) == 1


def test_show(data_directory: Path) -> None:
    shown = run(data_directory, "mail", "show", "msg_1").stdout
    assert "Subject: Grüße 1 [red]" in shown
    assert "Text 1" in shown
    assert run(data_directory, "mail", "show", "msg_1", "--html").stdout.strip() == "<p>Page 1</p>"
    assert json.loads(run(data_directory, "mail", "show", "msg_1", "--json").stdout)["text"] == "Text 1\n"


@pytest.mark.parametrize("identifier", ["msg_9", "../mail/msg_1", "/etc/passwd"])
def test_what_is_not_there(data_directory: Path, identifier: str) -> None:
    result = run(data_directory, "mail", "show", identifier)
    assert result.exit_code == 1
    assert "billing mail list" in result.stderr.replace("\n", " ")


def test_without_any_mail(tmp_path: Path) -> None:
    result = run(tmp_path, "mail", "list")
    assert (result.exit_code, result.stdout) == (0, "")


def test_a_folder_of_ones_own(data_directory: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "elsewhere", "mail", "list", "--folder", str(data_directory / "mail"), "--json")
    assert len(result.stdout.splitlines()) == 2
