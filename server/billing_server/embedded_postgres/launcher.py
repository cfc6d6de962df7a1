"""The life of one embedded PostgreSQL: lock the data directory, start, watch, stop."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from billing_server.embedded_postgres.cluster import (
    DATABASE,
    SETTINGS,
    SUPERUSER,
    end_postgres,
    make_cluster,
    refuse_other_version,
    start_postgres,
    write_configuration,
)
from billing_server.embedded_postgres.errors import (
    DataDirectoryHeld,
    DataDirectoryUnusable,
    EmbeddedPostgresError,
)
from billing_server.embedded_postgres.leftovers import end_leftover_processes
from billing_server.embedded_postgres.placement import (
    DatabaseUser,
    database_user,
    make_passable_folder,
    make_private_folder,
    packaged_installation,
    reachable_home,
    reachable_installation,
)

# The kernel limits the path of a Unix socket (104 bytes on macOS, 108 on Linux, the last one a NUL).
_SOCKET_PATH_BYTES_MAX = 103
_SOCKET_NAME = ".s.PGSQL.5432"


class EmbeddedPostgres:
    """One PostgreSQL that belongs to one data directory and to the process that started it.

    `settings` are added to those of `postgresql.conf`, or replace them. `installation` is the folder that
    holds `bin/` and `share/`; by default that of the Python package `embedded-postgres`.
    All methods block, and may be called from any thread, one at a time.
    """

    def __init__(
        self,
        data_directory: Path,
        *,
        settings: Mapping[str, str] | None = None,
        installation: Path | None = None,
    ) -> None:
        self.data_directory = data_directory.absolute()
        self._settings = {**SETTINGS, **(settings or {})}
        self._installation = installation
        self._database_url: str | None = None
        self._lock_descriptor: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._temporary_socket_folder: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def database_url(self) -> str:
        """URL for asyncpg, or any libpq client, as the superuser. Only while PostgreSQL is started."""
        if self._database_url is None:
            raise EmbeddedPostgresError(f"The PostgreSQL of {self.data_directory} is not started.")
        return self._database_url

    @property
    def process_id(self) -> int | None:
        """Process id of the running PostgreSQL, None when it does not run (any more)."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    def start(self) -> str:
        """Make the data if there is none, start PostgreSQL and return the database URL.

        A PostgreSQL left behind by a killed server is ended first. Raises DataDirectoryHeld when another
        server uses the directory, DataDirectoryUnusable or PostgresNotStarted where it cannot serve.
        """
        if self._lock_descriptor is not None:
            raise EmbeddedPostgresError(f"The PostgreSQL of {self.data_directory} was started already.")
        self._lock_descriptor = _lock(self.data_directory)
        try:
            self._database_url = self._start()
            return self._database_url
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End PostgreSQL, disconnecting its clients, and release the data directory. May be repeated."""
        self._database_url = None
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.communicate()
            self._watcher = None
        if self._process is not None:
            end_postgres(self._process)
            self._process = None
        if self._temporary_socket_folder is not None:
            shutil.rmtree(self._temporary_socket_folder, ignore_errors=True)
            self._temporary_socket_folder = None
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def _start(self) -> str:
        home = self.data_directory / "postgres"
        user = database_user(home / "cluster")
        installation = reachable_installation(self._installation or packaged_installation(), user)
        home = reachable_home(home, user)
        cluster = home / "cluster"
        refuse_other_version(cluster, installation, user)
        end_leftover_processes(cluster)
        if not cluster.exists():
            make_cluster(home, installation, user)
        socket_folder = self._make_socket_folder(home, user)
        write_configuration(home, self._settings, socket_folder)
        self._process = start_postgres(home, installation, user)
        self._watcher = _end_with_this_process(self._process.pid, cluster, user)
        query = urllib.parse.urlencode({"host": str(socket_folder), "user": SUPERUSER})
        return f"postgresql:///{DATABASE}?{query}"

    def _make_socket_folder(self, home: Path, user: DatabaseUser) -> Path:
        folder = home / "socket"
        # In a database URL, a comma would part one host from the next.
        if "," in str(folder) or len(os.fsencode(folder / _SOCKET_NAME)) > _SOCKET_PATH_BYTES_MAX:
            folder = Path(tempfile.mkdtemp(prefix="billing-"))
            self._temporary_socket_folder = folder
        make_private_folder(folder, user)
        return folder


def _lock(data_directory: Path) -> int:
    """Lock the directory for this process and return the descriptor that carries the lock.

    The kernel releases the lock when the process ends, however it ends.
    """
    try:
        make_passable_folder(data_directory)
        path = data_directory / "billing-server.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise DataDirectoryUnusable(
            f"The data directory {data_directory} cannot be used: {error.strerror}. Run the server as its "
            "owner, or set BILLING_DATA_DIR to a directory of your own."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise DataDirectoryHeld(
            f"Another billing server (process {holder}) uses the data directory {data_directory}. Use that "
            f"server, stop it (kill {holder}), or give this one its own BILLING_DATA_DIR and BILLING_LISTEN."
        ) from error
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
    if os.geteuid() == 0:
        owner = data_directory.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def _end_with_this_process(postmaster_id: int, cluster: Path, user: DatabaseUser) -> subprocess.Popen[bytes]:
    """Start a shell that ends PostgreSQL when this process dies without doing so itself.

    The shell reads from a pipe that nobody ever writes to, and comes to its end when this process is gone.
    """
    script = """
        runs() { [ "$(head -n 1 "$2" 2>/dev/null)" = "$1" ]; }
        read -r _
        runs "$@" && kill -INT "$1" && sleep 10 && runs "$@" && kill -QUIT "$1"
    """
    process: subprocess.Popen[bytes] = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", str(postmaster_id), str(cluster / "postmaster.pid")],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **user.process_arguments(),
    )
    return process
