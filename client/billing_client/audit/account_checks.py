"""What belongs to the account as a whole: the catalog, and what must be unique among customers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from billing_client.audit.book import Shared
from billing_client.audit.check import Finding

PREFIXES: Final = "invoice_prefixes"
CATALOG: Final = "links_of_catalog"
LOOKUP_KEYS: Final = "price_lookup_keys"

ACCOUNT_CHECKS: Final = (PREFIXES, CATALOG, LOOKUP_KEYS)
"""Names of the checks of this module."""


def invoice_prefixes(shared_prefixes: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """No two customers have the same invoice prefix, or their numbers would be the same."""
    for customer, prefix in shared_prefixes:
        yield Finding(PREFIXES, customer, customer, f"its invoice prefix {prefix} is that of another customer too")


def links_of_catalog(shared: Shared) -> Iterator[Finding]:
    """A price's product exists, and so does a product's default price, as one of its own."""
    for price in shared.prices.values():
        if price.product not in shared.products:
            yield Finding(CATALOG, "", price.id, f"there is no product {price.product}")
    for product in shared.products.values():
        default = shared.prices.get(product.default_price)
        if product.default_price and (default is None or default.product != product.id):
            yield Finding(CATALOG, "", product.id, f"it has no price {product.default_price}")


def price_lookup_keys(shared: Shared) -> Iterator[Finding]:
    """A lookup key finds one price."""
    first: dict[str, str] = {}
    for price in shared.prices.values():
        if price.lookup_key and first.setdefault(price.lookup_key, price.id) != price.id:
            other = first[price.lookup_key]
            yield Finding(LOOKUP_KEYS, "", price.id, f"its lookup key {price.lookup_key} finds {other} as well")
