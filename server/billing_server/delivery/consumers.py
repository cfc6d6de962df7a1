"""The connections of durable consumers in this process: opened, told of each other, and brought to their ends."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator

from billing_server.delivery.consuming import Connection
from billing_server.delivery.tail import Tails
from billing_server.domain.consumer import Consumer, Opening, Step
from billing_server.engine.bell import Bell
from billing_server.store.store import Store


class Consumers:
    """The connections of one process."""

    def __init__(self, store: Store, bell: Bell, tails: Tails) -> None:
        self._store = store
        self._bell = bell
        self._tails = tails
        self._open: defaultdict[tuple[str, str], set[Connection]] = defaultdict(set)
        self._leaving: set[asyncio.Task[None]] = set()
        self._draining = False
        self.outcomes: Counter[str] = Counter()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return sum(map(len, list(self._open.values())))

    @property
    def lag(self) -> int:
        """How many positions the consumer is behind that is behind most."""
        return max((open_one.lag for opened in list(self._open.values()) for open_one in list(opened)), default=0)

    async def consume(
        self, account_id: str, opening: Opening, consumer: Consumer, steps: AsyncIterator[Step]
    ) -> AsyncGenerator[bytes, None]:
        """Serialized ConsumeResponses, until the steps end.

        Raises ResourceMissing when the consumer is deleted, OutOfRange when retention has overtaken it,
        ConsumerSilent, what reading the steps raises, and StoreError.
        """
        key = (account_id, opening.consumer)
        connection = Connection(self._store, account_id, opening, consumer, lambda: self._tell(key, connection))
        connection.hand.outcomes = self.outcomes
        self._open[key].add(connection)
        try:
            with self._bell.listening(account_id, connection.wake), self._tails.of(account_id) as tail:
                messages = connection.run(steps, tail)
                try:
                    async for message in messages:
                        yield message
                finally:
                    await messages.aclose()
        finally:
            self._open[key].discard(connection)
            if not self._open[key]:
                del self._open[key]
            await self._leave(connection)

    def _tell(self, key: tuple[str, str], sender: Connection) -> None:
        """Have the other connections of a consumer look for work."""
        for connection in self._open.get(key, ()):
            if connection is not sender:
                connection.meet_soon()

    async def _leave(self, connection: Connection) -> None:
        """Give away what a connection works on, also when whoever ended it does not wait for that."""
        task = asyncio.create_task(connection.leave(blame=not self._draining))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        await asyncio.shield(task)

    def drain(self) -> None:
        """From now on connections end because this process does, which is no fault of their consumers."""
        self._draining = True

    async def close(self) -> None:
        """Wait until all work is given away; the store can be closed afterwards."""
        self._draining = True
        await asyncio.gather(*self._leaving, return_exceptions=True)
