"""Dry runs and backtests, against what really happens afterwards and what really happened."""

from __future__ import annotations

import random
from typing import Any

import pytest

from billing_client import BillingClient, BillingError
from billing_server.engine import backtest as backtests
from tests.scenarios.world import BAD, OK, World, at, base, word

FAILS = "subscription_payment_fails"
DAY = 86_400


async def test_a_dry_run_says_of_each_why_it_runs_or_not(client: BillingClient) -> None:
    world, _customer, subscription = await base(client)
    cancel = {"type": "cancel_subscription"}
    rich = {"type": "invoice_amount", "more_than": 5_000}
    monthly = {"type": "subscription_interval", "interval": "monthly"}
    high = await world.automate(FAILS, cancel, conditions=[monthly, rich], name="high")
    off = await world.automate(FAILS, cancel, name="off", enabled=False)
    fits = await world.automate(FAILS, cancel, conditions=[monthly], name="fits")
    late = await world.automate(FAILS, cancel, name="late")
    await world.advance("2025-02-01")
    invoice = (await world.latest(subscription)).id

    found = await world.call("automations", "DryRunAutomation", invoice=invoice, trigger=FAILS)
    assert word(found, "trigger") == FAILS
    assert (found.automation, list(found.obstacles)) == (fits.id, [])
    assert [(c.automation, c.runs, c.explanation) for c in found.candidates] == [
        (high.id, False, "invoice_amount does not hold: the amount is 31.00 USD"),
        (off.id, False, "it is disabled"),
        (fits.id, True, "all its conditions hold, and none before it runs"),
        (late.id, False, f"'fits' ({fits.id}) comes before it and runs"),
    ]
    assert [(word(e.condition, "type"), e.holds) for e in found.candidates[0].conditions] == [
        ("subscription_interval", True),
        ("invoice_amount", False),
    ]

    await world.advance("2025-02-01T01:00")
    assert [run.automation for run in await world.runs()] == [fits.id], "what the dry run foretold"
    again = await world.call("automations", "DryRunAutomation", invoice=invoice)
    assert word(again, "trigger") == FAILS
    assert [text for text in again.obstacles if "first failure" in text]


async def test_a_dry_run_derives_its_trigger_and_checks_its_subject(client: BillingClient) -> None:
    world, customer, subscription = await base(client, then=None)
    for subject, trigger in (
        ({"customer": customer}, "customer_created"),
        ({"subscription": subscription}, "subscription_canceled"),
    ):
        found = await world.call("automations", "DryRunAutomation", **subject)
        assert (word(found, "trigger"), found.automation, list(found.obstacles)) == (trigger, "", [])
    paid = await world.latest(subscription)
    found = await world.call("automations", "DryRunAutomation", invoice=paid.id, trigger="invoice_overdue")
    assert len(found.obstacles) == 2, "it is charged, and paid"
    with pytest.raises(BillingError, match="about an invoice"):
        await world.call("automations", "DryRunAutomation", customer=customer, trigger=FAILS)
    with pytest.raises(BillingError) as refused:
        await world.call("automations", "DryRunAutomation", invoice="in_none")
    assert refused.value.reason == "RESOURCE_MISSING"
    with pytest.raises(BillingError, match="name an invoice"):
        await world.call("automations", "DryRunAutomation")


