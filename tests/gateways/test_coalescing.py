"""Many small pieces of work become few batches, and callers do not disturb each other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from billing_server.gateways.coalescing import Coalescer


class Writer:
    """Answers each item by itself, counted; waits for `gate` if it is closed."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[str]]] = []
        self.began = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, account_id: str, items: Sequence[str]) -> Mapping[str, str]:
        self.batches.append((account_id, list(items)))
        self.began.set()
        await self.gate.wait()
        if "poison" in items:
            raise ValueError("poisoned")
        return {item: item.upper() for item in items if item != "absent"}


async def _submit_all(coalescer: Coalescer[str, str], items: Sequence[str]) -> list[str | None]:
    return await asyncio.gather(*[coalescer.submit("acct_1", item, item) for item in items])


async def test_what_arrives_together_is_one_batch_in_the_order_of_keys() -> None:
    writer = Writer()
    assert await _submit_all(Coalescer(writer), ["c", "a", "b"]) == ["C", "A", "B"]
    assert writer.batches == [("acct_1", ["a", "b", "c"])]


async def test_batches_are_bounded() -> None:
    writer = Writer()
    items = [f"{number:03}" for number in range(23)]
    assert await _submit_all(Coalescer(writer, batch_max=10), items) == items
    assert [len(batch) for _, batch in writer.batches] == [10, 10, 3]


async def test_accounts_are_kept_apart() -> None:
    writer = Writer()
    coalescer = Coalescer(writer)
    await asyncio.gather(coalescer.submit("acct_1", "a", "a"), coalescer.submit("acct_2", "a", "a"))
    assert sorted(writer.batches) == [("acct_1", ["a"]), ("acct_2", ["a"])]


async def test_one_key_is_one_item() -> None:
    writer = Writer()
    assert await _submit_all(Coalescer(writer), ["a", "a", "a"]) == ["A", "A", "A"]
    assert writer.batches == [("acct_1", ["a"])]


async def test_the_next_batch_gathers_while_one_is_written() -> None:
    writer = Writer()
    coalescer = Coalescer(writer, linger_seconds=0)
    writer.gate.clear()
    first = asyncio.create_task(coalescer.submit("acct_1", "a", "a"))
    await writer.began.wait()
    others = asyncio.gather(*[coalescer.submit("acct_1", item, item) for item in "bcd"])
    await asyncio.sleep(0)
    writer.gate.set()
    assert await first == "A"
    assert await others == ["B", "C", "D"]
    assert [batch for _, batch in writer.batches] == [["a"], ["b", "c", "d"]]


async def test_an_item_without_an_answer() -> None:
    assert await _submit_all(Coalescer(Writer()), ["a", "absent"]) == ["A", None]


@pytest.mark.parametrize("written", [False, True])
async def test_a_caller_that_goes_away_disturbs_nobody(written: bool) -> None:
    """Whether it leaves before its batch is taken up or after: its item is done, and the others are answered."""
    writer = Writer()
    coalescer = Coalescer(writer)
    writer.gate.clear()
    leaving = asyncio.create_task(coalescer.submit("acct_1", "leaving", "leaving"))
    staying = asyncio.create_task(coalescer.submit("acct_1", "staying", "staying"))
    await asyncio.sleep(0)
    if written:
        await writer.began.wait()
    leaving.cancel()
    await asyncio.wait({leaving})
    writer.gate.set()
    assert await staying == "STAYING"
    assert leaving.cancelled()
    assert writer.batches == [("acct_1", ["leaving", "staying"])]


async def test_all_of_a_failed_batch_are_told_and_the_next_goes_on() -> None:
    coalescer = Coalescer(Writer())
    answers = await asyncio.gather(
        *[coalescer.submit("acct_1", item, item) for item in ("a", "poison")], return_exceptions=True
    )
    assert [str(answer) for answer in answers] == ["poisoned", "poisoned"]
    assert await coalescer.submit("acct_1", "b", "b") == "B"


async def test_a_batch_that_hangs_ends_by_a_timeout() -> None:
    writer = Writer()
    coalescer = Coalescer(writer, batch_seconds_max=0.01)
    writer.gate.clear()
    with pytest.raises(TimeoutError):
        await coalescer.submit("acct_1", "a", "a")
    writer.gate.set()
    assert await coalescer.submit("acct_1", "b", "b") == "B"


async def test_closing_waits_for_what_was_submitted() -> None:
    writer = Writer()
    coalescer = Coalescer(writer)
    submitted = asyncio.create_task(coalescer.submit("acct_1", "a", "a"))
    await asyncio.sleep(0)
    await coalescer.close()
    assert writer.batches == [("acct_1", ["a"])]
    assert await submitted == "A"
