"""CatalogService: products and their prices."""

from __future__ import annotations

from typing import Any, Final

from billing_server.api.endpoints import command, get, listing
from billing_server.domain import commands as c
from billing_server.domain.catalog import Price, Product
from billing_server.store.catalog import PriceFilter, ProductFilter


def _products(request: Any) -> ProductFilter:
    return ProductFilter(active=request.active if request.HasField("active") else None)


def _prices(request: Any) -> PriceFilter:
    return PriceFilter(
        product=request.product or None,
        active=request.active if request.HasField("active") else None,
        lookup_keys=tuple(request.lookup_keys) or None,
    )


ENDPOINTS: Final = (
    command("CatalogService/CreateProduct", c.CreateProduct),
    get("CatalogService/GetProduct", Product, "product"),
    listing("CatalogService/ListProducts", "products", _products),
    command("CatalogService/UpdateProduct", c.UpdateProduct),
    command("CatalogService/CreatePrice", c.CreatePrice),
    get("CatalogService/GetPrice", Price, "price"),
    listing("CatalogService/ListPrices", "prices", _prices),
    command("CatalogService/UpdatePrice", c.UpdatePrice),
)