async def test_a_backtest_of_recipe_1_against_the_settings(client: BillingClient) -> None:
    """The settings retried three times and canceled on Feb 16; recipe 1 would have gone on trying until then."""
    world, customer, subscription = await base(client)
    invoice = (await world.invoices(subscription))[0]
    await world.advance("2025-04-01")
    positions = [event.position for event in await world.events()]

    policy = {"type": "start_retry_policy", "retry_policy": {"kind": "smart", "max_retries": 8, "window": "two_months"}}
    definition = {
        "name": "dunning",
        "trigger": FAILS,
        "conditions": [{"type": "subscription_interval", "interval": "monthly"}],
        "actions": [policy, {"type": "cancel_subscription", "delay_seconds": 7 * DAY}],
    }
    (run,), summary = await world.backtest(definition=definition)
    assert (run.triggered_at.seconds, run.customer, run.subscription) == (
        at("2025-02-01T01:00"),
        customer,
        subscription,
    )
    assert run.invoice != invoice.id
    assert (run.amount, run.currency, run.value) == (3100, "usd", 3100)
    (step,) = run.steps
    assert [moment.seconds for moment in step.tries_at] == [at("2025-02-08T13:00"), at("2025-02-16T01:00")]
    assert (run.ended_at.seconds, word(run, "end_reason")) == (at("2025-02-16T01:00"), "subscription_canceled")
    assert [moment.seconds for moment in run.reality.failures_at] == [
        at(moment) for moment in ("2025-02-04T01:00", "2025-02-09T01:00", "2025-02-16T01:00")
    ]
    assert (run.reality.automation, word(run.reality, "subscription_status")) == ("", "canceled")
    assert (summary.runs, summary.by_settings, summary.value, summary.moments) == (1, 1, 3100, 1)
    assert (summary.first_position, summary.head_position) == (positions[0], positions[-1])
    assert [event.position for event in await world.events()] == positions, "nothing was written"

    nothing, none = await world.backtest(definition=definition, range={"start": "2025-02-01T01:00:01"})
    assert (nothing, none.runs, none.moments) == ([], 0, 0)
    definition["conditions"] = [{"type": "invoice_amount", "more_than": 3_100}]
    nothing, none = await world.backtest(definition=definition)
    assert (nothing, none.runs, none.moments) == ([], 0, 1)


