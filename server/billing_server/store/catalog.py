"""How products and prices are stored and listed."""

from __future__ import annotations

from billing_server.domain.catalog import Price, Product
from billing_server.store.listing import Filter
from billing_server.store.rows import Rows

PRODUCTS = Rows(Product, "product", "products", "product_row")
PRICES = Rows(Price, "price", "prices", "price_row_2")


class ProductFilter(Filter[Product], frozen=True, kw_only=True):
    """Which products to list."""

    active: bool | None = None


class PriceFilter(Filter[Price], frozen=True, kw_only=True):
    """Which prices to list."""

    product: str | None = None
    active: bool | None = None
    lookup_keys: tuple[str, ...] | None = None
