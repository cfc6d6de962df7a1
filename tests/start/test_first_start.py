"""Who can log in after a start: the first account, kept keys, lost keys, and databases that others set up."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from billing_server.bootstrap import open_engine
from billing_server.config import Address, Config
from billing_server.engine.engine import Engine
from billing_server.engine.work import Caller
from billing_server.first_start import example_lines, first_login, leave_address, reachable
from billing_server.store.migrate import migrate


def config_of(tmp_path: Path, database_url: str | None = None) -> Config:
    settings = {"BILLING_DATA_DIR": str(tmp_path)}
    return Config.from_environment(settings | ({} if database_url is None else {"BILLING_DATABASE_URL": database_url}))


@pytest.fixture
async def engine(empty_database_url: str, tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine on a database without accounts."""
    await migrate(empty_database_url)
    made = await open_engine(config_of(tmp_path), empty_database_url)
    yield made
    await made.store.close()


@pytest.mark.parametrize("url", [None, "postgresql://db.example/billing"])
async def test_the_first_start_makes_an_account_with_a_key(engine: Engine, tmp_path: Path, url: str | None) -> None:
    login = await first_login(config_of(tmp_path, url), engine)
    (account,) = await engine.store.account_ids()
    assert login.key_file == tmp_path / "api-key"
    assert account in login.remark
    assert stat.S_IMODE(login.key_file.stat().st_mode) == 0o600


async def test_a_later_start_keeps_the_key(engine: Engine, tmp_path: Path) -> None:
    await first_login(config_of(tmp_path), engine)
    key = (tmp_path / "api-key").read_text()
    again = await first_login(config_of(tmp_path), engine)
    assert (tmp_path / "api-key").read_text() == key
    assert again.key_file == tmp_path / "api-key"
    assert len(await engine.store.account_ids()) == 1


async def test_a_lost_key_is_made_anew_for_the_database_of_the_same_directory(engine: Engine, tmp_path: Path) -> None:
    await first_login(config_of(tmp_path), engine)
    (tmp_path / "api-key").unlink()
    login = await first_login(config_of(tmp_path), engine)
    assert login.key_file is not None
    assert "new key" in login.remark
    assert len(await engine.store.account_ids()) == 1


async def test_a_database_that_others_set_up_gives_no_key(engine: Engine, tmp_path: Path) -> None:
    await engine.create_account("theirs")
    login = await first_login(config_of(tmp_path, "postgresql://db.example/billing"), engine)
    assert login.key_file is None
    assert not (tmp_path / "api-key").exists()


async def test_a_revoked_key_is_told(engine: Engine, tmp_path: Path) -> None:
    await first_login(config_of(tmp_path), engine)
    (account,) = await engine.store.account_ids()
    made, secret = await engine.create_api_key(account, "other", ["*"])
    await engine.revoke_api_key(account, made.id, Caller(method="test"))
    (tmp_path / "api-key").write_text(secret + "\n")
    assert "does not work" in (await first_login(config_of(tmp_path), engine)).remark


def test_the_address_is_left_as_clients_can_use_it(tmp_path: Path) -> None:
    leave_address(config_of(tmp_path), Address("0.0.0.0", 443))
    assert (tmp_path / "address").read_text() == "127.0.0.1:443\n"
    assert reachable(Address("::", 1)) == Address("::1", 1)
    assert reachable(Address("localhost", 1)) == Address("localhost", 1)


def test_lines_name_the_key_from_where_they_are_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = example_lines(config_of(tmp_path), tmp_path / "my data" / "api-key", Address("127.0.0.1", 1))
    assert all("$(cat 'my data/api-key')" in line and "-plaintext" in line for line in lines)
    elsewhere = example_lines(config_of(tmp_path), Path("/elsewhere/api-key"), Address("127.0.0.1", 1))
    assert all("$(cat /elsewhere/api-key)" in line for line in elsewhere)
