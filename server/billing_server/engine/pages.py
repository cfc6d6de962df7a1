"""The accounts' pages as this process knows them, brought up to date by version."""

from __future__ import annotations

from collections import OrderedDict

from billing_server.domain.catalog import Catalog
from billing_server.domain.turn import Pages
from billing_server.store.account import ChangedPages
from billing_server.store.unit import Unit

_ACCOUNTS_MAX = 1_000


def pages_of(whole: ChangedPages) -> Pages:
    """Pages that were loaded as a whole."""
    catalog = Catalog(
        {product.id: product for product in whole.products},
        {price.id: price for price in whole.prices},
        {meter.id: meter for meter in whole.meters},
    )
    return Pages(whole.account, catalog, whole.version, tuple(whole.automations))


class PagesCache:
    """Pages by account. Only what changed since the known version is loaded again."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Pages] = OrderedDict()

    async def at(self, unit: Unit, version: int) -> Pages:
        """The pages of the unit's account in this version (or a later one, which other processes just made)."""
        known = self._known.get(unit.account_id)
        if known is not None and known.version >= version:
            self._known.move_to_end(unit.account_id)
            return known
        return await self.load(unit)

    async def load(self, unit: Unit, *, lock: bool = False) -> Pages:
        """The pages as they are now; with `lock` nobody else changes them until the unit ends."""
        known = self._known.get(unit.account_id)
        changed = await unit.load_pages(0 if known is None else known.version, lock=lock)
        products = {} if known is None else dict(known.catalog.products)
        prices = {} if known is None else dict(known.catalog.prices)
        meters = {} if known is None else dict(known.catalog.meters)
        products.update((product.id, product) for product in changed.products)
        prices.update((price.id, price) for price in changed.prices)
        meters.update((meter.id, meter) for meter in changed.meters)
        automations = {} if known is None else {automation.id: automation for automation in known.automations}
        automations.update((automation.id, automation) for automation in changed.automations)
        catalog = Catalog(products, prices, meters)
        pages = Pages(changed.account, catalog, changed.version, tuple(automations.values()))
        if not lock:
            self._known[unit.account_id] = pages
            while len(self._known) > _ACCOUNTS_MAX:
                self._known.popitem(last=False)
        return pages
