"""API keys: who a secret belongs to.

A key that was found is remembered for a few seconds, so most calls need no query. A key that is revoked in this
process is forgotten at once; in other processes its calls are refused, and its streams end, within those seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from billing_server.api.call import AUTHORIZATION_KEY, Identity
from billing_server.api.refusals import Unauthenticated
from billing_server.engine.api_keys import hash_of
from billing_server.store.store import Store

REMEMBERED_SECONDS: Final = 3.0
_REMEMBERED_MAX: Final = 10_000
_LOOKUPS_AT_ONCE_MAX: Final = 4
_SCHEME: Final = "bearer "
_SECRET_CHARACTERS_MAX: Final = 256

_NONE: Final = "send the metadata 'authorization: Bearer <API key>'"
_UNKNOWN: Final = "the API key is unknown or revoked"

Revoked = Callable[[str], None]


class KeyRing:
    """Finds keys by their secrets, and tells who waits for it that one was revoked."""

    def __init__(self, store: Store, *, remembered_seconds: float = REMEMBERED_SECONDS) -> None:
        self._store = store
        self._remembered_seconds = remembered_seconds
        self._remembered: dict[bytes, tuple[Identity, float]] = {}
        self._gone: set[str] = set()
        self._asking: dict[bytes, asyncio.Task[Identity | None]] = {}
        self._lookups = asyncio.Semaphore(_LOOKUPS_AT_ONCE_MAX)
        self.on_revoked: Revoked | None = None

    async def identify(self, authorization: str | None) -> Identity:
        """Whom the value of the metadata key `authorization` stands for. Raises Unauthenticated."""
        secret_hash = hash_of(secret_in(authorization))
        remembered = self._remembered.get(secret_hash)
        if remembered is not None and remembered[1] > time.monotonic():
            return remembered[0]
        identity = await self.look_up(secret_hash)
        if identity is None:
            raise Unauthenticated(_UNKNOWN)
        return identity

    async def look_up(self, secret_hash: bytes) -> Identity | None:
        """Ask the store for a key that works; concurrent questions about one key are asked once."""
        asking = self._asking.get(secret_hash)
        if asking is None:
            asking = asyncio.create_task(self._ask(secret_hash))
            self._asking[secret_hash] = asking
            asking.add_done_callback(lambda _: self._asking.pop(secret_hash, None))
        return await asyncio.shield(asking)

    async def _ask(self, secret_hash: bytes) -> Identity | None:
        # Guessed keys must not use up the connections that calls need.
        async with self._lookups:
            found = await self._store.find_api_key(secret_hash)
        if found is None or found[1].revoked_at is not None:
            self._remembered.pop(secret_hash, None)
            return None
        account_id, key = found
        if key.id in self._gone:
            # It was found just before it was revoked.
            return None
        identity = Identity(account_id, key.id, frozenset(key.scopes), secret_hash)
        self._remember(identity)
        return identity

    def _remember(self, identity: Identity) -> None:
        if len(self._remembered) >= _REMEMBERED_MAX:
            self._remembered.clear()
        self._remembered[identity.secret_hash] = (identity, time.monotonic() + self._remembered_seconds)

    def revoked(self, key_id: str) -> None:
        """Forget a key that was just revoked, and end what goes on in its name."""
        self._gone.add(key_id)
        for secret_hash, (identity, _) in list(self._remembered.items()):
            if identity.key_id == key_id:
                del self._remembered[secret_hash]
        if self.on_revoked is not None:
            self.on_revoked(key_id)


def secret_in(authorization: str | None) -> str:
    """The API key in the value of the metadata key `authorization`. Raises Unauthenticated."""
    if authorization is None:
        raise Unauthenticated(_NONE)
    scheme, secret = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :].strip()
    if scheme.lower() != _SCHEME or not secret or len(secret) > _SECRET_CHARACTERS_MAX:
        raise Unauthenticated(f"{AUTHORIZATION_KEY} is not understood: {_NONE}")
    return secret
