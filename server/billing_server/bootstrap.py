"""The only wiring point: from settings to a server that serves, and back to nothing."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_NAME
from grpc_health.v1.health import aio as aio_health
from grpc_reflection.v1alpha import reflection

from billing_server.api.chain import Chain
from billing_server.api.described import DescribedReflection, read_descriptors, reflection_handlers
from billing_server.api.endpoints import Edge
from billing_server.api.keys import KeyRing
from billing_server.api.limits import Limits
from billing_server.api.open_streams import OpenStreams
from billing_server.api.server import SERVICE_NAMES, make_handlers
from billing_server.config import Address, Config
from billing_server.delivery.consumers import Consumers
from billing_server.delivery.letter import Sender
from billing_server.delivery.mail import Mail
from billing_server.delivery.outbox import FolderOutbox, SmtpOutbox, SmtpServer
from billing_server.delivery.receivers import Receivers
from billing_server.delivery.streams import EventStreams
from billing_server.delivery.tail import Tails
from billing_server.delivery.webhooks import WebhookDispatcher
from billing_server.engine.engine import Engine
from billing_server.gateways.port import PaymentGateway
from billing_server.gateways.remote import GatewayTls, RemoteGateway
from billing_server.gateways.test import BuiltInGateway
from billing_server.metrics import Backlog, Metrics, MetricsServer
from billing_server.store.errors import StoreError
from billing_server.store.store import Store
from billing_server.store.test_gateway import GatewayRow

LOGGER = logging.getLogger(__name__)

MAIL_FOLDER: Final = "mail"
MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
METADATA_BYTES_MAX: Final = 16 * 1024
STREAMS_OF_CONNECTION_MAX: Final = 1_000
CONNECTION_AGE_SECONDS_MAX: Final = 3_600
CONNECTION_GRACE_SECONDS: Final = 600
KEEPALIVE_SECONDS: Final = 60
KEEPALIVE_TIMEOUT_SECONDS: Final = 20
PING_SECONDS_MIN: Final = 10
_WATCH_SECONDS: Final = 1.0
_BACKLOG_SECONDS: Final = 5.0

_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class PortTakenError(Exception):
    """The address cannot be listened on; the message says what to do."""


def port_taken(address: Address, setting: str = "BILLING_LISTEN", reason: str | None = None) -> PortTakenError:
    """The refusal to start where the address cannot be had; without a reason, another program has the port."""
    problem = "another program uses the port, perhaps another billing server" if reason is None else reason
    return PortTakenError(
        f"{address} cannot be listened on ({problem}). Stop that program, or set {setting} to another HOST:PORT."
        if reason is None
        else f"{address} cannot be listened on ({problem}). Set {setting} to a HOST:PORT of this machine."
    )


def make_gateway(config: Config, store: Store) -> PaymentGateway:
    """The payment gateway that the settings name."""
    if config.gateway_target is None:
        return BuiltInGateway(store, GatewayRow)
    files = config.gateway_tls
    if files is None:
        return RemoteGateway(str(config.gateway_target))
    tls = GatewayTls(
        authorities=_content(files.authorities_file),
        certificate=_content(files.certificate_file),
        key=_content(files.key_file),
    )
    return RemoteGateway(str(config.gateway_target), tls=tls)


def make_mail(config: Config, store: Store) -> Mail:
    """The delivery of e-mail as the settings say: by SMTP, or as files in the data directory."""
    sender = Sender(config.mail_sender.address, config.mail_sender.name)
    folder = FolderOutbox(config.data_directory / MAIL_FOLDER)
    smtp = config.smtp
    if smtp is None:
        return Mail(store, folder, sender, sandbox=folder)
    server = SmtpServer(
        host=smtp.address.host,
        port=smtp.address.port,
        security=smtp.security,
        user=smtp.user,
        password=smtp.password,
    )
    outbox = SmtpOutbox(server)
    return Mail(store, outbox, sender, sandbox=outbox if smtp.test_clocks else folder)


def _content(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()


async def open_engine(config: Config, database_url: str) -> Engine:
    """An engine on a migrated database, not started. Raises StoreUnavailable."""
    store = await Store.open(database_url, max_connections=config.database_connections)
    return Engine(store, make_gateway(config, store), allow_private_webhooks=config.webhook_allow_private)


class Server:
    """One process's server. Made by `start`; `close` takes it down in order."""

    def __init__(self, config: Config, engine: Engine) -> None:
        self._config = config
        self.engine = engine
        self._key_ring = KeyRing(engine.store)
        tails = Tails(engine.store, engine.bell)
        self.event_streams = EventStreams(engine.store, engine.bell, tails)
        self.consumers = Consumers(engine.store, engine.bell, tails)
        self.limits = Limits(streams_max=config.streams_max)
        engine.door.turns_wanted = lambda: self.limits.busy
        self._open_streams = OpenStreams(self._key_ring)
        self._metrics = Metrics()
        edge = Edge(engine, self._key_ring, self.event_streams, self.consumers)
        self.chain = Chain(
            edge,
            self.limits,
            self._open_streams,
            self._metrics,
            deadline_seconds_max=config.deadline_seconds_max,
        )
        self._backlog = Backlog()
        self.mail = make_mail(config, engine.store)
        receivers = Receivers(allow_private=config.webhook_allow_private)
        self.webhooks = WebhookDispatcher(engine.store, engine.bell, engine.webhooks, receivers)
        self._health = aio_health.HealthServicer()
        self._server = grpc.aio.server(options=_options(config))
        self._metrics_server: MetricsServer | None = None
        self._watchers: list[asyncio.Task[None]] = []
        self.address = config.listen

    @classmethod
    async def start(cls, config: Config, database_url: str) -> Server:
        """Serve a migrated database. Raises PortTakenError and StoreUnavailable."""
        server = cls(config, await open_engine(config, database_url))
        try:
            await server._start()
        except BaseException:
            await server.close(drain_seconds=0)
            raise
        return server

    async def _start(self) -> None:
        self._server.add_generic_rpc_handlers((make_handlers(self.chain),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if self._config.reflection:
            names = (*SERVICE_NAMES, HEALTH_NAME, reflection.SERVICE_NAME, "grpc.channelz.v1.Channelz")
            described = DescribedReflection(names, read_descriptors())
            self._server.add_generic_rpc_handlers((reflection_handlers(described),))
            channelz.add_channelz_servicer(self._server)
        self._listen()
        self._metrics.watch(
            self.engine, self.limits, self.event_streams, self.consumers, self._backlog, self.mail, self.webhooks
        )
        if self._config.metrics_listen is not None:
            try:
                self._metrics_server = self._metrics.serve(self._config.metrics_listen)
            except OSError as error:
                raise port_taken(self._config.metrics_listen, "BILLING_METRICS_LISTEN") from error
            self._watchers.append(asyncio.create_task(self._count_backlog(), name="count what is due"))
        await self.engine.start()
        self.mail.start()
        self.webhooks.start()
        await self._server.start()
        await self._tell_health(_SERVING)
        self._watchers.append(asyncio.create_task(self._watch(), name="watch the engine's health"))

    def _listen(self) -> None:
        address = str(self._config.listen)
        try:
            if self._config.tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, _credentials(self._config))
        except RuntimeError as error:
            raise port_taken(self._config.listen) from error
        if port == 0:
            raise port_taken(self._config.listen)
        self.address = Address(self._config.listen.host, port)

    async def _watch(self) -> None:
        """Health follows the timekeeper: a server that does not bill must not look well."""
        healthy = True
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if healthy == self.engine.timekeeper.failing:
                healthy = not healthy
                LOGGER.warning("the timekeeper %s", "works again" if healthy else "fails")
                await self._tell_health(_SERVING if healthy else _NOT_SERVING)

    async def _count_backlog(self) -> None:
        """Look now and then at what is due, for the metrics."""
        while True:
            try:
                backlog = self._backlog
                backlog.books, backlog.seconds, backlog.unresolved = await self.engine.store.due_backlog()
                backlog.webhooks = await self.engine.store.webhook_backlog()
            except StoreError as error:
                LOGGER.warning("what is due was not counted: %s", error)
            await asyncio.sleep(_BACKLOG_SECONDS)

    async def _tell_health(self, status: int) -> None:
        for name in ("", *SERVICE_NAMES):
            await self._health.set(name, status)

    async def close(self, drain_seconds: float | None = None) -> None:
        """Say so, take no more calls, finish those that run, then stop time and give up the connections."""
        seconds = self._config.drain_seconds if drain_seconds is None else drain_seconds
        LOGGER.info("stopping; calls in progress get %s seconds", seconds)
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await self._health.enter_graceful_shutdown()
        self.consumers.drain()
        self._open_streams.drain()
        await self._end_calls(seconds)
        await self._open_streams.close()
        await self.consumers.close()
        await asyncio.gather(self.engine.close(seconds), self.mail.close(seconds), self.webhooks.close(seconds))
        await self.engine.store.close()
        if self._metrics_server is not None:
            await asyncio.to_thread(self._metrics_server.close)

    async def _end_calls(self, seconds: float) -> None:
        """Wait for the calls that run.

        Stopped once only: a second stop that hurries the first one crashes gRPC on Python 3.13.
        """
        await self._server.stop(seconds)


def _options(config: Config) -> list[tuple[str, Any]]:
    """Channel arguments of the server. Pings are welcome well before grpc's own 300 s (trap 7)."""
    return [
        ("grpc.so_reuseport", int(config.workers > 1)),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.max_concurrent_streams", STREAMS_OF_CONNECTION_MAX),
        ("grpc.max_connection_age_ms", CONNECTION_AGE_SECONDS_MAX * 1_000),
        ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_SECONDS * 1_000),
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1_000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_SECONDS_MIN * 1_000),
        ("grpc.enable_channelz", int(config.reflection)),
    ]


def _credentials(config: Config) -> grpc.ServerCredentials:
    tls = config.tls
    assert tls is not None
    authorities = _content(tls.client_authorities_file)
    return grpc.ssl_server_credentials(
        [(tls.key_file.read_bytes(), tls.certificate_file.read_bytes())],
        root_certificates=authorities,
        require_client_auth=authorities is not None,
    )
