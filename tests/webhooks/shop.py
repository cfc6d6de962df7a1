"""A receiver of webhooks that verifies what it gets, and can be told to misbehave."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook

Answer = int | web.Response
OPEN_SECONDS_MAX = 60.0
TAKE_AND_DROP = 0
"""Takes the event, then breaks the connection: the sender cannot know that it was taken."""


class Shop:
    """An HTTP server on loopback. Each request is verified by the public library, then answered as `choose` says.

    `taken` counts the requests that were answered with 2xx by their `webhook-id`, `tried` all of them; `events` are
    the bodies that were taken, in their order.
    """

    def __init__(self) -> None:
        self.secrets: list[str] = []
        self.taken: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()
        self.events: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.under_way = 0
        self.most_under_way = 0
        self.arrived = asyncio.Event()
        self.choose: Callable[[dict[str, Any]], Answer] = lambda event: 200
        self.release = asyncio.Event()
        self.release.set()
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hooks"

    async def open(self) -> None:
        """Listen, on the same port as before."""
        app = web.Application()
        app.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        async with asyncio.timeout(OPEN_SECONDS_MAX):
            await self._listen(self._runner)
        self.port = self._runner.addresses[0][1]

    async def _listen(self, runner: web.AppRunner) -> None:
        """While it was away somebody may have been given its port for a connection; that ends."""
        while True:
            try:
                await web.TCPSite(runner, "127.0.0.1", self.port).start()
            except OSError:
                await asyncio.sleep(0.1)
            else:
                return

    async def close(self) -> None:
        """Be away."""
        self.release.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def verify(self, body: bytes, headers: dict[str, str]) -> None:
        """Check the signature by each secret. Raises WebhookVerificationError."""
        for secret in self.secrets:
            Webhook(secret).verify(body, headers)

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = dict(request.headers)
        event = json.loads(body)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            self.tried[headers["webhook-id"]] += 1
            self.arrived.set()
            await self.release.wait()
            self.verify(body, headers)
            answer = self.choose(event)
        finally:
            self.under_way -= 1
        if answer == TAKE_AND_DROP and request.transport is not None:
            request.transport.abort()
        response = answer if isinstance(answer, web.Response) else web.Response(status=answer or 200)
        if 200 <= response.status < 300:
            self.taken[headers["webhook-id"]] += 1
            self.events.append(event)
            self.headers.append(headers)
            self.bodies.append(body)
        return response
