"""What a running server counts: plain numbers, so that counting costs next to nothing.

Everything is counted on the event loop. Whoever shows these numbers to somebody (`web.metrics`)
reads them when asked; this module knows no format and no names of tenants.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

# Upper bounds in seconds; what is slower than the last is counted beyond it.
REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
BATCH_UNITS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
EMBEDDING_SECONDS = (0.0005, 0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STAND_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

# Others are counted as one: whoever asks must not make up rows. "-" is a request without one.
METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "-"})

# A tenant more than this has its requests counted with all the others'.
MOST_TENANTS = 1_000


class Histogram:
    """How many values lie up to each of some bounds, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


Route = tuple[Histogram, Counter[int]]


class Requests:
    """Answered requests by method and route template, how long they took, and their statuses.

    `by_tenant` counts by tenant id and class of status, where that is asked for.
    """

    def __init__(self, *, tenants: bool = False) -> None:
        self.routes: dict[tuple[str, str], Route] = {}
        self._cells: dict[tuple[str, str], Route] = {}
        self.refused: Counter[str] = Counter()  # by kind of quota
        self.by_tenant: dict[str, list[int]] | None = {} if tenants else None
        self.of_others = [0] * 6

    def add(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        cell = self._cells.get((method, route))
        if cell is None:
            known = (method if method in METHODS else "other", route)
            cell = self.routes.setdefault(known, (Histogram(REQUEST_SECONDS), Counter()))
            self._cells[method, route] = cell
        histogram, statuses = cell
        histogram.counts[bisect_left(REQUEST_SECONDS, seconds)] += 1
        histogram.sum += seconds
        statuses[status] += 1

    def add_for_tenant(self, tenant_id: str, status: int) -> None:
        """Count it for its tenant too."""
        assert self.by_tenant is not None
        counts = self.by_tenant.get(tenant_id)
        if counts is None:
            if len(self.by_tenant) >= MOST_TENANTS:
                counts = self.of_others
            else:
                counts = self.by_tenant[tenant_id] = [0] * 6
        counts[status // 100 if status < 600 else 0] += 1


class Work:
    """What the files of one kind have done: commits, how many units shared each, failures."""

    def __init__(self) -> None:
        self.units = Histogram(BATCH_UNITS)
        self.seconds = Histogram(COMMIT_SECONDS)
        self.failures = 0  # units of work that SQLite or the disk failed

    def committed(self, units: int, seconds: float) -> None:
        """Count a commit that `units` shared."""
        self.units.add(units)
        self.seconds.add(seconds)


class StoreCounters:
    """What one data directory has done since it was opened."""

    def __init__(self) -> None:
        self.namespaces = Work()
        self.registry = Work()
        self.opened = 0
        self.purges = 0
        self.housekeeping_failures = 0


class LoopCounters:
    """How late the event loop came to its beats; `stalls` are those it was far too late to."""

    def __init__(self) -> None:
        self.late = Histogram(STAND_SECONDS)
        self.longest = 0.0
        self.stalls = 0

    def stood(self, seconds: float, *, stalled: bool) -> None:
        """Count a beat."""
        self.late.add(seconds)
        self.longest = max(self.longest, seconds)
        self.stalls += stalled


class EmbedderCounters:
    """What the embedder was asked. `failing` is whether its last call failed."""

    def __init__(self) -> None:
        self.seconds = Histogram(EMBEDDING_SECONDS)
        self.texts = 0
        self.failures = 0
        self.failing = False