async def test_the_first_invoice_of_an_incomplete_subscription_starts_nothing(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    made = await world.automate(FAILS, {"type": "cancel_subscription"})
    customer = await world.customer(BAD)
    subscription = await world.subscribe(customer, await world.price(3100))
    assert word(subscription, "status") == "incomplete"
    await world.call("invoices", "UpdateInvoice", id=subscription.latest_invoice, auto_advance=True)
    await world.advance("2025-01-01T12:00")
    assert await world.events("invoice.payment_failed")
    assert not await world.runs()
    found, summary = await world.backtest(automation=made.id)
    assert (found, summary.moments) == ([], 0)


async def test_a_proposal_that_could_not_be_created_is_refused(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    bad = {"name": "x", "trigger": FAILS, "actions": [{"type": "send_cancellation_email"}]}
    with pytest.raises(BillingError) as refused:
        await world.backtest(definition=bad)
    assert refused.value.reason == "AUTOMATION_PAIR_INVALID"
    with pytest.raises(BillingError, match="name an automation"):
        await world.backtest()
    with pytest.raises(BillingError, match="no automation"):
        await world.backtest(automation="bauto_none")
    foreign = {"name": "x", "trigger": FAILS, "actions": [{"type": "send_team_email", "recipients": ["a@b.test"]}]}
    with pytest.raises(BillingError, match="team_users"):
        await world.backtest(definition=foreign)


async def _automations(world: World, dice: random.Random) -> dict[str, Any]:
    """One automation of each trigger, with conditions and actions by chance."""
    condition = dice.choice([[], [{"type": "customer_metadata", "key": "tier", "value": "gold"}]])
    amount = [{"type": "invoice_amount", "more_than": dice.choice([0, 2_500])}]
    policy = dice.choice(
        [
            {"kind": "custom", "retry_days": [dice.randint(1, 5) for _ in range(dice.randint(1, 3))]},
            {"kind": "smart", "max_retries": dice.randint(1, 8), "window": dice.choice(["one_week", "one_month"])},
        ]
    )
    mail = {"type": "send_team_email", "recipients": ["ops@acme.test"], "delay_seconds": dice.choice([0, DAY])}
    give_up = {"type": "mark_invoice_uncollectible", "delay_seconds": dice.choice([0, 5 * DAY, 40 * DAY])}
    end = {"type": dice.choice(["cancel_subscription", "mark_subscription_unpaid"]), "delay_seconds": 7 * DAY}
    dunning = [{"type": "start_retry_policy", "retry_policy": policy}, end, give_up]
    before = [{**mail, "delay_seconds": 0, "before_due_seconds": dice.randint(1, 40) * DAY} for _ in range(2)]
    wanted: dict[str, tuple[list[Any], list[Any]]] = {
        FAILS: (dice.choice([dunning, [mail], [mail, *dunning]]), amount),
        "invoice_finalized": ([mail, {**give_up, "delay_seconds": 60 * DAY}], condition),
        "invoice_due_date_upcoming": (before, []),
        "invoice_overdue": ([{"type": "send_invoice_overdue_webhook", "delay_seconds": DAY}, give_up], amount),
        "subscription_canceled": (
            [{"type": "send_cancellation_email", "delay_seconds": dice.choice([0, DAY])}],
            condition,
        ),
        "customer_created": ([{"type": "credit_customer_balance", "amount": 500, "currency": "usd"}], condition),
    }
    return {
        trigger: await world.automate(trigger, *actions, conditions=conditions)
        for trigger, (actions, conditions) in wanted.items()
    }


async def _lives(world: World, dice: random.Random) -> None:
    """Customers of all kinds, and some months in which they pay, fail, cancel and change."""
    prices = [await world.price(amount) for amount in (2_000, 4_000)]
    subscriptions: list[str] = []
    for _ in range(6):
        customer = await world.customer(metadata={"tier": dice.choice(["gold", "tin"])}, email="a@b.test")
        method: dict[str, Any] = dice.choice([{}, {"collection_method": "send_invoice", "days_until_due": 20}])
        subscriptions.append((await world.subscribe(customer, dice.choice(prices), **method)).id)
        if dice.random() < 0.6:
            await world.card(customer, BAD)
    for _ in range(8):
        await world.advance(world.now + dice.randint(4, 20) * DAY + dice.randint(0, 3) * 3_600)
        subscription = await world.subscription(dice.choice(subscriptions))
        latest = await world.latest(subscription.id)
        chance = dice.random()
        if chance < 0.4 and word(latest, "status") == "open":
            await world.call("invoices", "PayInvoice", id=latest.id, paid_out_of_band=True)
        elif chance < 0.5 and word(latest, "status") == "open":
            await world.call("invoices", "VoidInvoice", id=latest.id)
        elif chance < 0.6 and word(subscription, "status") in ("active", "past_due"):
            await world.call("subscriptions", "CancelSubscription", id=subscription.id)
        elif chance < 0.7:
            await world.card(subscription.customer, OK)
        elif chance < 0.8:
            tier = {"tier": dice.choice(["gold", "tin"])}
            await world.call("customers", "UpdateCustomer", id=subscription.customer, metadata=tier)
        # The next thing happens at another time, so that the order of what was and what was done is plain.
        await world.advance(world.now + 60)


def _real(run: Any) -> tuple[object, ...]:
    """What a run did, as a backtest tells it: of a step, its time and whether it was skipped as past."""
    steps = [
        (word(step, "type"), step.scheduled_at.seconds, step.ended_at.seconds)
        for step in run.steps
        if word(step, "result") != "failed"
    ]
    return (
        run.created.seconds,
        run.invoice,
        run.subscription,
        run.customer,
        steps,
        run.ended_at.seconds,
        run.end_reason,
    )


def _paper(run: Any) -> tuple[object, ...]:
    steps = [(word(step, "type"), step.scheduled_at.seconds, step.ended_at.seconds) for step in run.steps]
    moment = run.triggered_at.seconds
    return (moment, run.invoice, run.subscription, run.customer, steps, run.ended_at.seconds, run.end_reason)


@pytest.mark.parametrize("seed", range(6))
async def test_a_backtest_of_what_really_ran_finds_exactly_that(
    client: BillingClient, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    dice = random.Random(seed)
    monkeypatch.setattr(backtests, "EVENTS_AT_ONCE", dice.choice([1, 3, backtests.EVENTS_AT_ONCE]))
    world = await World.begin(client, "2025-01-01")
    await world.settings(company_domain="acme.test")
    made = await _automations(world, dice)
    await _lives(world, dice)

    seen = 0
    for trigger, automation in made.items():
        found, summary = await world.backtest(automation=automation.id)
        real = await world.runs(automation=automation.id)
        assert sorted(map(_paper, found)) == sorted(map(_real, real)), (seed, trigger)
        assert (summary.runs, summary.ran_same, summary.ran_other, summary.by_settings) == (len(real), len(real), 0, 0)
        assert {run.reality.automation_run for run in found} == {run.id for run in real}
        assert (summary.unknown, summary.customers_of_now) == (0, 0)
        seen += len(real)
    assert seen > 6, "the world is worth being compared"
