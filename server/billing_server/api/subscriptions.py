"""SubscriptionService: the life of subscriptions, and previews of what they will cost."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from billing.v1.message_model_pb2 import MessageKind
from billing.v1.subscription_service_pb2 import ForecastMessage, ForecastSubscriptionResponse
from billing_server.api.call import Call
from billing_server.api.endpoints import Edge, Endpoint, choice, command, get, listing, path_of, required, span, word_of
from billing_server.domain import commands as c
from billing_server.domain.errors import invalid
from billing_server.domain.forecast import Assumption, Forecast
from billing_server.domain.message import Message
from billing_server.domain.subscription import Subscription
from billing_server.store.subscription import SubscriptionFilter
from billing_server.wire.codec import check, decode, encode, encode_event

_PREVIEWED: Final[dict[str, type[c.Command]]] = {
    "create": c.CreateSubscription,
    "update": c.UpdateSubscription,
    "cancel": c.CancelSubscription,
    "resume": c.ResumeSubscription,
}


_FAILURES_MAX: Final = 1_000


def _subscriptions(request: Any) -> SubscriptionFilter:
    created_from, created_before = span(request, "created")
    enum_type = request.DESCRIPTOR.fields_by_name["statuses"].enum_type
    if 0 in request.statuses:
        raise invalid("statuses", "parameter_invalid_empty", "must not hold the unspecified status")
    statuses = tuple(word_of(enum_type, number) for number in request.statuses)
    return SubscriptionFilter(
        customer=request.customer or None,
        statuses=statuses or None,  # type: ignore[arg-type]  # the enum's words are the Literal's
        ended=None if statuses or request.include_ended else False,
        price=request.price or None,
        collection_method=choice(request, "collection_method"),
        test_clock=request.test_clock or None,
        created_from=created_from,
        created_before=created_before,
    )


async def _preview(edge: Edge, call: Call, request: Any) -> bytes:
    """The invoice that would come; the engine keeps nothing of it."""
    check(request)
    which = request.WhichOneof("preview")
    if which is None:
        raise invalid("preview", "parameter_missing", "name a subscription, or a command to preview")
    if which == "subscription":
        if not request.subscription:
            raise invalid("subscription", "parameter_invalid_empty", "must not be empty")
        invoice, now = await edge.engine.preview(call.account_id, None, request.subscription)
    else:
        nested = getattr(request, which)
        wanted = decode(nested, _PREVIEWED[which])
        invoice, now = await edge.engine.preview(call.account_id, wanted, None)
    return encode(invoice, now).SerializeToString()


async def _forecast(edge: Edge, call: Call, request: Any) -> bytes:
    """What will happen to a subscription; computed and encoded beside the event loop, for it may be long."""
    check(request)
    required(request, "id", "until")
    assumption = Assumption(payments=choice(request, "payments") or "succeed", failures=request.failures)
    if not 0 <= assumption.failures <= _FAILURES_MAX:
        raise invalid("failures", "parameter_invalid_integer", f"must be 0 to {_FAILURES_MAX}")
    found = await edge.engine.forecast(call.account_id, request.id, request.until.seconds, assumption)
    return await asyncio.to_thread(_forecast_bytes, call.account_id, found)


def _forecast_bytes(account_id: str, found: Forecast) -> bytes:
    response = ForecastSubscriptionResponse(subscription=encode(found.subscription))
    for event in found.events:
        response.events.add().MergeFromString(encode_event(account_id, event))
    response.messages.extend(map(_forecast_message, found.messages))
    return response.SerializeToString()


def _forecast_message(message: Message) -> ForecastMessage:
    facts = message.facts
    made = ForecastMessage(
        kind=MessageKind.Value(f"MESSAGE_KIND_{message.kind.upper()}"),
        recipient=message.recipient,
        invoice=facts.invoice or "",
        amount=facts.amount,
        currency=facts.currency or "",
    )
    made.created.seconds = message.created
    return made


ENDPOINTS: Final = (
    command("SubscriptionService/CreateSubscription", c.CreateSubscription),
    get("SubscriptionService/GetSubscription", Subscription, "subscription"),
    listing("SubscriptionService/ListSubscriptions", "subscriptions", _subscriptions),
    command("SubscriptionService/UpdateSubscription", c.UpdateSubscription),
    command("SubscriptionService/CancelSubscription", c.CancelSubscription),
    command("SubscriptionService/ResumeSubscription", c.ResumeSubscription),
    Endpoint(path_of("SubscriptionService/PreviewSubscriptionInvoice"), unary=_preview),
    Endpoint(path_of("SubscriptionService/ForecastSubscription"), unary=_forecast),
)
