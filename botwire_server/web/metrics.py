"""`/metrics`: what the server counted, in Prometheus' text format.

The numbers are kept elsewhere as plain integers and become Prometheus' objects only here, when
somebody asks: a request costs no more for it. It names no tenant unless it is told to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from botwire_server import __version__
from botwire_server.errors import Refusal
from botwire_server.lazy import prometheus
from botwire_server.metrics import MOST_TENANTS, EmbedderCounters, Histogram, LoopCounters, Requests
from botwire_server.store.directory import DataDirectory
from botwire_server.store.gauges import Gauges, gauges
from botwire_server.web.description import STRING, Answer, Shape, operation
from botwire_server.web.dialect import Dialect, Resource

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

PATH = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATUS_CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")
QUOTAS = (
    "calls",
    "writes",
    "namespace_bytes",
    "storage",
    "vectors",
    "agents",
    "failed_keys",
    "other",
)
# Tenants beyond the number that is told by name.
OTHERS = ""


class Sources(NamedTuple):
    """Where the numbers come from."""

    requests: Requests
    directory: DataDirectory
    embedder: EmbedderCounters
    embedder_name: str
    connections: int
    loop: LoopCounters
    failed_keys: int


def dialect(
    sources: Callable[[], Sources],
    *,
    tenants: bool,
    refuse: Callable[[Refusal, str], Response],
    refusal: Shape,
) -> Dialect:
    """The route on the main listener, for operators; it refuses as they know it."""
    page = Page(sources, tenants=tenants)

    async def metrics(request: Request) -> Response:
        return await page.response()

    answer = Answer("Counters, gauges and histograms.", STRING, media_type="text/plain")
    return Dialect(
        title="Server",
        prefix=PATH,
        routes=[
            Resource(
                PATH,
                GET=operation(
                    metrics,
                    "get_metrics",
                    "What the server does, for Prometheus",
                    answers={200: answer},
                ),
            )
        ],
        refuse=refuse,
        refusal=refusal,
        operator=True,
    )


class Page:
    """What a scrape is answered; those that ask at once share one."""

    def __init__(self, sources: Callable[[], Sources], *, tenants: bool) -> None:
        self._sources = sources
        self._tenants = tenants
        self._writing: asyncio.Task[bytes] | None = None
        self._process: CollectorRegistry | None = None

    async def response(self) -> Response:
        """The page of this moment."""
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
            self._writing.add_done_callback(self._written)
        body = await asyncio.shield(self._writing)
        return Response(body, headers={"Content-Type": CONTENT_TYPE})

    def _written(self, _: asyncio.Task[bytes]) -> None:
        self._writing = None

    async def _write(self) -> bytes:
        if self._process is None:
            # It loads for a while, which a server that nobody watches need not.
            await asyncio.to_thread(lambda: prometheus.registry)
            self._process = prometheus.CollectorRegistry()
            prometheus.ProcessCollector(registry=self._process)
        sources = self._sources()
        by_tenant = sources.requests.by_tenant
        counted = None if by_tenant is None else dict(by_tenant)
        now = await gauges(
            sources.directory,
            most_tenants=MOST_TENANTS if self._tenants else 0,
            named=list(counted or ()),
        )
        return await asyncio.to_thread(_page, _Collector(sources, now, counted), self._process)


def _page(collector: _Collector, process: CollectorRegistry) -> bytes:
    """The page as text: thousands of lines where tenants are told apart."""
    registry = prometheus.CollectorRegistry()
    registry.register(collector)
    written: bytes = prometheus.generate_latest(registry) + prometheus.generate_latest(process)
    return written


class _Collector:
    def __init__(
        self, sources: Sources, now: Gauges, counted: Mapping[str, Sequence[int]] | None
    ) -> None:
        self._sources = sources
        self._now = now
        self._counted = counted  # requests by tenant

    def collect(self) -> Iterator[Metric]:
        """Everything, once."""
        yield from self._requests()
        yield from self._loop()
        yield from self._store()
        yield from self._holdings()
        yield from self._embedder()
        if self._counted is not None:
            yield from self._by_tenant(self._counted)

    def _requests(self) -> Iterator[Metric]:
        sources = self._sources
        info = {(__version__, sources.embedder_name): 1}
        yield _gauge("botwire_info", "What runs here.", ("version", "embedder"), info)
        yield _one("botwire_connections", "Connections to the main listener.", sources.connections)
        routes = sorted(sources.requests.routes.items())
        yield _counter(
            "botwire_requests",
            "Answered requests; 499 is a client that went away.",
            ("method", "route", "status"),
            {
                (method, route, str(status)): count
                for (method, route), (_, statuses) in routes
                for status, count in sorted(statuses.items())
            },
        )
        yield _histogram(
            "botwire_request_seconds",
            "From the head of a request to the end of its answer.",
            ("method", "route"),
            # Those that never became a request took no time.
            ((labels, histogram) for labels, (histogram, _) in routes if labels[0] != "-"),
        )
        yield _counter(
            "botwire_quota_refusals",
            "Requests refused because a limit of the tenant is used up, or of keys that fail.",
            ("limit",),
            {(kind,): sources.requests.refused.get(kind, 0) for kind in QUOTAS},
        )
        yield _total(
            "botwire_failed_keys", "Requests with a key that does not work.", sources.failed_keys
        )

    def _loop(self) -> Iterator[Metric]:
        loop = self._sources.loop
        yield _histogram(
            "botwire_loop_late_seconds",
            "How late the event loop came to the beats that it owes itself.",
            (),
            [((), loop.late)],
        )
        yield _one("botwire_loop_longest_stand_seconds", "The longest it stood.", loop.longest)
        yield _total("botwire_loop_stalls", "Times that it stood for over a second.", loop.stalls)

    def _store(self) -> Iterator[Metric]:
        counters, now = self._sources.directory.counters, self._now
        files = {"namespace": counters.namespaces, "registry": counters.registry}
        yield _histogram(
            "botwire_commit_seconds",
            "How long a commit took; with full durability it waits for the disk.",
            ("file",),
            (((file,), work.seconds) for file, work in files.items()),
        )
        yield _histogram(
            "botwire_commit_units",
            "How many writes shared a commit.",
            ("file",),
            (((file,), work.units) for file, work in files.items()),
        )
        yield _counter(
            "botwire_failed_units",
            "Units of work that failed because of SQLite or the disk.",
            ("file",),
            {(file,): work.failures for file, work in files.items()},
        )
        yield _gauge(
            "botwire_queued_units",
            "Units of work that wait for those that run.",
            ("file",),
            {("namespace",): now.queued, ("registry",): now.registry_queued},
        )
        yield _one("botwire_longest_queue", "The longest of one namespace.", now.longest_queue)
        yield _one("botwire_open_namespaces", "Namespaces that are open.", now.open_namespaces)
        yield _total("botwire_opened_namespaces", "Namespaces that were opened.", counters.opened)
        yield _total("botwire_purges", "Purges that were finished.", counters.purges)
        yield _one("botwire_purges_waiting", "Purges that are begun.", now.purges_waiting)
        yield _one("botwire_chores_waiting", "Chores still to be done.", now.chores_waiting)
        yield _total(
            "botwire_housekeeping_failures",
            "Rounds of housekeeping that failed.",
            counters.housekeeping_failures,
        )

    def _holdings(self) -> Iterator[Metric]:
        now = self._now
        yield _one("botwire_tenants", "Tenants.", now.tenants)
        yield _one("botwire_namespaces", "Namespaces.", now.holdings.namespaces)
        held = now.holdings.held._asdict()
        yield _one("botwire_held_bytes", "Bytes of what is stored.", held.pop("bytes"))
        kinds = {(kind,): count for kind, count in held.items()}
        yield _gauge("botwire_held", "What is stored, about a second ago.", ("kind",), kinds)

    def _embedder(self) -> Iterator[Metric]:
        counters = self._sources.embedder
        yield _histogram(
            "botwire_embedder_seconds",
            "Calls of the embedder that succeeded.",
            (),
            [((), counters.seconds)],
        )
        yield _total("botwire_embedded_texts", "Texts that got a vector.", counters.texts)
        yield _total("botwire_embedder_failures", "Calls that failed.", counters.failures)

    def _by_tenant(self, counted: Mapping[str, Sequence[int]]) -> Iterator[Metric]:
        requests: dict[tuple[str, ...], float] = {}
        rows = [(self._now.names.get(id), counts) for id, counts in counted.items()]
        for name, counts in [*rows, (OTHERS, self._sources.requests.of_others)]:
            if name is not None:  # purged since
                for status, count in zip(STATUS_CLASSES, counts, strict=True):
                    if count:
                        requests[name, status] = count
        held = sorted(self._now.by_tenant.items())
        yield _counter(
            "botwire_tenant_requests", "Answered requests.", ("tenant", "status"), requests
        )
        for what in ("namespaces", "bytes", "vectors"):
            yield _gauge(
                f"botwire_tenant_{what}",
                f"The {what} of a tenant.",
                ("tenant",),
                {
                    (name,): holdings.namespaces
                    if what == "namespaces"
                    else getattr(holdings.held, what)
                    for name, holdings in held
                },
            )


# By the values of the labels, a tuple of strings.
Values = Mapping[Any, float]


def _gauge(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    metric = prometheus.metrics_core.GaugeMetricFamily(name, text, labels=labels)
    for of, value in values.items():
        metric.add_metric(of, value)
    return metric


def _counter(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    metric = prometheus.metrics_core.CounterMetricFamily(name, text, labels=labels)
    for of, value in values.items():
        metric.add_metric(of, value)
    return metric


def _one(name: str, text: str, value: float) -> Metric:
    return _gauge(name, text, (), {(): value})


def _total(name: str, text: str, value: float) -> Metric:
    return _counter(name, text, (), {(): value})


def _histogram(
    name: str,
    text: str,
    labels: Sequence[str],
    histograms: Iterable[tuple[tuple[str, ...], Histogram]],
) -> Metric:
    metric = prometheus.metrics_core.HistogramMetricFamily(name, text, labels=labels)
    for of, histogram in histograms:
        bounds = [str(float(bound)) for bound in histogram.bounds] + ["+Inf"]
        so_far = accumulate(histogram.counts)
        metric.add_metric(of, list(zip(bounds, so_far, strict=True)), histogram.sum)
    return metric
