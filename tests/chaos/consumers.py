"""Durable consumers: members that come and go, and many that go without a word about what they were given.

What happens is noted in its order, and judged when the log is complete (`audit_deliveries.consumed`). The stub is used
as it is, for the client's own consumer would mend what the server does wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import grpc

from billing.v1.event_model_pb2 import Event
from billing.v1.event_service_pb2 import (
    Acknowledgement,
    ConsumeOpening,
    ConsumeRequest,
    CreateConsumerRequest,
    NegativeAcknowledgement,
)
from billing.v1.event_service_pb2_grpc import EventServiceStub

SILENCE_SECONDS_MAX: Final = 4.0
ACK_SECONDS: Final = 4
SULK_SECONDS: Final = 6.0
FINISH_SECONDS_MAX: Final = 5.0
PAUSE_SECONDS_MAX: Final = 1.5
LIFE_MESSAGES_MAX: Final = 10

DECLINING: Final = 0.02
SULKING: Final = 0.01
KILLED: Final = 0.6
"""The share of members that end in the middle of what they were given; the others end in order. First lives all do."""

Kind = Literal["given", "done", "declined", "gone"]


class Note(NamedTuple):
    """Something that happened to a member: what it was given, what it said of it, or that it went."""

    kind: Kind
    member: str
    position: int = 0
    account: str = ""


class DurableConsumer:
    """A consumer of one account, for events of some types (none: of all), and its members."""

    def __init__(
        self, name: str, types: Sequence[str], targets: Sequence[str], api_key: str, members: int, seed: str
    ) -> None:
        self.name = name
        self.types = tuple(types)
        self.notes: list[Note] = []
        self.lives = 0
        self.killed = 0
        self.calm = False
        """Whether members behave: they take what there is, and stay."""
        self._targets = targets
        self._login = (("authorization", f"Bearer {api_key}"),)
        self._dice = [random.Random(f"{seed}:{name}:{number}") for number in range(members)]

    async def follow(self) -> None:
        """Let all members live until canceled."""
        async with contextlib.AsyncExitStack() as stack:
            channels = [await stack.enter_async_context(grpc.aio.insecure_channel(target)) for target in self._targets]
            stubs = [EventServiceStub(channel) for channel in channels]
            await asyncio.gather(*(self._member(number, stubs, dice) for number, dice in enumerate(self._dice)))

    async def _member(self, number: int, stubs: Sequence[EventServiceStub], dice: random.Random) -> None:
        messages, to_be_killed = 1, True
        while True:
            self.lives += 1
            member = f"{self.name} {number} in its life {self.lives}"
            call: Any = dice.choice(stubs).Consume(metadata=self._login)
            try:
                await self._live(call, member, dice, messages, to_be_killed=to_be_killed)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
                # A server that is away, frozen or restarted, or one that had enough of a silent member.
                pass
            finally:
                self.notes.append(Note("gone", member))
                call.cancel()
            await asyncio.sleep(dice.uniform(0, PAUSE_SECONDS_MAX))
            messages, to_be_killed = dice.randint(1, LIFE_MESSAGES_MAX), dice.random() < KILLED

    async def _live(self, call: Any, member: str, dice: random.Random, messages: int, *, to_be_killed: bool) -> None:
        """One connection, for so many messages with events; one that is to be killed says nothing of the last."""
        create = CreateConsumerRequest(types=self.types, ack_timeout_seconds=ACK_SECONDS, tries_max=100)
        opening = ConsumeOpening(
            consumer=self.name, create=create, batch_max=dice.choice((1, 5, 50)), heartbeat_seconds=1
        )
        await call.write(ConsumeRequest(opening=opening))
        while messages or self.calm:
            # Not wait_for: when a message comes just as this task is canceled, it would swallow that.
            async with asyncio.timeout(SILENCE_SECONDS_MAX):
                message = await call.read()
            if message is grpc.aio.EOF:
                return
            self.notes += [Note("given", member, event.position, event.account) for event in message.events]
            if not message.events:
                continue
            messages = max(0, messages - 1)
            if not messages and to_be_killed and not self.calm:
                self.killed += 1
                return
            await self._work(call, member, list(message.events), dice)
        await self._finish(call)

    async def _work(self, call: Any, member: str, events: Sequence[Event], dice: random.Random) -> None:
        """Say of each event that it is done, or that it cannot be; of those behind such a one nothing is said."""
        if not self.calm and dice.random() < SULKING:
            await asyncio.sleep(SULK_SECONDS)
        done: list[int] = []
        declined: dict[str, int] = {}
        for event in events:
            subject = event.customer or event.object_id
            if subject in declined:
                continue
            if not self.calm and dice.random() < DECLINING:
                declined[subject] = event.position
            else:
                done.append(event.position)
        self.notes += [Note("done", member, position) for position in done]
        self.notes += [Note("declined", member, position) for position in declined.values()]
        decline = [NegativeAcknowledgement(positions=declined.values())] if declined else None
        await call.write(ConsumeRequest(acknowledge=Acknowledgement(positions=done), decline=decline))

    async def _finish(self, call: Any) -> None:
        """Say no more, and wait until the server has stored what was said."""
        await call.done_writing()
        async with asyncio.timeout(FINISH_SECONDS_MAX):
            while await call.read() is not grpc.aio.EOF:
                pass
