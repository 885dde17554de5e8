"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from watchkeeper.models.interface import Usage

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)


class Metrics:
    """The counters of one server, in a registry of their own.

    Args:
        running: Tells how many requests the engine works on.
        waiting: Tells how many wait for their turn.
    """

    def __init__(self, *, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "watchkeeper_requests",
            "Requests that were answered.",
            ["endpoint", "status"],
            registry=self._registry,
        )
        self._tokens = Counter(
            "watchkeeper_tokens",
            "Tokens of prompts (and of them the reused ones), and generated ones (and the forced ones).",
            ["kind"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "watchkeeper_request_seconds",
            "Time until an answer was complete.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._first = Histogram(
            "watchkeeper_first_piece_seconds",
            "Time until the first piece of a streamed answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        for kind in ("prompt", "cached", "generated", "forced"):
            self._tokens.labels(kind)
        gauge = Gauge("watchkeeper_requests_running", "Requests in the engine.", registry=self._registry)
        gauge.set_function(running)
        gauge = Gauge(
            "watchkeeper_requests_waiting", "Requests that wait for their turn.", registry=self._registry
        )
        gauge.set_function(waiting)

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request that is over."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def first_piece(self, seconds: float) -> None:
        """Note when a stream began to answer."""
        self._first.observe(seconds)

    def spent(self, usage: Usage) -> None:
        """Count the tokens of an answer."""
        self._tokens.labels("prompt").inc(usage.prompt_tokens)
        self._tokens.labels("cached").inc(usage.cached_tokens)
        self._tokens.labels("generated").inc(usage.generated_tokens)
        self._tokens.labels("forced").inc(usage.forced_tokens)

    def exposition(self) -> bytes:
        """Return everything in the text format of Prometheus."""
        return generate_latest(self._registry)
