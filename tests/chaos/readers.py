"""Readers of the event log: those who follow it from server to server, and those who freeze and never read on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Sequence
from typing import Any, Final

import grpc

from billing.v1.event_model_pb2 import Event
from billing.v1.event_service_pb2 import StreamEventsRequest
from billing_client import BillingClient
from billing_client.audit.event_checks import objects_of

SILENCE_SECONDS_MAX: Final = 4.0
_PAUSE_SECONDS: Final = 0.1


class Reader:
    """Reads from position 0 to the end, strictly: within one stream, each position once and in order.

    The stub is used as it is, for the client's own reader would mend what the server does wrong. `digest` is of all
    events so far, and `objects` what folding them gives.
    """

    def __init__(self, clients: Sequence[BillingClient], dice: random.Random) -> None:
        self._clients = clients
        self._dice = dice
        self._digest = hashlib.sha256()
        self.position = 0
        self.streams = 0
        self.objects: dict[str, bytes] = {}
        self.faults: list[str] = []
        self._moved = asyncio.Condition()

    @property
    def digest(self) -> str:
        """Of all events so far, byte by byte."""
        return self._digest.hexdigest()

    async def reach(self, position: int, seconds_max: float) -> None:
        """Wait until the reader has come so far, but not longer than this."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds_max), self._moved:
                await self._moved.wait_for(lambda: self.position >= position)

    async def follow(self) -> None:
        """Read until canceled, from one server after the other."""
        while True:
            self.streams += 1
            client = self._dice.choice(self._clients)
            request = StreamEventsRequest(
                after_position=self.position, batch_max=self._dice.choice((1, 7, 100)), heartbeat_seconds=1
            )
            try:
                await self._read(client.event_log.StreamEvents(request))
            except (grpc.aio.AioRpcError, TimeoutError):
                # A server that is away, frozen or restarted; what it has sent counts.
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _read(self, call: Any) -> None:
        """One stream, until it breaks, or for as long as the reader likes this server."""
        messages = self._dice.randint(5, 200)
        try:
            for _ in range(messages):
                # Not wait_for: when a batch comes just as this task is canceled, it would swallow that.
                async with asyncio.timeout(SILENCE_SECONDS_MAX):
                    batch = await call.read()
                if batch is grpc.aio.EOF:
                    return
                for event in batch.events:
                    self.take(event)
                async with self._moved:
                    self._moved.notify_all()
        finally:
            call.cancel()

    def take(self, event: Event) -> None:
        """The next event of a stream."""
        if event.position != self.position + 1:
            self.faults.append(f"after position {self.position} came {event.position}")
        self.position = event.position
        self._digest.update(event.SerializeToString(deterministic=True))
        for identity, state in objects_of(event):
            self.objects[identity] = state.SerializeToString(deterministic=True)


class FrozenReader:
    """Opens streams and reads nothing from them."""

    def __init__(self, clients: Sequence[BillingClient]) -> None:
        self._clients = clients
        self.opened = 0

    async def freeze(self) -> None:
        """Hold a stream at each server until canceled; open a new one when it is given up."""
        await asyncio.gather(*(self._at(client) for client in self._clients))

    async def _at(self, client: BillingClient) -> None:
        while True:
            call = client.event_log.StreamEvents(StreamEventsRequest(after_position=0, batch_max=1000))
            self.opened += 1
            try:
                await call.code()
            finally:
                call.cancel()
            await asyncio.sleep(_PAUSE_SECONDS)
