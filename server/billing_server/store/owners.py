"""Which customer an object belongs to, and so which book must be locked to change it.

An object never changes its customer, so the answer holds without a lock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from billing_server.domain.book import Target, TargetType
from billing_server.store.database import Connection
from billing_server.store.queries import read_queries

QUERIES: Final = read_queries("owners")

_TYPES: Final[tuple[TargetType, ...]] = (
    "subscription",
    "invoice",
    "invoice_item",
    "payment_method",
    "credit_note",
    "customer",
    "subscription_schedule",
    "automation_run",
)
"""In the order of the query's parameters."""

_TYPE_OF_PREFIX: Final[dict[str, TargetType]] = {
    "sub": "subscription",
    "sub_sched": "subscription_schedule",
    "in": "invoice",
    "ii": "invoice_item",
    "pm": "payment_method",
    "cn": "credit_note",
    "cus": "customer",
    "bautorun": "automation_run",
}


async def of_targets(connection: Connection, account_id: str, targets: Iterable[Target]) -> dict[Target, str]:
    """The customers of some objects; those that do not exist in the account are left out."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for target in targets:
        wanted[target.type].add(target.id)
    if not wanted:
        return {}
    parameters = [sorted(wanted[type_]) for type_ in _TYPES]
    records = await connection.fetch(QUERIES["of_types"], account_id, *parameters)
    return {Target(record[0], record[1]): record[2] for record in records}


async def of_ids(connection: Connection, account_id: str, ids: Iterable[str]) -> dict[str, str]:
    """The customers of some objects, whose types are told by their ids' prefixes."""
    typed = [(_TYPE_OF_PREFIX.get(object_id.rpartition("_")[0]), object_id) for object_id in ids]
    targets = [Target(type_, object_id) for type_, object_id in typed if type_ is not None]
    found = await of_targets(connection, account_id, targets)
    return {target.id: customer for target, customer in found.items()}
