"""Writes down the schema of a database, the same on every version of PostgreSQL.

`python -m tests.store.schema_dump URL > tests/store/expected_schema.txt` after a change of migrations/, on a
database that has been migrated, e.g. by starting the server on it.
"""

from __future__ import annotations

import asyncio
import sys

import asyncpg

# Each query gives one line per thing, in an order that does not depend on how it came to be.
_QUERIES = {
    "tables": """
        SELECT format('%s (%s)%s', c.relname, string_agg(format('%s %s%s%s%s', a.attname,
            format_type(a.atttypid, a.atttypmod),
            CASE WHEN a.attcollation <> 0 AND o.collname <> 'default' THEN ' ' || o.collname END,
            CASE WHEN a.attnotnull THEN ' not null' END,
            CASE a.attgenerated WHEN 's' THEN ' as ' || pg_get_expr(d.adbin, d.adrelid)
                ELSE ' default ' || pg_get_expr(d.adbin, d.adrelid) END), ', ' ORDER BY a.attnum),
            ' with ' || array_to_string(c.reloptions, ', '))
        FROM pg_class AS c
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
        LEFT JOIN pg_collation AS o ON o.oid = a.attcollation
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'c')
        GROUP BY c.relname, c.reloptions
    """,
    "constraints": """
        SELECT format('%s: %s', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'p', 'u', 'x')
    """,
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "policies": """
        SELECT format('%s on %s for %s using %s', policyname, tablename, cmd, qual)
        FROM pg_policies WHERE schemaname = 'public'
    """,
    "row level security": """
        SELECT format('%s %s', relname, CASE WHEN relforcerowsecurity THEN 'forced' ELSE 'only enabled' END)
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relrowsecurity
    """,
    "grants": """
        SELECT format('%s to %s: %s', table_name, grantee, string_agg(privilege_type, ', ' ORDER BY privilege_type))
        FROM information_schema.role_table_grants WHERE grantee = 'billing_app' GROUP BY table_name, grantee
    """,
}


async def dump(connection: asyncpg.Connection) -> str:
    """The schema as sorted lines under headings."""
    sections = []
    for heading, query in _QUERIES.items():
        lines = sorted(record[0] for record in await connection.fetch(query))
        sections.append("\n".join([f"# {heading}", "", *lines, ""]))
    return "\n".join(sections)


async def _main(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        print(await dump(connection), end="")
    finally:
        await connection.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
