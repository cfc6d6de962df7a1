"""AccountService: the account's settings and its API keys."""

from __future__ import annotations

from typing import Any, Final

from billing.v1.account_service_pb2 import CreateApiKeyResponse
from billing_server.api.call import Call
from billing_server.api.endpoints import Edge, Endpoint, command, listing, path_of, required
from billing_server.domain import commands as c
from billing_server.domain.errors import InvalidArgument, Violation
from billing_server.store.account import ApiKeyFilter
from billing_server.wire.codec import check, encode
from billing_server.wire.contract import METHODS

EVERYTHING: Final = "*"
SCOPES: Final = frozenset({EVERYTHING, *(method.scope for method in METHODS.values())})
"""Every scope that a key can hold."""

_NAME_CHARACTERS_MAX: Final = 200


async def _get_account(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    async with edge.engine.store.view(call.account_id) as view:
        return encode(await view.account()).SerializeToString()


async def _create_key(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    _check_new_key(call, request)
    scopes = sorted(set(request.scopes))
    key, secret = await edge.engine.create_api_key(call.account_id, request.name, scopes)
    return CreateApiKeyResponse(api_key=encode(key), secret=secret).SerializeToString()


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
    key = await edge.engine.revoke_api_key(call.account_id, request.id)
    edge.key_ring.revoked(key.id)
    return encode(key).SerializeToString()


ENDPOINTS: Final = (
    Endpoint(path_of("AccountService/GetAccount"), unary=_get_account),
    command("AccountService/UpdateSettings", c.UpdateSettings),
    Endpoint(path_of("AccountService/CreateApiKey"), unary=_create_key),
    listing("AccountService/ListApiKeys", "api_keys", _keys),
    Endpoint(path_of("AccountService/RevokeApiKey"), unary=_revoke_key),
)
