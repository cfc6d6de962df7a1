"""A consumer as a process of its own, to be killed: it notes in a file what it is given and what it acknowledges.

`python -m tests.start.consumer_process TARGET FILE`, with the key in BILLING_API_KEY. So that all of several get their
share, it pauses after each event, for BILLING_CONSUMER_PACE milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from billing.v1.event_service_pb2 import CreateConsumerRequest
from billing_client import BillingClient


async def consume(target: str, path: str) -> None:
    """Consume until killed. Each note is one write, so none is half written."""
    notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pace_seconds = float(os.environ.get("BILLING_CONSUMER_PACE", "1")) / 1_000
    create = CreateConsumerRequest(batch_max=500)
    async with BillingClient(target) as client, client.consume("crm", create=create) as deliveries:
        async for delivery in deliveries:
            position = delivery.event.position
            again = int(delivery.redelivered)
            os.write(notes, f"d {position} {time.monotonic()} {again}\na {position} {time.monotonic()} 0\n".encode())
            delivery.ack()
            if pace_seconds:
                await asyncio.sleep(pace_seconds)


if __name__ == "__main__":
    asyncio.run(consume(sys.argv[1], sys.argv[2]))
