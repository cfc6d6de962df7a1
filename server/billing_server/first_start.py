"""The first account and its key, and the lines that a newcomer pastes."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Final

import msgspec

from billing_server.config import Address, Config
from billing_server.engine.api_keys import hash_of
from billing_server.engine.engine import Engine

KEY_FILE: Final = "api-key"
ADDRESS_FILE: Final = "address"
ACCOUNT_NAME: Final = "First account"
KEY_NAME: Final = "Made at the first start"
EVERYTHING: Final = "*"


class Login(msgspec.Struct, frozen=True):
    """The key that lies in the data directory, and what is to be said of it; no key: nothing lies there."""

    key_file: Path | None
    remark: str


async def first_login(config: Config, engine: Engine) -> Login:
    """Make an account and a key where there is none yet; leave the key where the command line finds it."""
    path = config.data_directory / KEY_FILE
    accounts = await engine.store.account_ids()
    kept = _read(path)
    if kept is None and not accounts:
        account = await engine.create_account(ACCOUNT_NAME)
        await _make_key(engine, account.id, path)
        return Login(path, f"Made the account {account.id} ({ACCOUNT_NAME}) and a key for it, kept in {path}.")
    if kept is None and config.database_url is None:
        await _make_key(engine, accounts[0], path)
        return Login(path, f"Made a new key for the account {accounts[0]}, kept in {path}: there was none.")
    if kept is None:
        return Login(None, f"The database has accounts, but there is no key in {path}: use one that you have.")
    found = await engine.store.find_api_key(hash_of(kept))
    if found is None or found[1].revoked_at is not None:
        return Login(path, f"The key in {path} does not work (any more): write one that works there.")
    return Login(path, f"The key of the account {found[0]} is in {path}.")


async def _make_key(engine: Engine, account_id: str, path: Path) -> None:
    _, secret = await engine.create_api_key(account_id, KEY_NAME, [EVERYTHING])
    _write(path, secret, 0o600)


def leave_address(config: Config, address: Address) -> None:
    """Leave the server's address where the command line finds it."""
    _write(config.data_directory / ADDRESS_FILE, str(reachable(address)), 0o644)


def reachable(address: Address) -> Address:
    """The address as a client on this machine can use it."""
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # recognized here, bound nowhere
    return Address(anywhere.get(address.host, address.host), address.port)


def example_lines(config: Config, key_file: Path, address: Address) -> list[str]:
    """Three commands that work when they are pasted into a shell in the directory where the server was started."""
    shown = shlex.quote(str(_short(key_file)))
    tls = "" if config.tls is not None else "-plaintext "
    start = f'grpcurl {tls}-H "authorization: Bearer $(cat {shown})"'
    target = str(reachable(address))
    customer = '{"name": "Ada", "email": "ada@example.com"}'
    position = '{"after_position": "0"}'
    return [
        f"{start} {target} list",
        f"{start} -d '{customer}' \\\n    {target} billing.v1.CustomerService/CreateCustomer",
        f"{start} -d '{position}' \\\n    {target} billing.v1.EventService/StreamEvents",
    ]


def _short(path: Path) -> Path:
    """The path as seen from the current directory, where it lies below."""
    directory = Path.cwd()
    return path.relative_to(directory) if path.is_relative_to(directory) else path


def _read(path: Path) -> str | None:
    """The file's content; None when there is no such file."""
    try:
        return path.read_text("utf-8").strip()
    except FileNotFoundError:
        return None


def _write(path: Path, content: str, mode: int) -> None:
    """Write a small file whole: a reader sees the old one or the new one, with its final mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = path.with_name(path.name + ".new")
    waiting.unlink(missing_ok=True)
    descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content + "\n")
        os.fchmod(file.fileno(), mode)
        if os.geteuid() == 0:
            # Who owns the directory gets along without root.
            owner = path.parent.stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
    waiting.replace(path)
