"""Crash enumeration: a process is killed at one of its steps, the next one goes on, and the money is audited.

Steps are: before a transaction, before and after its COMMIT, and whatever the scenario itself tells of what happens
outside, such as a gateway that is asked or a receiver that has answered.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from billing_server.domain.errors import Conflict
from billing_server.engine.engine import Engine
from billing_server.gateways.port import PaymentGateway
from tests.engine.ledger import audit
from tests.engine.times import Stops
from tests.engine.world import World, within

LEASE_SECONDS: Final = 61


class Scenario(NamedTuple):
    """What is prepared in peace, what is done by the process that is killed, and what must have become of it.

    `act` may be done again and again, by any process, until it ends well. With fewer than `steps_min` steps it is not
    to be believed.
    """

    prepare: Callable[[World, Engine], Awaitable[Any]]
    act: Callable[[World, Engine, Any], Awaitable[Any]]
    expect: Callable[[World, Engine, Any], Awaitable[None]]
    steps_min: int = 6


async def prepared(world: World, scenario: Scenario) -> Any:
    """What the scenario begins with, made in peace; the state that its functions pass on."""
    peaceful = await world.process()
    await world.open_account(peaceful)
    state = await scenario.prepare(world, peaceful)
    await world.end(peaceful)
    return state


async def until_killed(
    world: World, scenario: Scenario, state: Any, stops: Stops, gateway: PaymentGateway | None = None
) -> bool:
    """Act in a process that dies at its stop; whether it came so far."""
    doomed = await world.process(stops=stops, gateway=gateway)
    acting = asyncio.create_task(_acted(scenario.act(world, doomed, state)))
    reaching = asyncio.create_task(stops.reached.wait())
    await within(asyncio.wait({acting, reaching}, return_when=asyncio.FIRST_COMPLETED))
    died = stops.reached.is_set()
    reaching.cancel()
    await world.kill(doomed, acting)
    return died


async def _acted(act: Awaitable[Any]) -> bool:
    """Whether the act ended well; a repeated request may be told to come again."""
    try:
        await act
    except Conflict:
        return False
    return True


async def brought_to_its_end(world: World, scenario: Scenario, state: Any) -> None:
    """The next process: callers repeat their requests, leases end, and all is well."""
    second = await world.process()
    try:
        await _ended_well(world, second, scenario, state)
    finally:
        await world.close()


async def _ended_well(world: World, second: Engine, scenario: Scenario, state: Any) -> None:
    for _ in range(4):
        if await within(_acted(scenario.act(world, second, state))):
            break
        await world.pass_time(second, LEASE_SECONDS)
    else:
        raise AssertionError("it never ended well")
    await world.pass_time(second, LEASE_SECONDS)
    await audit(world, second)
    await scenario.expect(world, second, state)


async def killed_at_every_step(new_world: Callable[[], World], scenario: Scenario) -> None:
    """Kill a process at its first step, in another world at its second, and so on to the end. Raises AssertionError."""
    for stop_at in itertools.count(1):
        world = new_world()
        state = await prepared(world, scenario)
        stops = Stops(stop_at)
        if not await until_killed(world, scenario, state, stops):
            break
        try:
            await brought_to_its_end(world, scenario, state)
        except AssertionError as error:
            error.add_note(f"killed at step {stop_at}: {', '.join(stops.passed)}")
            raise
    assert stop_at > scenario.steps_min, f"only {stop_at - 1} steps"
