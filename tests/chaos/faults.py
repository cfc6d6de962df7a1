"""What is done to the processes and the database while they work: a list of faults, each with its weight.

To harm something else, add a fault to `FAULTS`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, get_args

from tests.chaos.database import HarmedDatabase
from tests.chaos.processes import GatewayProcess, ServerProcess
from tests.chaos.receivers import Receiver
from tests.proxy import Cut

CUTTING_SECONDS: Final = 2.5
CUTS: Final[tuple[Cut, ...]] = get_args(Cut)


@dataclass
class Victims:
    """What can be harmed. `counts` tells what was."""

    servers: list[ServerProcess]
    gateway: GatewayProcess
    database: HarmedDatabase
    seed: int
    receivers: list[Receiver] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Fault(NamedTuple):
    """Something that goes wrong, so many times as often as others."""

    weight: int
    inflict: Callable[[Victims, random.Random], Awaitable[None]]


async def kill_server(victims: Victims, dice: random.Random) -> None:
    """kill -9, and a new start after a moment."""
    server = dice.choice(victims.servers)
    if not server.runs:
        return
    server.kill()
    victims.counts["servers killed"] += 1
    await asyncio.sleep(dice.uniform(0, 1))
    await server.start()


async def kill_all_servers(victims: Victims, _dice: random.Random) -> None:
    """All at once."""
    for server in victims.servers:
        victims.counts["servers killed"] += server.runs
        server.kill()
    await asyncio.gather(*(server.start() for server in victims.servers))


async def freeze_server(victims: Victims, dice: random.Random) -> None:
    """A server hangs with all that it holds, and goes on later."""
    server = dice.choice(victims.servers)
    victims.counts["servers frozen"] += 1
    server.freeze()
    try:
        await asyncio.sleep(dice.uniform(0.5, 3))
    finally:
        server.thaw()


async def shoot_database(victims: Victims, _dice: random.Random) -> None:
    """PostgreSQL is shut down at once, without a word to anybody, and recovers."""
    victims.counts["database restarted"] += 1
    await victims.database.shoot()


async def cut_commits(victims: Victims, dice: random.Random) -> None:
    """The next COMMITs of a server get lost, or their answers do."""
    way = dice.choice(victims.database.ways)
    before = len(way.done)
    way.cuts = [dice.choice(CUTS) for _ in range(dice.randint(1, 6))]
    await asyncio.sleep(CUTTING_SECONDS)
    way.cuts = []
    victims.counts["commits cut"] += len(way.done) - before


async def break_connections(victims: Victims, dice: random.Random) -> None:
    """All connections of a server to the database break."""
    victims.counts["connections broken"] += 1
    dice.choice(victims.database.ways).break_all()


async def slow_database(victims: Victims, dice: random.Random) -> None:
    """A server's database takes its time with every answer."""
    way = dice.choice(victims.database.ways)
    victims.counts["database slow"] += 1
    way.delay_seconds = dice.uniform(0.02, 0.3)
    try:
        await asyncio.sleep(dice.uniform(1, 3))
    finally:
        way.delay_seconds = 0.0


async def kill_gateway(victims: Victims, dice: random.Random) -> None:
    """The gateway is killed, and away for a while."""
    victims.counts["gateway away"] += 1
    victims.gateway.kill()
    await asyncio.sleep(dice.uniform(0, 4))
    await victims.gateway.start(victims.seed)


async def send_receiver_away(victims: Victims, dice: random.Random) -> None:
    """Nobody listens where an endpoint's webhooks go, for a while."""
    receiver = dice.choice(victims.receivers)
    victims.counts["receivers away"] += 1
    await receiver.close()
    try:
        await asyncio.sleep(dice.uniform(0.5, 4))
    finally:
        await receiver.open()


FAULTS: Final = (
    Fault(8, kill_server),
    Fault(3, shoot_database),
    Fault(5, cut_commits),
    Fault(3, kill_gateway),
    Fault(2, freeze_server),
    Fault(2, slow_database),
    Fault(2, break_connections),
    Fault(2, send_receiver_away),
    Fault(1, kill_all_servers),
)
"""Each comes once, in this order, before any comes again."""

PAUSE_SECONDS_MAX: Final = 1.5
AT_ONCE_MAX: Final = 2
"""More at once, and nothing would be left that works, so that nothing could break."""


async def storm(victims: Victims, dice: random.Random, until: float) -> None:
    """Begin one fault after the other until a moment of `time.monotonic`; of each kind one is going on at most."""
    first = list(FAULTS)
    weights = [fault.weight for fault in FAULTS]
    going_on: dict[asyncio.Task[None], Fault] = {}
    while time.monotonic() < until:
        await asyncio.sleep(dice.uniform(0, PAUSE_SECONDS_MAX))
        while len(going_on) >= AT_ONCE_MAX:
            await asyncio.wait(going_on, return_when=asyncio.FIRST_COMPLETED)
            going_on = await _rest(going_on)
        going_on = await _rest(going_on)
        fault = first.pop(0) if first else dice.choices(FAULTS, weights)[0]
        if fault not in going_on.values():
            going_on[asyncio.create_task(_inflict(fault, victims, dice))] = fault
    await asyncio.gather(*going_on)


async def _rest(going_on: dict[asyncio.Task[None], Fault]) -> dict[asyncio.Task[None], Fault]:
    """What still goes on. Raises what a fault that has ended has raised."""
    await asyncio.gather(*(task for task in going_on if task.done()))
    return {task: fault for task, fault in going_on.items() if not task.done()}


async def _inflict(fault: Fault, victims: Victims, dice: random.Random) -> None:
    await fault.inflict(victims, dice)


async def heal(victims: Victims) -> None:
    """All is well again: everything runs, and the gateway has good manners."""
    for way in victims.database.ways:
        way.cuts, way.delay_seconds = [], 0.0
    for server in victims.servers:
        server.thaw()
    victims.gateway.kill()
    await victims.gateway.start(None)
    await asyncio.gather(*(server.start() for server in victims.servers))
