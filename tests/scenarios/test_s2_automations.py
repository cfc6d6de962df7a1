"""S2: automations and their runs through the RPCs (scenarios 31 to 49), and how they are managed."""

from __future__ import annotations

from typing import Any

import pytest

from billing_client import BillingClient, BillingError
from billing_server.bootstrap import Server
from billing_server.engine import engine
from billing_server.engine.runs_in_flight import end_runs_in_flight
from billing_server.store.errors import StoreUnavailable
from tests.scenarios.test_mail import messages
from tests.scenarios.world import BAD, OK, World, at, base, word

FAILS = "subscription_payment_fails"
MAIL = {"type": "send_team_email", "recipients": ["ops@acme.test"]}
DAY = 86_400


async def sent(world: World, amount: int = 3100, days: int = 30, **fields: Any) -> Any:
    """A subscription whose invoices are sent."""
    customer = await world.customer(**fields)
    return await world.subscribe(
        customer, await world.price(amount), collection_method="send_invoice", days_until_due=days
    )


async def test_31_without_a_policy_there_are_no_retries(server: Server, client: BillingClient) -> None:
    world, customer, subscription = await base(client, company_domain="acme.test")
    await world.automate(FAILS, MAIL)
    await world.advance("2025-02-01T01:00")
    assert [found.kind for found in await messages(server, world)].count("team_memo") == 1
    await world.advance("2025-02-28")
    invoice = await world.latest(subscription)
    assert (invoice.attempt_count, word(invoice, "status"), invoice.auto_advance) == (1, "open", True)
    assert await world.status(subscription) == "past_due"
    (run,) = await world.runs(customer=customer)
    assert word(run, "status") == "completed"


async def test_32_the_amount_decides(client: BillingClient) -> None:
    world, _, monthly = await base(client)
    await world.automate(
        FAILS, {"type": "cancel_subscription"}, conditions=[{"type": "invoice_amount", "more_than": 10_000}]
    )
    customer = await world.customer(OK)
    yearly = (
        await world.subscribe(
            customer, await world.price(12_000, "year"), trial_end=at("2025-02-01"), proration_behavior="none"
        )
    ).id
    await world.card(customer, BAD)
    await world.advance("2025-02-01T01:00")
    assert [run.subscription for run in await world.runs()] == [yearly]
    assert await world.status(yearly) == "canceled"
    assert (await world.latest(monthly)).next_payment_attempt.seconds == at("2025-02-04T01:00")


async def test_35_without_a_match_the_settings_plan(client: BillingClient) -> None:
    world, customer, _subscription = await base(client)
    await world.automate(
        FAILS, {"type": "cancel_subscription"}, conditions=[{"type": "customer_metadata", "key": "vip", "value": "yes"}]
    )
    await world.advance("2025-02-01T01:00")
    (failed,) = await world.events("invoice.payment_failed")
    assert failed.invoice.next_payment_attempt.seconds == 1_738_630_800
    assert not await world.runs(customer=customer)


@pytest.mark.parametrize("paid", [False, True])
async def test_36_told_before_the_due_date(client: BillingClient, paid: bool) -> None:
    world = await World.begin(client, "2025-01-01")
    await world.automate(
        "invoice_due_date_upcoming", {"type": "send_invoice_will_be_due_webhook", "before_due_seconds": 7 * DAY}
    )
    subscription = (await sent(world)).id
    await world.advance("2025-01-20")
    invoice = await world.latest(subscription)
    assert invoice.due_date.seconds == 1_738_281_600
    if paid:
        await world.call("invoices", "PayInvoice", id=invoice.id, paid_out_of_band=True)
    await world.advance("2025-02-01")
    told = [event.created.seconds for event in await world.events("invoice.will_be_due")]
    assert told == ([] if paid else [1_737_676_800])
    run = next(run for run in await world.runs() if run.invoice == invoice.id)
    assert word(run, "end_reason") == ("invoice_paid" if paid else "completed")


