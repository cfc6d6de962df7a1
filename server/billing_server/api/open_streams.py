"""The streams that are open now: ended from outside when their key is revoked or the server drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterable
from typing import Any, Final

from billing_server.api.call import Identity
from billing_server.api.keys import KeyRing
from billing_server.api.refusals import Unauthenticated, Unavailable
from billing_server.domain.errors import DomainError
from billing_server.store.errors import StoreError

LOGGER = logging.getLogger(__name__)

RECHECK_SECONDS: Final = 3.0


class OpenStreams:
    """Runs streams as tasks that may be ended with a refusal that their callers are told."""

    def __init__(self, key_ring: KeyRing, *, recheck_seconds: float = RECHECK_SECONDS) -> None:
        self._key_ring = key_ring
        self._recheck_seconds = recheck_seconds
        self._running: dict[asyncio.Task[None], Identity] = {}
        self._refusals: dict[asyncio.Task[None], DomainError] = {}
        self._draining = False
        self._checker: asyncio.Task[None] | None = None
        key_ring.on_revoked = self._revoked

    async def run(self, identity: Identity, work: Coroutine[Any, Any, None]) -> None:
        """Run a stream to its end. Raises its refusal, or the one that it was ended with."""
        if self._draining:
            work.close()
            raise _draining()
        task = asyncio.create_task(work)
        self._running[task] = identity
        if self._checker is None:
            self._checker = asyncio.create_task(self._check_keys(), name="check the keys of streams")
        try:
            await task
        except asyncio.CancelledError:
            refusal = self._refusals.get(task)
            if refusal is None:
                raise
            raise refusal from None
        finally:
            # Whoever goes away ends the task; its own clean-up must be over before the call is.
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._running.pop(task, None)
            self._refusals.pop(task, None)

    def drain(self) -> None:
        """End all streams so that their readers connect elsewhere, and begin no more."""
        self._draining = True
        self._end(list(self._running), _draining())

    async def close(self) -> None:
        """Stop checking keys."""
        self.drain()
        if self._checker is not None:
            self._checker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._checker

    def _revoked(self, key_id: str) -> None:
        tasks = [task for task, identity in self._running.items() if identity.key_id == key_id]
        self._end(tasks, Unauthenticated("the API key was revoked"))

    def _end(self, tasks: Iterable[asyncio.Task[None]], refusal: DomainError) -> None:
        for task in tasks:
            self._refusals.setdefault(task, refusal)
            task.cancel()

    async def _check_keys(self) -> None:
        """Find out which keys other processes have revoked."""
        while True:
            await asyncio.sleep(self._recheck_seconds)
            for identity in {identity.key_id: identity for identity in self._running.values()}.values():
                try:
                    found = await self._key_ring.look_up(identity.secret_hash)
                except StoreError as error:
                    LOGGER.warning("keys of open streams were not checked: %s", error)
                    break
                if found is None:
                    self._revoked(identity.key_id)


def _draining() -> DomainError:
    return Unavailable("the server is about to stop; connect again")
