"""The SQL of the store: files of named and described queries, read once when the program starts.

A file in `sql/` holds sections. `-- name: load_customers` begins a query, `-- filter: customer` a condition
that lists may be narrowed by, whose one parameter is written `?`. Comments at the beginning of a section
describe it. Queries may contain `{columns}` and its like, which stand for what the noun's struct dictates
(see `rows.py`), so that a field is listed in one place only.

Plans are made once, for an account of average size, and must not read the whole share of a large one. Two
turns of phrase see to that wherever rows are looked for by a list of keys: a lateral subquery that cannot be
flattened (`OFFSET 0`, `FOR UPDATE`, `LIMIT`) is carried out for each key, and a list whose length is said by
`LIMIT cardinality(…)` is taken to be short, so that an update goes from the keys to the rows, not the other way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "sql"
_SECTION = re.compile(r"^-- (?P<kind>name|filter): (?P<name>[a-z_0-9]+)$", re.MULTILINE)


class Queries:
    """The queries and filters of one file, by name."""

    __slots__ = ("_filters", "_queries", "source")

    def __init__(self, source: str, queries: Mapping[str, str], filters: Mapping[str, str]) -> None:
        self.source = source
        self._queries = queries
        self._filters = filters

    def __getitem__(self, name: str) -> str:
        """The text of a query."""
        try:
            return self._queries[name]
        except KeyError:
            raise LookupError(f"sql/{self.source}.sql has no query named {name}") from None

    def filter(self, name: str) -> str:
        """The text of a condition, with `?` where its parameter goes."""
        try:
            return self._filters[name]
        except KeyError:
            raise LookupError(f"sql/{self.source}.sql has no filter named {name}") from None

    @property
    def names(self) -> frozenset[str]:
        """Names of all queries in the file."""
        return frozenset(self._queries)


def read_queries(source: str, placeholders: Mapping[str, object] | None = None) -> Queries:
    """Read `sql/<source>.sql`, filling in the placeholders.

    Raises:
        ValueError: a section has no description, or two share a name.
    """
    text = (_FOLDER / f"{source}.sql").read_text(encoding="utf-8")
    matches = list(_SECTION.finditer(text))
    found: dict[str, dict[str, str]] = {"name": {}, "filter": {}}
    for match, following in zip(matches, [*matches[1:], None], strict=True):
        body = text[match.end() : following.start() if following else len(text)].strip()
        description, sql = _split(body)
        kind, name = match["kind"], match["name"]
        if not sql or (kind == "name" and not description) or name in found[kind]:
            raise ValueError(f"sql/{source}.sql: {kind} {name} is empty, undescribed or there twice")
        found[kind][name] = sql.format_map(placeholders or {})
    return Queries(source, found["name"], found["filter"])


def _split(body: str) -> tuple[str, str]:
    """Separate the leading comment from the statement."""
    lines = body.splitlines()
    count = next((index for index, line in enumerate(lines) if not line.startswith("--")), len(lines))
    return "\n".join(lines[:count]), "\n".join(lines[count:]).strip().rstrip(";")
