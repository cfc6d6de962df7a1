"""Finds and ends the PostgreSQL processes that a killed server has left behind on a data directory.

Apart from the launcher because it deals with processes that this one did not start, known only by
what the operating system says about them. Call it only while holding the lock of the data directory:
whatever still runs there then has lost its server.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

_PROCESSES = Path("/proc")
_PATIENCE_SECONDS = 10.0
_POLL_SECONDS = 0.05


def end_leftover_processes(cluster: Path) -> None:
    """End every PostgreSQL process of the cluster and remove a lock file that no process stands behind.

    The lock file names a process id only; after a reboot or in a new container that id may belong to an
    unrelated process of the same user, and PostgreSQL would refuse to start for ever.
    """
    lock_file = cluster / "postmaster.pid"
    if not lock_file.exists():
        return
    # Fast shutdown first; then immediate, which leaves the rest to crash recovery; then no choice.
    for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if not (running := postgres_process_ids(cluster)):
            break
        postmaster_id = _postmaster_id(lock_file)
        # Backends end by themselves once their postmaster has; they are only pushed at the last step.
        targets = running if how == signal.SIGKILL else running & {postmaster_id}
        for process_id in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, how)
        _wait_for_end(cluster)
    lock_file.unlink(missing_ok=True)


def postgres_process_ids(cluster: Path) -> set[int]:
    """Ids of the processes whose working directory is the cluster's folder, as PostgreSQL's always is."""
    if not _PROCESSES.is_dir():
        return _postmaster_by_name(cluster / "postmaster.pid")
    wanted = str(cluster.resolve())
    found = set()
    for entry in _PROCESSES.iterdir():
        # Processes end while being listed, and those of other users hide their folder.
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and str((entry / "cwd").readlink()) == wanted:
                found.add(int(entry.name))
    return found - {os.getpid()}


def _postmaster_by_name(lock_file: Path) -> set[int]:
    """The postmaster alone, on systems that show no folder of processes."""
    process_id = _postmaster_id(lock_file)
    if process_id is None:
        return set()
    command = ["ps", "-o", "command=", "-p", str(process_id)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {process_id} if str(lock_file.parent) in shown else set()


def _postmaster_id(lock_file: Path) -> int | None:
    try:
        return int(lock_file.read_text().splitlines()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None


def _wait_for_end(cluster: Path) -> None:
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    while postgres_process_ids(cluster) and time.monotonic() < give_up_at:
        time.sleep(_POLL_SECONDS)
