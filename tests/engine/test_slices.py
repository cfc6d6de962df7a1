"""Work in slices: the loop turns in between for whoever waits, and for nobody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from billing_server.domain.advance import advance
from billing_server.engine import door
from billing_server.engine.engine import Engine
from billing_server.engine.slices import by_nobody, in_slices
from tests.engine.times import DAY, START
from tests.engine.world import World, outcomes


class Turns:
    """Counts the turns of the loop while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    async def _turn(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)

    async def __aenter__(self) -> Turns:
        self._task = asyncio.create_task(self._turn())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


@pytest.mark.parametrize(("wanted", "turns"), [(True, [0, 0, 0, 1, 1, 1, 2]), (False, [0] * 7)])
async def test_the_loop_turns_between_slices_if_that_is_wanted(wanted: bool, turns: list[int]) -> None:
    seen = []
    async with Turns() as loop:
        async for some in in_slices(range(7), 3, lambda: wanted):
            seen += [(item, loop.count) for item in some]
    assert seen == list(enumerate(turns))


async def test_no_items_are_no_slices() -> None:
    nothing: list[int] = []
    assert [some async for some in in_slices(nothing, 3, by_nobody)] == []


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_billing_run_lets_those_who_wait_have_their_turn(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    customers = await outcomes(*(world.customer(engine) for _ in range(5)))
    await outcomes(*(world.subscribe(engine, customer) for customer in customers))
    monkeypatch.setattr(door, "DECISIONS", 2)
    monkeypatch.setattr(engine.door, "turns_wanted", lambda: wanted)
    decided_in: list[int] = []
    async with Turns() as loop:

        def advancing(*given: Any, **more: Any) -> Any:
            decided_in.append(loop.count)
            return advance(*given, **more)

        monkeypatch.setattr("billing_server.engine.session.advance", advancing)
        woken = await engine.door.wake(world.account_id, limit=10, until=START + 31 * DAY)
    assert woken.books == 5
    assert [decided_in.count(turn) for turn in sorted(set(decided_in))] == ([2, 2, 1] if wanted else [5])
