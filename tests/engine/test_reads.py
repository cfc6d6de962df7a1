"""Reads by id that meet: they share a view, see what was committed before, and nobody suffers from a neighbour."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import msgspec
import pytest

from billing_server.domain import commands as c
from billing_server.domain.customer import Customer, PaymentMethod
from billing_server.domain.errors import ResourceMissing
from billing_server.engine import reads as reads_module
from billing_server.engine.engine import Engine
from billing_server.engine.reads import AccountReads, Reads
from billing_server.store.errors import StoreCorrupted, StoreTimeout, StoreUnavailable
from billing_server.store.store import Store
from tests.engine.world import World, outcomes, within


class Planned:
    """A store whose views do as planned: `hook` is told of each query before it is answered."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.views = 0
        self.queries: list[tuple[type[msgspec.Struct], list[str]]] = []
        self.hook: Callable[[Sequence[str]], Any] | None = None
        self.opening: Exception | None = None
        self.asked = asyncio.Event()

    @contextlib.asynccontextmanager
    async def view(self, _account_id: str) -> AsyncIterator[Planned]:
        """A view, unless it is planned that there is none."""
        await asyncio.sleep(0)
        if self.opening is not None:
            raise self.opening
        self.views += 1
        yield self

    async def get_many(self, noun: type[msgspec.Struct], ids: Sequence[str]) -> list[Any]:
        """Those of the objects that are there when the query is sent."""
        self.queries.append((noun, sorted(ids)))
        self.asked.set()
        found = [self.objects[identity] for identity in ids if identity in self.objects]
        await asyncio.sleep(0)
        if self.hook is not None:
            told = self.hook(ids)
            if told is not None:
                await told
        return found

    def add(self, identity: str, name: str = "Ada") -> None:
        """Keep a customer."""
        self.objects[identity] = Customer(id=identity, created=1, name=name, invoice_prefix="A")


@pytest.fixture
def planned() -> Planned:
    return Planned()


@pytest.fixture
def reads(planned: Planned) -> AccountReads:
    return Reads(cast("Store", planned)).of("acct_1")


async def name_of(reads: AccountReads, identity: str) -> str | None:
    return (await reads.get(Customer, identity, "customer")).name


# --- sharing


async def test_reads_that_meet_share_a_query_of_each_kind(planned: Planned, reads: AccountReads) -> None:
    planned.add("cus_1")
    planned.add("cus_2")
    wanted = [name_of(reads, f"cus_{number % 2 + 1}") for number in range(50)]
    methods = [reads.get_many(PaymentMethod, ["pm_1"]) for _ in range(50)]

    names = await asyncio.gather(*wanted)

    assert names == ["Ada"] * 50
    assert await asyncio.gather(*methods) == [[]] * 50
    assert planned.queries == [(Customer, ["cus_1", "cus_2"]), (PaymentMethod, ["pm_1"])]


async def test_reads_one_after_the_other_have_queries_of_their_own(planned: Planned, reads: AccountReads) -> None:
    """The calibration of the count above."""
    planned.add("cus_1")
    for _ in range(5):
        await name_of(reads, "cus_1")
    assert len(planned.queries) == 5


async def test_accounts_share_nothing(planned: Planned) -> None:
    planned.add("cus_1")
    both = Reads(cast("Store", planned))
    await asyncio.gather(name_of(both.of("acct_1"), "cus_1"), name_of(both.of("acct_2"), "cus_1"))
    assert planned.views == 2


async def test_a_query_takes_no_more_than_a_batch(
    planned: Planned, reads: AccountReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads_module, "BATCH_MAX", 10)
    for number in range(25):
        planned.add(f"cus_{number}")
    assert await asyncio.gather(*(name_of(reads, f"cus_{number}") for number in range(25))) == ["Ada"] * 25
    assert [len(ids) for _, ids in planned.queries] == [10, 10, 5]


async def test_what_is_missing_is_missing_for_who_asked(planned: Planned, reads: AccountReads) -> None:
    planned.add("cus_1")
    there, missing = await outcomes(name_of(reads, "cus_1"), name_of(reads, "cus_2"))
    assert there == "Ada"
    assert isinstance(missing, ResourceMissing)
    assert missing.resource_id == "cus_2"


# --- freshness


async def test_a_read_is_not_answered_by_a_query_that_was_sent_before_it(planned: Planned, reads: AccountReads) -> None:
    planned.add("cus_1", "before")
    later: list[asyncio.Task[str | None]] = []

    def changed(_ids: Sequence[str]) -> None:
        if not later:
            planned.add("cus_1", "after")
            later.append(asyncio.create_task(name_of(reads, "cus_1")))

    planned.hook = changed
    assert await name_of(reads, "cus_1") == "before"
    assert await later[0] == "after"


