"""What the server of predictors counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The counters of one server, in a registry of their own.

    Args:
        waiting: Tells how many rows wait.
        problems: Tells how many versions cannot be loaded.
    """

    def __init__(self, *, waiting: Callable[[], int], problems: Callable[[], int]) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "watchkeeper_predictor_requests",
            "Requests that were answered.",
            ["predictor", "status"],
            registry=registry,
        )
        self._rows = Counter(
            "watchkeeper_predictor_rows",
            "Rows that were answered, by the version that answered and as what.",
            ["predictor", "version", "role"],
            registry=registry,
        )
        self._seconds = Histogram(
            "watchkeeper_predictor_seconds",
            "Time until a request was answered.",
            ["predictor"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "watchkeeper_predictor_batch_rows",
            "Rows that were computed together.",
            ["predictor"],
            buckets=_ROWS,
            registry=registry,
        )
        self._challenger_lost = Counter(
            "watchkeeper_predictor_challenger_lost",
            "Requests that the challenger was to answer and did not: it was busy, or failed.",
            ["predictor"],
            registry=registry,
        )
        self._unrecorded = Counter(
            "watchkeeper_predictor_unrecorded",
            "Rows that were answered, or failed, and could not be recorded.",
            ["predictor"],
            registry=registry,
        )
        self._version = Gauge(
            "watchkeeper_predictor_version",
            "The version that an alias names here.",
            ["predictor", "alias"],
            registry=registry,
        )
        gauge = Gauge("watchkeeper_predictor_rows_waiting", "Rows that wait.", registry=registry)
        gauge.set_function(waiting)
        gauge = Gauge(
            "watchkeeper_predictor_load_problems", "Versions that cannot be loaded.", registry=registry
        )
        gauge.set_function(problems)

    def answered(self, predictor: str, status: int, seconds: float) -> None:
        """Count a request that is over."""
        self._requests.labels(predictor, str(status)).inc()
        self._seconds.labels(predictor).observe(seconds)

    def computed(self, predictor: str, version: int, role: str, rows: int) -> None:
        """Count rows that a version answered."""
        self._rows.labels(predictor, str(version), role).inc(rows)

    def batch(self, predictor: str, rows: int) -> None:
        """Note how many rows were computed together."""
        self._batches.labels(predictor).observe(rows)

    def challenger_lost(self, predictor: str) -> None:
        """Count a request that the challenger was to answer and did not."""
        self._challenger_lost.labels(predictor).inc()

    def unrecorded(self, predictor: str, rows: int) -> None:
        """Count rows that could not be recorded."""
        self._unrecorded.labels(predictor).inc(rows)

    def exposition(self, versions: dict[tuple[str, str], int]) -> bytes:
        """Return everything in the text format of Prometheus.

        Args:
            versions: The version of each predictor and alias.
        """
        self._version.clear()
        for (predictor, alias), number in versions.items():
            self._version.labels(predictor, alias).set(number)
        return generate_latest(self._registry)
