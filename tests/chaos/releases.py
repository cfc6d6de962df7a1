"""Releases to come: migrations that keep the rules of migrations/README.md, and the programs that go with them.

`python -m tests.chaos.releases FOLDER` runs the server of a later release, whose migrations are those of the folder.
It keeps the length of a customer's name, in a column that today's release does not know: it writes customers by another
row type, as a real one would. `FIRST` brings that in while today's servers run; `SECOND` takes away what only they use.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from billing_server.__main__ import main as serve
from billing_server.domain.customer import Customer
from billing_server.store import migrate
from billing_server.store.customer import CUSTOMERS

_TODAY: Final = migrate.migrations_folder()
NEWEST: Final = len(migrate.read_migrations(_TODAY))
_ROW: Final = CUSTOMERS.placeholders["row"]
_NEXT_ROW: Final = "customer_row_of_a_later_release"

Release = Mapping[str, str]
"""Files of SQL by what they are for, in the order of their numbers."""

FIRST: Final[Release] = {
    "add_name_length": f"""-- billing: expands
        ALTER TABLE customers ADD COLUMN name_length bigint;
        ALTER TABLE invoices ADD COLUMN reviewed boolean NOT NULL DEFAULT false;
        ALTER TABLE subscriptions ADD CONSTRAINT version_counts CHECK (version > 0) NOT VALID;
        DO $$
        BEGIN
            EXECUTE (
                SELECT format('CREATE TYPE {_NEXT_ROW} AS (%s, name_length bigint)', string_agg(
                    format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum))
                FROM pg_attribute WHERE attrelid = '{_ROW}'::regclass AND attnum > 0 AND NOT attisdropped
            );
        END $$;
    """,
    "index_name_length": """-- billing: expands
-- billing: without transaction
        CREATE INDEX CONCURRENTLY IF NOT EXISTS customers_by_name_length ON customers (account_id, name_length);
    """,
    "validate_version": """-- billing: expands
        ALTER TABLE subscriptions VALIDATE CONSTRAINT version_counts;
    """,
}
_LAST_OF_FIRST: Final = NEWEST + len(FIRST)
SECOND: Final[Release] = {
    **FIRST,
    "drop_row_type": f"""-- billing: needs programs from {_LAST_OF_FIRST:04} on
        DROP TYPE {_ROW};
    """,
}
RUDE: Final[Release] = {
    "rename_column": """-- billing: expands
        ALTER TABLE invoice_items RENAME COLUMN description TO text;
    """,
}
"""Against the rules: says that it only adds, and takes away."""


def write_release(release: Release, folder: Path) -> Path:
    """The folder of a release's migrations: today's, and then its own."""
    shutil.copytree(_TODAY, folder)
    for number, (name, sql) in enumerate(release.items(), start=NEWEST + 1):
        (folder / f"{number:04}_{name}.sql").write_text(sql)
    return folder


def _name_length(customer: Customer) -> int:
    return len(customer.name or "")


def main(arguments: Sequence[str]) -> int:
    """Become the later release, and serve."""
    folder = Path(arguments[0])
    setattr(migrate, "migrations_folder", lambda: folder)  # noqa: B010  # the later release's own files
    if len(migrate.read_migrations(folder)) >= _LAST_OF_FIRST:
        CUSTOMERS.__init__(  # type: ignore[misc]  # the others hold this very object
            Customer, "customer", "customers", _NEXT_ROW, derived={"name_length": _name_length}
        )
    return serve([])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