async def test_callers_read_what_they_were_told_of(world: World, engine: Engine) -> None:
    """Writers read their own changes, while others read the same objects all the time."""
    customers = [await world.customer(engine, None) for _ in range(4)]
    reads = engine.reads.of(world.account_id)
    writing = True

    async def look() -> int:
        looks = 0
        while writing:
            await reads.get(Customer, customers[looks % 4], "customer")
            looks += 1
        return looks

    async def write(customer: str) -> None:
        for number in range(15):
            await world.ask(engine, c.UpdateCustomer(id=customer, name=f"name {number}"))
            assert (await reads.get(Customer, customer, "customer")).name == f"name {number}"

    looking = [asyncio.create_task(look()) for _ in range(8)]
    await within(asyncio.gather(*map(write, customers)))
    writing = False
    assert min(await within(asyncio.gather(*looking))) > 0


# --- neighbours


async def test_who_goes_away_disturbs_nobody(planned: Planned, reads: AccountReads) -> None:
    planned.add("cus_1")
    going = [asyncio.create_task(name_of(reads, "cus_1")) for _ in range(6)]
    planned.hook = lambda _ids: going[1].cancel() and None
    going[0].cancel()
    answers = await asyncio.gather(*going, return_exceptions=True)
    assert [type(answer) for answer in answers[:2]] == [asyncio.CancelledError] * 2
    assert answers[2:] == ["Ada"] * 4


async def test_what_breaks_one_read_breaks_no_other(planned: Planned, reads: AccountReads) -> None:
    def corrupted(ids: Sequence[str]) -> None:
        if "cus_2" in ids:
            raise StoreCorrupted("a row that nobody can read")

    planned.hook = corrupted
    for number in range(4):
        planned.add(f"cus_{number}")
    answers = await outcomes(*(name_of(reads, f"cus_{number}") for number in range(4)))
    assert answers[:2] == ["Ada", "Ada"]
    assert isinstance(answers[2], StoreCorrupted)
    assert answers[3] == "Ada"


async def test_a_database_that_is_away_is_told_to_all_and_found_again(planned: Planned, reads: AccountReads) -> None:
    planned.add("cus_1")
    planned.opening = StoreUnavailable("a planted outage")
    answers = await outcomes(*(name_of(reads, "cus_1") for _ in range(5)))
    assert {type(answer) for answer in answers} == {StoreUnavailable}

    planned.opening = None
    assert await name_of(reads, "cus_1") == "Ada"


async def test_a_query_that_takes_too_long_is_no_deadline_of_its_callers(planned: Planned, reads: AccountReads) -> None:
    def canceled(_ids: Sequence[str]) -> None:
        raise StoreTimeout("canceled by its time limit")

    planned.hook = canceled
    answers = await outcomes(name_of(reads, "cus_1"), name_of(reads, "cus_2"))
    assert {type(answer) for answer in answers} == {StoreUnavailable}


async def test_a_view_that_hangs_is_given_up(planned: Planned) -> None:
    planned.hook = lambda _ids: asyncio.sleep(60)
    reads = Reads(cast("Store", planned), seconds_max=0.05).of("acct_1")
    with pytest.raises(StoreUnavailable, match="in time"):
        await within(name_of(reads, "cus_1"))


async def test_a_view_that_hangs_does_not_hold_up_those_behind_it(planned: Planned, reads: AccountReads) -> None:
    planned.add("cus_1")
    planned.add("cus_2")
    planned.hook = lambda ids: asyncio.sleep(60) if "cus_1" in ids else None
    hanging = asyncio.create_task(name_of(reads, "cus_1"))
    await within(planned.asked.wait())
    assert await within(name_of(reads, "cus_2")) == "Ada"
    assert not hanging.done()
    hanging.cancel()


async def test_closing_tells_everybody(planned: Planned) -> None:
    planned.hook = lambda _ids: asyncio.sleep(60)
    gathering = Reads(cast("Store", planned))
    reads = gathering.of("acct_1")
    asked = [asyncio.create_task(name_of(reads, "cus_1"))]
    await within(planned.asked.wait())
    asked += [asyncio.create_task(name_of(reads, "cus_2")) for _ in range(3)]
    asked += [asyncio.create_task(name_of(gathering.of("acct_2"), "cus_2"))]
    await asyncio.sleep(0)
    await within(gathering.close())
    answers = await within(asyncio.gather(*asked, return_exceptions=True))
    assert {type(answer) for answer in answers} == {StoreUnavailable}
