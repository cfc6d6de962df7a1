"""Receivers of webhooks, hard to please: they fail a share, take their time, hang up after they have taken an event,
and go away for a while. What they are sent is kept, for the audit.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Final

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

FAILING_AT_FIRST: Final = 3
"""The first requests fail for certain, in a storm or in peace, so that each run has some that do."""

FAILING: Final = 0.15
HANGING_UP: Final = 0.05
SLOW_SECONDS_MAX: Final = 0.1
VERY_SLOW: Final = 0.01
VERY_SLOW_SECONDS: Final = 3.0
OPEN_SECONDS_MAX: Final = 60.0
_PAUSE_SECONDS: Final = 0.2


class Receiver:
    """An HTTP server on loopback, for one endpoint of one account. `event_types` are the endpoint's filters.

    `taken` holds the body of each event that was taken, by `webhook-id`; what comes again must be the same.
    `faults` tells of requests that nobody may send. While it is `polite` it takes everything at once, but
    for the first requests.
    """

    def __init__(self, name: str, event_types: Sequence[str], dice: random.Random) -> None:
        self.name = name
        self.event_types = tuple(event_types)
        self.endpoint = ""
        self.secrets: list[str] = []
        self.taken: dict[str, bytes] = {}
        self.requests = 0
        self.faults: list[str] = []
        self.polite = True
        self._dice = dice
        self._port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}/{self.name}"

    async def open(self) -> None:
        """Listen, on the same port as before."""
        app = web.Application()
        app.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        async with asyncio.timeout(OPEN_SECONDS_MAX):
            await self._listen(self._runner)
        self._port = self._runner.addresses[0][1]

    async def _listen(self, runner: web.AppRunner) -> None:
        """While it was away somebody may have been given its port for a connection; that ends."""
        while True:
            try:
                await web.TCPSite(runner, "127.0.0.1", self._port).start()
            except OSError:
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return

    async def close(self) -> None:
        """Be away."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests += 1
        identity = request.headers.get("webhook-id", "")
        if not self.is_signed(body, dict(request.headers)):
            self.faults.append(f"{identity} bears no valid signature")
        if not self.polite:
            await self._dawdle()
        if self.requests <= FAILING_AT_FIRST or (not self.polite and self._dice.random() < FAILING):
            return web.Response(status=self._dice.choice((500, 503, 404)))
        known = self.taken.setdefault(identity, body)
        if json.loads(known) != json.loads(body):
            self.faults.append(f"{identity} came again with other content: {known.decode()}, {body.decode()}")
        if not self.polite and self._dice.random() < HANGING_UP and request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _dawdle(self) -> None:
        very_slow = self._dice.random() < VERY_SLOW
        await asyncio.sleep(VERY_SLOW_SECONDS if very_slow else self._dice.uniform(0, SLOW_SECONDS_MAX))

    def is_signed(self, body: bytes, headers: dict[str, str]) -> bool:
        """Whether one of the secrets has signed it: while they rotate, several do."""
        for secret in self.secrets:
            try:
                Webhook(secret).verify(body, headers)
            except WebhookVerificationError:
                continue
            return True
        return False
