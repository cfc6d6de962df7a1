"""Prometheus metrics of one process: calls by code and latency, streams, due work, charges, e-mail, webhooks,
parked books."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from billing_server.api.limits import Limits
from billing_server.config import Address
from billing_server.delivery.mail import Mail
from billing_server.delivery.streams import EventStreams
from billing_server.delivery.webhooks import WebhookDispatcher
from billing_server.engine.engine import Engine
from billing_server.engine.lateness import BOUNDS_SECONDS, Lateness
from billing_server.store.webhook import WebhookBacklog

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counts calls, and reads the rest from the process's parts when it is asked."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._series: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._calls = Counter(
            "billing_calls", "Calls by method and status code.", ("method", "code"), registry=self.registry
        )
        self._seconds = Histogram(
            "billing_call_seconds", "Time that calls took.", ("method",), buckets=_BUCKETS, registry=self.registry
        )

    def ended(self, method: str, code: str, seconds: float) -> None:
        """A call of this method ended with the code of this name after so long."""
        series = self._series.get((method, code))
        if series is None:
            series = self._series[method, code] = (self._calls.labels(method, code), self._seconds.labels(method))
        series[0].inc()
        series[1].observe(seconds)

    def watch(
        self,
        engine: Engine,
        limits: Limits,
        streams: EventStreams,
        backlog: Backlog,
        mail: Mail,
        webhooks: WebhookDispatcher,
    ) -> None:
        """Show the state of these parts as well."""
        self.registry.register(_Parts(engine, limits, streams, backlog, mail, webhooks))

    def serve(self, address: Address) -> MetricsServer:
        """Answer scrapes over HTTP in a thread of its own. Raises OSError when the address is taken."""
        server, thread = start_http_server(address.port, address.host, self.registry)
        return MetricsServer(server, thread)


class MetricsServer:
    """The HTTP server that answers scrapes."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Backlog:
    """What was due but not yet billed when that was last looked at: books, and seconds since the first was due.

    `unresolved` are books with charges or refunds of which it was not known what became of them; `webhooks`
    are those that wait.
    """

    books = 0
    seconds = 0
    unresolved = 0
    webhooks = WebhookBacklog()


class _Parts(Collector):
    """What the parts of the process say of themselves. Read from the scraping thread: plain numbers only."""

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        streams: EventStreams,
        backlog: Backlog,
        mail: Mail,
        webhooks: WebhookDispatcher,
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._streams = streams
        self._backlog = backlog
        self._mail = mail
        self._webhooks = webhooks

    def collect(self) -> Iterable[Metric]:
        """All values as they are now."""
        engine = self._engine
        yield _gauge("billing_due_books", "Books that are due and not billed yet.", self._backlog.books)
        yield _gauge("billing_due_seconds", "Time since the first of them was due.", self._backlog.seconds)
        yield _gauge(
            "billing_unresolved_books",
            "Books with charges or refunds whose outcome is not known yet.",
            self._backlog.unresolved,
        )
        yield _lateness(engine.door.lateness)
        waits = engine.store.waits
        yield _gauge("billing_connections_awaited", "Pieces of work that wait for a connection.", waits.waiting)
        yield SummaryMetricFamily(
            "billing_connection_wait_seconds",
            "Time that work waited for a connection to the database.",
            count_value=waits.count,
            sum_value=waits.seconds,
        )
        yield _gauge("billing_calls_running", "Calls that are being answered.", self._limits.calls)
        yield _gauge("billing_streams_open", "Streams that are open.", self._limits.streams)
        yield _gauge("billing_stream_lag_events", "Events that the slowest stream is behind.", self._streams.lag)
        yield _gauge("billing_commands_waiting", "Commands that wait for their batch.", engine.group.waiting)
        yield _gauge("billing_timekeeper_failing", "1 while the timekeeper fails.", int(engine.timekeeper.failing))
        yield CounterMetricFamily("billing_timekeeper_failures", "Ticks that failed.", engine.timekeeper.failures)
        yield CounterMetricFamily("billing_books_parked", "Books put aside because they failed.", engine.door.parked)
        charges = CounterMetricFamily("billing_charges", "Answers of the payment gateway.", labels=["outcome"])
        for outcome, count in sorted(engine.cashier.outcomes.items()):
            charges.add_metric([outcome], count)
        yield charges
        messages = CounterMetricFamily("billing_messages", "Tries to send an e-mail.", labels=["outcome"])
        for outcome, count in sorted(self._mail.outcomes.items()):
            messages.add_metric([outcome], count)
        yield messages
        waiting = self._backlog.webhooks
        yield _gauge("billing_webhooks_pending", "Webhooks on their way.", waiting.pending)
        yield _gauge("billing_webhooks_late_seconds", "Time since the first of them was due.", waiting.late_seconds)
        yield _gauge(
            "billing_webhooks_behind_events", "Events that the slowest healthy endpoint has not got.", waiting.behind
        )
        yield _gauge("billing_webhook_endpoints_sick", "Endpoints that are only sounded out.", waiting.sick)
        webhooks = CounterMetricFamily("billing_webhooks", "Tries to send a webhook.", labels=["outcome"])
        for outcome, count in sorted(self._webhooks.outcomes.items()):
            webhooks.add_metric([outcome], count)
        yield webhooks


def _lateness(lateness: Lateness) -> HistogramMetricFamily:
    """The wake-ups as a histogram, whose classes include those before them."""
    counts = list(itertools.accumulate(lateness.counts))
    bounds = [*map(str, map(float, BOUNDS_SECONDS)), "+Inf"]
    return HistogramMetricFamily(
        "billing_wake_lateness_seconds",
        "How long after their due time books were billed.",
        buckets=list(zip(bounds, counts, strict=True)),
        sum_value=lateness.seconds,
    )


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value)
