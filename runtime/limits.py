"""Limits on what is done at all: how many actions in a time, how often one may fail or repeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from sqlalchemy import ColumnElement, select

from watchkeeper.runtime import schema
from watchkeeper.runtime.clock import Clock
from watchkeeper.runtime.store import Store

MAX_ACTIONS = 6
"""Actions that may be applied for one incident, where nothing else is said."""

_DAY = 86_400.0
_NOT_DONE = "not-done"


class BreakerLimits(BaseModel):
    """When the circuit breaker of an action opens.

    Attributes:
        failures: Failures (or roll-backs) within the time that open it.
        within_seconds: The time.
        retry_seconds: Time from the last failure until one try may be asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    failures: int = Field(default=3, ge=1, le=1000)
    within_seconds: float = Field(default=3600, gt=0, le=366 * _DAY)
    retry_seconds: float = Field(default=1800, gt=0, le=366 * _DAY)


class RepeatLimits(BaseModel):
    """How often the same may be tried before people are told that it goes in circles.

    Attributes:
        times: Incidents in a row which the same action may resolve for the same alert.
        within_seconds: An alert that comes again within this time of the last incident's end is the same one.
        readings: How often one incident may read the same fact.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    times: int = Field(default=2, ge=1, le=1000)
    within_seconds: float = Field(default=3600, gt=0, le=366 * _DAY)
    readings: int = Field(default=4, ge=1, le=1000)


class Limits(BaseModel):
    """What no policy and no approval goes beyond; the ``limits`` section of the settings.

    Attributes:
        window_seconds: Time over which actions are counted, across incidents.
        actions_per_host: Actions on one host in that time.
        actions_of_a_kind: Actions of one name in that time, on all hosts.
        actions_in_all: Actions in that time.
        breaker: When an action that fails is stopped.
        repeats: When an action that helps for a short time only is stopped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_seconds: float = Field(default=3600, gt=0, le=366 * _DAY)
    actions_per_host: int = Field(default=20, ge=0, le=1_000_000)
    actions_of_a_kind: int = Field(default=20, ge=0, le=1_000_000)
    actions_in_all: int = Field(default=60, ge=0, le=1_000_000)
    breaker: BreakerLimits = BreakerLimits()
    repeats: RepeatLimits = RepeatLimits()


@dataclass(frozen=True, slots=True, order=True)
class ActionTarget:
    """What an action is done to.

    Attributes:
        action: Registered name.
        host: Where.
        service: The service that its arguments name; empty where they name none.
    """

    action: str
    host: str
    service: str = ""

    @classmethod
    def of(cls, action: str, host: str, arguments: dict[str, JsonValue]) -> ActionTarget:
        """Take it from the arguments of an action."""
        return cls(action, host, str(arguments.get("service") or ""))

    def __str__(self) -> str:
        return f"{self.action} on {self.host}" + (f" ({self.service})" if self.service else "")


class RateLimits:
    """Counts the actions of all incidents in the effect ledger.

    Args:
        store: Where the ledger is.
        limits: How many there may be.
        now: The time; by default the store's, which is one for all machines.
    """

    def __init__(self, store: Store, limits: Limits, *, now: Clock | None = None) -> None:
        self._store = store
        self._limits = limits
        self._now = now or store.now

    def refusal(self, host: str, actions: Sequence[str]) -> str:
        """Say why these actions may not be done on a host now, and when they may; empty if they may.

        Inside a transaction what it counts cannot change before that ends.

        Args:
            host: Where.
            actions: Names of the actions of a plan, in their order.
        """
        table = schema.effects.c
        limits = self._limits
        checks: list[tuple[str, int, int, list[ColumnElement[bool]]]] = [
            ("in all", len(actions), limits.actions_in_all, []),
            (f"on {host}", len(actions), limits.actions_per_host, [table.host == host]),
            *(
                (f"of {name}", count, limits.actions_of_a_kind, [table.action == name])
                for name, count in Counter(actions).items()
            ),
        ]
        for what, wanted, limit, conditions in checks:
            refused = self._check(what, wanted, limit, conditions)
            if refused:
                return refused
        return ""

    def _check(self, what: str, wanted: int, limit: int, conditions: list[ColumnElement[bool]]) -> str:
        table = schema.effects.c
        window = timedelta(seconds=self._limits.window_seconds)
        now = self._now()
        query = (
            select(table.intended_at)
            .where(table.intended_at > now - window, table.state != _NOT_DONE, *conditions)
            .order_by(table.intended_at.desc())
            .limit(limit)
        )
        with self._store.reading() as connection:
            times: list[datetime] = list(connection.execute(query).scalars())
        if len(times) + wanted <= limit:
            return ""
        said = f"{limit} actions {what} in {self._limits.window_seconds:.0f} s are allowed, {len(times)} were"
        said += f" done and {wanted} more would be"
        if wanted > limit:
            return f"rate limit: {said}; raise `limits` in the settings to allow so many"
        # Enough of the oldest must have left the window.
        free = times[limit - wanted] + window
        return f"rate limit: {said}; possible again at {free:%Y-%m-%d %H:%M:%S} UTC"
