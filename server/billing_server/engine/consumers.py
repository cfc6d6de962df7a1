"""Durable consumers as their owners manage them: made, changed, moved, deleted; parked events retried and dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from billing_server.domain.consumer import Consumer, check_number
from billing_server.domain.errors import OutOfRange, ahead_of_log
from billing_server.domain.etag import check_etag
from billing_server.domain.event import Event
from billing_server.engine.door import Door
from billing_server.engine.once import once
from billing_server.engine.work import Answer, Caller
from billing_server.store.consumer import Progress
from billing_server.store.unit import Opening, Unit

Start = Literal["beginning", "head", "position"]


class ShownConsumer(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer and how far it has come."""

    consumer: Consumer
    progress: Progress


class Retried(msgspec.Struct, frozen=True):
    """How many parked events will be tried again, and how many cannot be because the log no longer keeps them."""

    retried: int
    gone: int


class Dropped(msgspec.Struct, frozen=True):
    """How many parked events were dropped."""

    dropped: int


class Consumers:
    """Manages the consumers of accounts."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def create(self, account_id: str, wanted: Consumer, start: Start, after: int, caller: Caller) -> Answer:
        """A new consumer, as `ShownConsumer`. Raises AlreadyExists, LimitReached and OutOfRange."""

        async def change(unit: Unit, opening: Opening) -> tuple[msgspec.Struct, Sequence[Event]]:
            consumer = msgspec.structs.replace(wanted, created=opening.now)
            await unit.create_consumer(consumer, await _position(unit, start, after))
            check_number(await unit.count_consumers())
            return await _shown(unit, consumer), ()

        return await once(self._door, account_id, caller, change)

    async def update(
        self, account_id: str, name: str, changes: Mapping[str, int], etag: str | None, caller: Caller
    ) -> Answer:
        """A consumer with other values, as `ShownConsumer`. Raises ResourceMissing and Conflict."""

        async def change(unit: Unit, _opening: Opening) -> tuple[msgspec.Struct, Sequence[Event]]:
            before = await unit.lock_consumer(name)
            check_etag(etag, before.version)
            consumer = msgspec.structs.replace(before, **changes)
            if consumer != before:
                consumer = msgspec.structs.replace(consumer, version=before.version + 1)
                await unit.update_consumer(consumer)
            return await _shown(unit, consumer), ()

        return await once(self._door, account_id, caller, change)

    async def seek(self, account_id: str, name: str, start: Start, after: int, caller: Caller) -> Answer:
        """A consumer at another position, as `ShownConsumer`. Raises ResourceMissing and OutOfRange."""

        async def change(unit: Unit, _opening: Opening) -> tuple[msgspec.Struct, Sequence[Event]]:
            consumer = await unit.lock_consumer(name)
            await unit.seek_consumer(name, await _position(unit, start, after))
            return await _shown(unit, consumer), ()

        return await once(self._door, account_id, caller, change)

    async def delete(self, account_id: str, name: str, caller: Caller) -> Answer:
        """Delete a consumer; the answer holds what it was. Raises ResourceMissing."""

        async def change(unit: Unit, _opening: Opening) -> tuple[msgspec.Struct, Sequence[Event]]:
            consumer = await unit.lock_consumer(name)
            await unit.delete_consumer(name)
            return consumer, ()

        return await once(self._door, account_id, caller, change)

    async def retry(self, account_id: str, name: str, positions: Sequence[int] | None, caller: Caller) -> Answer:
        """Try parked events (None: all) again, as `Retried`. Raises ResourceMissing."""

        async def change(unit: Unit, _opening: Opening) -> tuple[msgspec.Struct, Sequence[Event]]:
            await unit.lock_consumer(name)
            return Retried(*await unit.retry_parked(name, positions)), ()

        return await once(self._door, account_id, caller, change)

    async def drop(self, account_id: str, name: str, positions: Sequence[int] | None, caller: Caller) -> Answer:
        """Forget parked events (None: all), as `Dropped`. Raises ResourceMissing."""

        async def change(unit: Unit, _opening: Opening) -> tuple[msgspec.Struct, Sequence[Event]]:
            await unit.lock_consumer(name)
            return Dropped(await unit.drop_parked(name, positions)), ()

        return await once(self._door, account_id, caller, change)


async def _shown(unit: Unit, consumer: Consumer) -> ShownConsumer:
    return ShownConsumer(consumer=consumer, progress=await unit.consumer_progress(consumer.id))


async def _position(unit: Unit, start: Start, after: int) -> int:
    """The position behind which to begin. Raises OutOfRange."""
    oldest, head = await unit.event_span()
    if start == "beginning":
        return oldest - 1
    if start == "head":
        return head
    if not oldest - 1 <= after <= head:
        before = f"{after} lies before the oldest event, at {oldest}; begin after {oldest - 1}"
        problem = ahead_of_log(after, head) if after > head else before
        raise OutOfRange(f"after_position: {problem}", oldest=oldest, newest=head)
    return after
