"""AccountService: the account's settings and its API keys."""

from __future__ import annotations

import base64
import hmac
from typing import Any, Final

import msgspec

from billing.v1.account_service_pb2 import CreateApiKeyResponse
from billing_server.api.call import AUTHORIZATION_KEY, Call
from billing_server.api.endpoints import (
    Edge,
    Endpoint,
    caller_of,
    command,
    listing,
    path_of,
    required,
    response_of,
)
from billing_server.api.keys import secret_in
from billing_server.domain import commands as c
from billing_server.domain.errors import InvalidArgument, Violation
from billing_server.engine.api_keys import KEY_PREFIX, NewApiKey
from billing_server.store.account import ApiKeyFilter
from billing_server.wire.codec import check, encode
from billing_server.wire.contract import METHODS

EVERYTHING: Final = "*"
SCOPES: Final = frozenset({EVERYTHING, *(method.scope for method in METHODS.values())})
"""Every scope that a key can hold."""

_NAME_CHARACTERS_MAX: Final = 200


async def _get_account(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    async with edge.view(call) as view:
        return encode(await view.account()).SerializeToString()


async def _create_key(edge: Edge, call: Call, request: Any) -> bytes:
    """Make a key whose secret only the calling key can derive again, when the request is repeated.

    What is kept beside the idempotency key holds a salt in the secret's place, so that no secret is ever stored.
    """
    check(request)
    _check_new_key(call, request)
    calling_secret = secret_in(call.metadata.get(AUTHORIZATION_KEY)).encode()

    def secret_of(salt: str) -> str:
        digest = hmac.digest(calling_secret, b"api-key\0" + salt.encode(), "sha256")
        return KEY_PREFIX + base64.urlsafe_b64encode(digest).decode().rstrip("=")

    caller = caller_of(call, request, _encode_salted)
    scopes = sorted(set(request.scopes))
    answer = await edge.engine.issue_api_key(call.account_id, request.name, scopes, caller, secret_of)
    response = CreateApiKeyResponse.FromString(response_of(answer, _encode_salted))
    secret = secret_of(response.secret)
    # Another key may repeat the request with its idempotency key, but does not learn the secret.
    response.secret = secret if secret.endswith(response.api_key.last_four) else ""
    return response.SerializeToString()


def _encode_salted(made: msgspec.Struct, _now: int | None) -> bytes:
    assert isinstance(made, NewApiKey)
    return CreateApiKeyResponse(api_key=encode(made.key), secret=made.salt).SerializeToString()


def _encode_key(key: msgspec.Struct, _now: int | None) -> bytes:
    return encode(key).SerializeToString()


def _check_new_key(call: Call, request: Any) -> None:
    """Refuse a key without a name, and scopes that do not exist or that the caller does not hold."""
    violations = []
    if not request.name:
        violations.append(Violation("name", "parameter_missing", "is required"))
    elif len(request.name) > _NAME_CHARACTERS_MAX:
        violations.append(Violation("name", "parameter_invalid", f"has at most {_NAME_CHARACTERS_MAX} characters"))
    if not request.scopes:
        violations.append(Violation("scopes", "parameter_missing", "a key needs at least one scope"))
    for index, scope in enumerate(request.scopes):
        field = f"scopes[{index}]"
        if scope not in SCOPES:
            known = ", ".join(sorted(SCOPES))
            violations.append(Violation(field, "parameter_unknown", f"must be one of {known}"))
        elif not call.identity.may(scope):
            violations.append(Violation(field, "parameter_invalid", "the calling key does not hold this scope"))
    if violations:
        raise InvalidArgument(*violations)


def _keys(request: Any) -> ApiKeyFilter:
    return ApiKeyFilter(revoked=None if request.include_revoked else False)


async def _revoke_key(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    required(request, "id")
    answer = await edge.engine.revoke_api_key(call.account_id, request.id, caller_of(call, request, _encode_key))
    edge.key_ring.revoked(request.id)
    return response_of(answer, _encode_key)


ENDPOINTS: Final = (
    Endpoint(path_of("AccountService/GetAccount"), unary=_get_account),
    command("AccountService/UpdateSettings", c.UpdateSettings),
    Endpoint(path_of("AccountService/CreateApiKey"), unary=_create_key),
    listing("AccountService/ListApiKeys", "api_keys", _keys),
    Endpoint(path_of("AccountService/RevokeApiKey"), unary=_revoke_key),
)
