"""Where the API key and the address come from when the caller names none.

`make run` leaves both in the data directory of its checkout: `api-key` (mode 0600) and `address`. The directory
is `BILLING_DATA_DIR`, or the nearest `.data` upwards from the current directory that holds a key.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from billing_client.errors import ApiKeyMissing, Refusal

DEFAULT_TARGET = "127.0.0.1:50051"
KEY_FILE = "api-key"
ADDRESS_FILE = "address"


@dataclass(frozen=True, slots=True)
class Login:
    """Whom to talk to, and the key to show."""

    target: str
    api_key: str


def find_login(
    target: str | None,
    api_key: str | None,
    *,
    environment: Mapping[str, str] = os.environ,
    directory: Path | None = None,
) -> Login:
    """Complete what the caller gave: key from `BILLING_API_KEY`, else from the key file; address likewise.

    The key file is not used for a server on another machine: it belongs to the one that wrote it.
    `directory` is where the search upwards begins, by default the current one.

    Raises ApiKeyMissing when there is no key.
    """
    data_directory = find_data_directory(environment, directory or Path.cwd())
    local_address = _read(data_directory, ADDRESS_FILE)
    target = target or local_address or DEFAULT_TARGET
    key = (api_key or environment.get("BILLING_API_KEY", "")).strip()
    if not key and (is_loopback(target) or target == local_address):
        key = _read(data_directory, KEY_FILE)
    if not key:
        raise _missing(
            f"there is no API key for {target}: `make run` leaves one for its own checkout, in .data/api-key"
        )
    return Login(target=target, api_key=key)


def find_data_directory(environment: Mapping[str, str], directory: Path) -> Path | None:
    """The data directory of the server at hand: `BILLING_DATA_DIR`, or the nearest `.data` with a key."""
    given = environment.get("BILLING_DATA_DIR", "").strip()
    if given:
        return Path(given).expanduser()
    directory = directory.absolute()
    for candidate in (directory, *directory.parents):
        if (candidate / ".data" / KEY_FILE).is_file():
            return candidate / ".data"
    return None


def is_loopback(target: str) -> bool:
    """Whether a target HOST:PORT can only be reached from this machine."""
    host = target.removeprefix("dns:///").removeprefix("ipv4:").removeprefix("ipv6:")
    if host.startswith("unix:"):
        return True
    host = host.rpartition(":")[0].strip("[]") or host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _read(directory: Path | None, name: str) -> str:
    """The file's content without the line end; "" when there is none that this user may read."""
    if directory is None:
        return ""
    try:
        return (directory / name).read_text("utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except PermissionError:
        raise _missing(f"{directory / name} belongs to another user, so its API key cannot be read") from None


def _missing(what: str) -> ApiKeyMissing:
    return ApiKeyMissing(Refusal(code=grpc.StatusCode.UNAUTHENTICATED, message=f"{what}; set BILLING_API_KEY"))
