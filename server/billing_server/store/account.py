"""How accounts and their API keys are stored.

What an account sells and how it is set up are its pages: versioned as a whole, so that a process that keeps
a copy learns from one number whether it is stale.
"""

from __future__ import annotations

import msgspec

from billing_server.domain.account import Account, ApiKey
from billing_server.domain.automation import Automation
from billing_server.domain.catalog import Price, Product
from billing_server.domain.meter import Meter
from billing_server.store.listing import Filter
from billing_server.store.rows import Rows

ACCOUNTS = Rows(Account, "account", "accounts", "account_row")
API_KEYS = Rows(ApiKey, "api_key", "api_keys", "api_key_row")


class ApiKeyFilter(Filter[ApiKey], frozen=True, kw_only=True):
    """Which API keys to list."""

    revoked: bool | None = None


class ChangedPages(msgspec.Struct, frozen=True):
    """An account's pages as of `version`: the account whole, and what changed of the rest."""

    account: Account
    products: list[Product]
    prices: list[Price]
    meters: list[Meter]
    automations: list[Automation]
    version: int
