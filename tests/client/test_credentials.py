"""Where key and address are found, and when the key file is not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from billing_client import ApiKeyMissing
from billing_client.credentials import find_login, is_loopback


def checkout(folder: Path, *, address: str = "") -> Path:
    data = folder / ".data"
    data.mkdir(parents=True)
    (data / "api-key").write_text("sk_file\n")
    if address:
        (data / "address").write_text(f"{address}\n")
    return folder


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    login = find_login(None, None, environment={"BILLING_API_KEY": "sk_environment"}, directory=checkout(tmp_path))
    assert (login.target, login.api_key) == ("127.0.0.1:50051", "sk_environment")


def test_the_key_of_the_checkout_is_found_from_below(tmp_path: Path) -> None:
    below = checkout(tmp_path, address="127.0.0.1:60000") / "deep" / "down"
    below.mkdir(parents=True)
    login = find_login(None, None, environment={}, directory=below)
    assert (login.target, login.api_key) == ("127.0.0.1:60000", "sk_file")


def test_the_data_directory_can_be_named(tmp_path: Path) -> None:
    data = checkout(tmp_path / "elsewhere") / ".data"
    login = find_login(None, None, environment={"BILLING_DATA_DIR": str(data)}, directory=tmp_path)
    assert login.api_key == "sk_file"


def test_the_key_file_is_not_shown_to_another_machine(tmp_path: Path) -> None:
    with pytest.raises(ApiKeyMissing, match=r"billing\.example\.com:443.*BILLING_API_KEY"):
        find_login("billing.example.com:443", None, environment={}, directory=checkout(tmp_path))


def test_without_any_key_the_way_out_is_told(tmp_path: Path) -> None:
    with pytest.raises(ApiKeyMissing, match="make run"):
        find_login(None, None, environment={"BILLING_DATA_DIR": str(tmp_path)})


@pytest.mark.parametrize(
    ("target", "loopback"),
    [
        ("127.0.0.1:50051", True),
        ("[::1]:50051", True),
        ("localhost:50051", True),
        ("unix:/run/billing.sock", True),
        ("10.0.0.1:50051", False),
        ("billing.example.com:443", False),
        ("localhost.example.com:443", False),
    ],
)
def test_what_counts_as_this_machine(target: str, loopback: bool) -> None:
    assert is_loopback(target) is loopback