async def test_37_invoices_that_are_charged_have_no_due_date(client: BillingClient) -> None:
    world, _, _ = await base(client, then=None)
    await world.automate(
        "invoice_due_date_upcoming", {"type": "send_invoice_will_be_due_webhook", "before_due_seconds": DAY}
    )
    await world.advance("2025-04-01")
    assert not await world.runs()


async def test_38_a_finalized_invoice_is_given_up(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    await world.automate(
        "invoice_finalized",
        {"type": "mark_invoice_uncollectible", "delay_seconds": 30 * DAY},
        conditions=[{"type": "customer_metadata", "key": "segment", "value": "x"}],
    )
    subscription = (await sent(world, days=90, metadata={"segment": "x"})).id
    await sent(world, days=90, metadata={"segment": "y"})
    await world.advance("2025-01-31T00:59:59")
    invoice = await world.latest(subscription)
    assert word(invoice, "status") == "open"
    assert len(await world.runs()) == 1
    await world.advance("2025-01-31T01:00")
    assert word(await world.invoice(invoice.id), "status") == "uncollectible"


async def test_41_pairs_that_do_not_go_together_are_refused(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    policy = {"type": "start_retry_policy", "retry_policy": {"kind": "custom", "retry_days": [1]}}
    for trigger, action in (("invoice_finalized", {"type": "send_cancellation_email"}), ("invoice_overdue", policy)):
        with pytest.raises(BillingError) as refused:
            await world.automate(trigger, action)
        (violation,) = refused.value.violations
        assert (violation.field, refused.value.reason) == ("actions[0].type", "AUTOMATION_PAIR_INVALID")
        assert {trigger, action["type"]} <= set(violation.description.replace(",", " ").replace(";", " ").split())


async def test_the_whole_matrix_is_described_and_obeyed(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    await world.settings(company_domain="acme.test")
    price = await world.price(100)
    product = (await world.call("catalog", "GetPrice", id=price)).product
    described = await world.call("automations", "DescribeAutomationCapabilities")
    parameters: dict[str, Any] = {
        "retry_policy": {"kind": "smart"},
        "recipients": ["ops@acme.test"],
        "price": price,
        "amount": 100,
        "currency": "usd",
        "key": "a",
        "value": "b",
        "segments": ["x"],
        "more_than": 5,
        "interval": "monthly",
        "products": [product],
        "prices": [price],
    }

    def part(capability: Any) -> dict[str, Any]:
        names = [p.name for p in capability.parameters if p.required] or ["more_than"]
        taken = {p.name for p in capability.parameters}
        return {"type": word(capability, "type")} | {n: parameters[n] for n in names if n in taken}

    tried = refused = 0
    for trigger in described.triggers:
        timed = {"before_due_seconds": DAY} if word(trigger, "timing") == "before_due" else {}
        fitting = {"type": "send_team_email", "recipients": ["ops@acme.test"], **timed}
        for capability in (*described.conditions, *described.actions):
            is_action = capability in list(described.actions)
            allowed = capability.type in (trigger.actions if is_action else trigger.conditions)
            assert allowed == (trigger.trigger in capability.triggers)
            actions = [part(capability) | timed] if is_action else [fitting]
            conditions = [] if is_action else [part(capability)]
            tried += 1
            try:
                await world.automate(word(trigger, "trigger"), *actions, conditions=conditions)
                assert allowed, (trigger, capability)
            except BillingError as error:
                refused += 1
                assert not allowed, (trigger, capability, error)
                assert error.reason == "AUTOMATION_PAIR_INVALID"
    assert tried == 6 * (8 + 10)
    assert refused == tried - sum(len(t.actions) + len(t.conditions) for t in described.triggers)


async def test_43_what_happened_while_disabled_starts_nothing(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    made = await world.automate("invoice_finalized", {"type": "mark_invoice_uncollectible", "delay_seconds": DAY})
    await world.call("automations", "DisableAutomation", id=made.id)
    first = (await sent(world)).id
    await world.advance("2025-01-10")
    await world.call("automations", "EnableAutomation", id=made.id)
    await world.advance("2025-01-20")
    assert not await world.runs()
    assert word(await world.latest(first), "status") == "open"
    second = (await sent(world)).id
    await world.advance("2025-01-25")
    assert [run.subscription for run in await world.runs()] == [second]


async def test_45_a_delay_after_the_cancellation_never_comes(client: BillingClient) -> None:
    world, customer, subscription = await base(client)
    await world.automate(
        FAILS, {"type": "cancel_subscription"}, {"type": "mark_invoice_uncollectible", "delay_seconds": DAY}
    )
    await world.advance("2025-02-10")
    assert await world.status(subscription) == "canceled"
    assert (await world.subscription(subscription)).ended_at.seconds == at("2025-02-01T01:00")
    invoice = await world.latest(subscription)
    assert (word(invoice, "status"), invoice.auto_advance) == ("open", False)
    (run,) = await world.runs(customer=customer)
    assert (word(run, "status"), word(run, "end_reason")) == ("terminated", "subscription_canceled")
    assert run.ended_at.seconds == at("2025-02-01T01:00")


async def test_46_only_the_first_failure_starts_a_run(client: BillingClient) -> None:
    world, customer, subscription = await base(client)
    await world.automate(
        FAILS, {"type": "start_retry_policy", "retry_policy": {"kind": "custom", "retry_days": [1, 1]}}
    )
    await world.advance("2025-02-10")
    assert (await world.latest(subscription)).attempt_count == 3
    assert len(await world.runs(customer=customer)) == 1


async def test_47_one_of_some_products(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    a, b, c = [await world.product(name) for name in "ABC"]
    prices = {name: await world.price(100, product=name) for name in (b, c)}
    await world.automate(
        "invoice_finalized",
        {"type": "mark_invoice_uncollectible", "delay_seconds": DAY},
        conditions=[{"type": "product", "products": [a, b]}],
    )
    send: dict[str, Any] = {"collection_method": "send_invoice", "days_until_due": 30}
    both = await world.subscribe(await world.customer(), prices[b], prices[c], **send)
    await world.subscribe(await world.customer(), prices[c], **send)
    await world.advance("2025-01-02")
    assert [run.subscription for run in await world.runs()] == [both.id]


async def test_49_an_invoice_that_does_not_advance_starts_nothing(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    await world.automate("invoice_finalized", {"type": "mark_invoice_uncollectible"})
    customer = await world.customer()
    await world.call("invoices", "CreateInvoiceItem", customer=customer, amount=500, currency="usd")
    invoice = await world.call(
        "invoices",
        "CreateInvoice",
        customer=customer,
        auto_advance=False,
        pending_invoice_items_behavior="include",
    )
    await world.call("invoices", "FinalizeInvoice", id=invoice.id)
    assert not await world.runs()


# --- managing them


async def test_the_first_by_priority_runs_and_the_order_can_be_changed(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    give_up = {"type": "mark_invoice_uncollectible", "delay_seconds": DAY}
    first, second, third = [
        await world.automate("invoice_finalized", give_up, name=name) for name in ("first", "second", "third")
    ]
    assert [made.priority for made in (first, second, third)] == [1, 2, 3]
    await sent(world)
    await world.advance("2025-01-01T01:00")
    assert [run.automation for run in await world.runs()] == [first.id]

    with pytest.raises(BillingError, match="ReorderAutomations"):
        await world.automate("invoice_finalized", give_up, priority=2)
    with pytest.raises(BillingError) as refused:
        await world.call("automations", "ReorderAutomations", trigger="invoice_finalized", ids=[first.id, third.id])
    assert second.id in refused.value.violations[0].description
    ordered = await world.call(
        "automations", "ReorderAutomations", trigger="invoice_finalized", ids=[third.id, first.id, second.id]
    )
    assert [(made.id, made.priority) for made in ordered.automations] == [
        (third.id, 1),
        (first.id, 2),
        (second.id, 3),
    ]
    await sent(world)
    await world.advance("2025-01-01T02:00")
    assert [run.automation for run in await world.runs()] == [first.id, third.id]
    assert [event.automation.id for event in await world.events("automation.updated")] == [
        third.id,
        first.id,
        second.id,
    ]


@pytest.mark.parametrize("method", ["DisableAutomation", "DeleteAutomation"])
@pytest.mark.parametrize("choice", ["let_finish", "cancel_all"])
async def test_runs_in_flight_finish_or_end(client: BillingClient, method: str, choice: str) -> None:
    world = await World.begin(client, "2025-01-01")
    made = await world.automate("invoice_finalized", {"type": "mark_invoice_uncollectible", "delay_seconds": DAY})
    subscriptions = [(await sent(world)).id for _ in range(3)]
    await world.advance("2025-01-01T02:00")
    assert [word(run, "status") for run in await world.runs()] == ["running"] * 3

    changed = await world.call("automations", method, id=made.id, runs_in_flight=choice)
    assert (changed.enabled, changed.deleted) == (False, method == "DeleteAutomation")
    runs = await world.runs(automation=made.id)
    assert [word(run, "status") for run in runs] == ["running" if choice == "let_finish" else "canceled"] * 3
    await world.advance("2025-01-05")
    ended = "uncollectible" if choice == "let_finish" else "open"
    assert [word(await world.latest(found), "status") for found in subscriptions] == [ended] * 3
    await sent(world)
    await world.advance("2025-01-06")
    assert len(await world.runs()) == 3, "it starts no more"
    listed = (await world.call("automations", "ListAutomations")).automations
    assert [found.id for found in listed] == ([] if method == "DeleteAutomation" else [made.id])
    assert (await world.call("automations", "GetAutomation", id=made.id)).deleted == (method == "DeleteAutomation")
    if method == "DeleteAutomation":
        for change in ("EnableAutomation", "DeleteAutomation"):
            with pytest.raises(BillingError, match="was deleted"):
                await world.call("automations", change, id=made.id)


async def test_runs_end_by_the_mark_when_nobody_was_left_to_end_them(
    client: BillingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies between marking the automation and ending its runs."""

    async def died(*_: Any) -> int:
        return 0

    monkeypatch.setattr(engine, "end_runs_in_flight", died)
    world = await World.begin(client, "2025-01-01")
    made = await world.automate("invoice_finalized", {"type": "mark_invoice_uncollectible", "delay_seconds": DAY})
    subscription = (await sent(world)).id
    await world.advance("2025-01-01T02:00")
    await world.call("automations", "DisableAutomation", id=made.id, runs_in_flight="cancel_all")
    assert [word(run, "status") for run in await world.runs()] == ["running"]
    await world.call("automations", "EnableAutomation", id=made.id)
    later = (await sent(world)).id
    await world.advance("2025-01-05")
    runs = {run.subscription: word(run, "status") for run in await world.runs()}
    assert runs == {subscription: "canceled", later: "completed"}
    assert word(await world.latest(subscription), "status") == "open"


async def test_a_repeated_request_ends_the_runs_that_the_first_one_left(
    client: BillingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away after the automation was marked; the client repeats its request with the same key."""
    calls = 0

    async def failing_once(*arguments: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoreUnavailable("the database went away")
        return await end_runs_in_flight(*arguments)

    monkeypatch.setattr(engine, "end_runs_in_flight", failing_once)
    world = await World.begin(client, "2025-01-01")
    made = await world.automate("invoice_finalized", {"type": "mark_invoice_uncollectible", "delay_seconds": DAY})
    await sent(world)
    await world.advance("2025-01-01T02:00")
    changed = await world.call("automations", "DisableAutomation", id=made.id, runs_in_flight="cancel_all")
    assert (calls, changed.enabled) == (2, False)
    assert [word(run, "status") for run in await world.runs()] == ["canceled"]
    assert len(await world.events("automation.updated")) == 1


async def test_a_run_keeps_the_definition_that_it_started_with(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    made = await world.automate("invoice_finalized", {"type": "mark_invoice_uncollectible", "delay_seconds": DAY})
    subscription = (await sent(world)).id
    await world.advance("2025-01-01T02:00")
    later = {"type": "mark_invoice_uncollectible", "delay_seconds": 90 * DAY}
    changed = await world.call("automations", "UpdateAutomation", id=made.id, actions=[later], name="Patient")
    assert (changed.name, changed.actions[0].delay_seconds) == ("Patient", 90 * DAY)
    await world.advance("2025-01-03")
    assert word(await world.latest(subscription), "status") == "uncollectible"
    with pytest.raises(BillingError) as refused:
        await world.call(
            "automations", "UpdateAutomation", id=made.id, actions=[{"type": "send_cancellation_email"}], etag=made.etag
        )
    assert refused.value.reason == "ETAG_MISMATCH"
    with pytest.raises(BillingError) as refused:
        await world.call("automations", "UpdateAutomation", id=made.id, actions=[{"type": "send_cancellation_email"}])
    assert refused.value.reason == "AUTOMATION_PAIR_INVALID"


async def test_the_events_of_automations_and_runs_are_found_by_their_ids(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    made = await world.automate("customer_created", {"type": "credit_customer_balance", "amount": 1, "currency": "usd"})
    await world.customer()
    (run,) = await world.runs()
    await world.call("automations", "DeleteAutomation", id=made.id)
    for identity, types in (
        (made.id, ["automation.created", "automation.deleted"]),
        (run.id, ["automation_run.created", "automation_run.updated"]),
    ):
        stream = client.events(after_position=0, object_ids=[identity], stop_when_caught_up=True)
        assert [event.type async for event in stream] == types
    credited = [event async for event in client.events(after_position=0, types=["*"], stop_when_caught_up=True)]
    causes = {event.cause.automation_run for event in credited if event.cause.automation_run}
    assert causes == {run.id}, "what a run does says so"


async def test_a_run_is_canceled_by_hand(client: BillingClient) -> None:
    world, customer, subscription = await base(client)
    await world.automate(
        FAILS, {"type": "start_retry_policy", "retry_policy": {"kind": "custom", "retry_days": [1, 1]}}
    )
    await world.advance("2025-02-02T01:00")
    (run,) = await world.runs(customer=customer, status="running")
    canceled = await world.call("automations", "CancelAutomationRun", id=run.id)
    assert (word(canceled, "status"), word(canceled, "end_reason")) == ("canceled", "canceled_by_user")
    await world.advance("2025-03-01")
    assert (await world.invoices(subscription))[1].attempt_count == 2
    with pytest.raises(BillingError) as refused:
        await world.call("automations", "CancelAutomationRun", id=run.id)
    assert refused.value.reason == "AUTOMATION_RUN_ENDED"
    told = [event.type for event in await world.events("automation_run.*")]
    assert (told[0], set(told[1:])) == ("automation_run.created", {"automation_run.updated"})


async def test_all_that_is_wrong_is_told_at_once(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    one_time = await world.one_time(100)
    with pytest.raises(BillingError) as refused:
        await world.automate(
            "customer_created",
            {"type": "create_subscription", "price": one_time, "delay_seconds": 731 * DAY},
            {"type": "credit_customer_balance", "amount": 0, "currency": "xxx"},
            {"type": "send_team_email", "memo": "m" * 2001},
            {"type": "send_cancellation_email", "survey_url": "http://acme.test"},
            conditions=[
                {"type": "customer_metadata", "key": "a"},
                {"type": "invoice_amount"},
                {"type": "customer_segment", "segments": ["x"], "interval": "monthly"},
            ],
        )
    assert [violation.field for violation in refused.value.violations] == [
        "conditions[0].value",
        "conditions[1].more_than",
        "conditions[2].interval",
        "actions[0].delay_seconds",
        "actions[1].amount",
        "actions[1].currency",
        "actions[2].memo",
        "actions[2].recipients",
        "actions[3].survey_url",
        "conditions[1].type",
        "actions[3].type",
    ]
    with pytest.raises(BillingError) as refused:
        await world.automate("customer_created", {"type": "create_subscription", "price": one_time})
    assert refused.value.reason == "PRICE_TYPE_INVALID"
    with pytest.raises(BillingError) as refused:
        await world.automate("customer_created", {"type": "create_subscription", "price": "price_none"})
    assert (refused.value.reason, refused.value.violations[0].field) == ("RESOURCE_MISSING", "actions[0].price")
