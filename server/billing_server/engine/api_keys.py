"""API keys: made, and made worthless. A secret is kept nowhere, only its hash."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence

import msgspec

from billing_server.domain.account import ApiKey
from billing_server.domain.errors import ResourceMissing
from billing_server.domain.event import Event
from billing_server.engine.door import Door
from billing_server.engine.ids import IdSource
from billing_server.engine.once import once
from billing_server.engine.work import Answer, Caller
from billing_server.store.store import Store
from billing_server.store.unit import Opening, Unit

KEY_PREFIX = "sk_"
_KEY_BYTES = 32


class NewApiKey(msgspec.Struct, frozen=True):
    """A key's record, and the salt from which its maker derives the secret again when the request is repeated."""

    key: ApiKey
    salt: str


class ApiKeys:
    """Makes and revokes the keys of accounts."""

    def __init__(self, store: Store, door: Door, new_id: IdSource) -> None:
        self._store = store
        self._door = door
        self._new_id = new_id

    async def create(
        self, account_id: str, name: str, scopes: Sequence[str], caller: Caller, secret_of: Callable[[str], str]
    ) -> Answer:
        """A new key as `NewApiKey`. `secret_of` makes the secret of a salt, always the same of the same."""
        salt = secrets.token_urlsafe(_KEY_BYTES)
        secret = secret_of(salt)

        async def change(unit: Unit, opening: Opening) -> tuple[msgspec.Struct, Sequence[Event]]:
            key = ApiKey(
                id=self._new_id("key"),
                created=opening.now,
                name=name,
                scopes=tuple(scopes),
                last_four=secret[-4:],
            )
            await unit.insert_api_key(key, hash_of(secret))
            return NewApiKey(key, salt), ()

        return await once(self._door, account_id, caller, change)

    async def revoke(self, account_id: str, key_id: str, caller: Caller) -> Answer:
        """Make a key worthless at once; a key that is so already stays as it is. Raises ResourceMissing."""
        async with self._store.view(account_id) as view:
            known = await view.get_many(ApiKey, [key_id])

        async def change(unit: Unit, opening: Opening) -> tuple[msgspec.Struct, Sequence[Event]]:
            if not known:
                raise ResourceMissing("api_key", key_id)
            if known[0].revoked_at is not None:
                return known[0], ()
            key = msgspec.structs.replace(known[0], revoked_at=opening.now, version=known[0].version + 1)
            await unit.update_api_key(key)
            return key, ()

        return await once(self._door, account_id, caller, change)


def hash_of(secret: str) -> bytes:
    """What is kept of a secret. Keys are long and random, so one plain hash is enough."""
    return hashlib.sha256(secret.encode()).digest()
