"""Why the embedded PostgreSQL cannot be used.

EmbeddedPostgresError
|- DataDirectoryHeld      another server uses the directory
|- DataDirectoryUnusable  wrong owner, wrong version, not reachable
`- PostgresNotStarted     PostgreSQL ended or hung while starting; its log is quoted
"""

from __future__ import annotations


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be used; the message says why and what to do."""


class DataDirectoryHeld(EmbeddedPostgresError):
    """Another server process uses the data directory."""


class DataDirectoryUnusable(EmbeddedPostgresError):
    """The data directory exists but cannot serve: its owner, its version or its place is wrong."""


class PostgresNotStarted(EmbeddedPostgresError):
    """PostgreSQL ended or hung while it was starting; the message quotes its log."""
