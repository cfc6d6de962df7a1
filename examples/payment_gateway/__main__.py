"""Serves the example: `python -m examples.payment_gateway [--listen HOST:PORT] [--journal FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import grpc

from billing.gateway.v1.gateway_pb2_grpc import add_PaymentGatewayServicer_to_server
from examples.payment_gateway.journal import Journal
from examples.payment_gateway.processor import Processor
from examples.payment_gateway.service import ExampleGateway


async def serve(listen: str, journal_file: Path, latency_seconds: float) -> None:
    """Serve until the process is asked to stop; calls under way get five seconds."""
    journal = Journal(journal_file)
    service = ExampleGateway(journal, Processor(latency_seconds))
    server = grpc.aio.server()
    add_PaymentGatewayServicer_to_server(service, server)
    port = server.add_insecure_port(listen)
    service.resume()
    await server.start()
    print(f"example payment gateway on port {port}, remembering in {journal_file}", flush=True)
    stopping = asyncio.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_number, stopping.set)
    await stopping.wait()
    await server.stop(grace=5)
    await service.drain()
    journal.close()


def main() -> None:
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser(prog="python -m examples.payment_gateway", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:50061", help="address and port (default %(default)s)")
    parser.add_argument(
        "--journal",
        type=Path,
        default=Path(__file__).with_name("gateway.sqlite3"),
        help="SQLite file (default: gateway.sqlite3 beside this program)",
    )
    parser.add_argument(
        "--latency-seconds", type=float, default=0.0, help="how long the processor takes (default %(default)s)"
    )
    options = parser.parse_args()
    asyncio.run(serve(options.listen, options.journal, options.latency_seconds))


if __name__ == "__main__":
    main()
