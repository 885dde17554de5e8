"""Blast radius: how many hosts, and which share of the fleet, were touched within some time."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

_SPAN = re.compile(r"([1-9]\d{0,5})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
LONGEST_SPAN = timedelta(days=90)
"""No policy looks back further than this."""


def span_of(text: str) -> timedelta:
    """Read a time span: a number and ``s``, ``m``, ``h`` or ``d``.

    Raises:
        ValueError: If it is not one, or longer than 90 days.
    """
    parts = _SPAN.fullmatch(text)
    span = timedelta(**{_UNITS[parts[2]]: int(parts[1])}) if parts else timedelta.max
    if span > LONGEST_SPAN:
        raise ValueError(
            f"{text!r} is not a time span of at most 90 days: a number and s, m, h or d, such as 1h or 7d"
        )
    return span


def _checked(text: str) -> str:
    span_of(text)
    return text


Span = Annotated[str, AfterValidator(_checked)]
"""A time span as it is written: ``1h``."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Touch(_Record):
    """One host that an effect touched.

    Attributes:
        host: Its name.
        at: When the effect, or its being taken back, was about to happen last.
        unfinished: Whether its outcome is not known: it may still be at work, so it counts whatever its age.
    """

    host: str
    at: AwareDatetime
    unfinished: bool = False


class Reach(_Record):
    """What was touched within some time, with the action at hand counted in.

    Attributes:
        hosts: How many hosts.
        share: Which share of the hosts there are, from 0 to 1.
        actions: How many actions.
    """

    hosts: int = Field(ge=0)
    share: float = Field(ge=0, le=1)
    actions: int = Field(ge=0)


class BlastRadius(_Record):
    """What was touched, across all incidents, and the fleet that it is a part of.

    Attributes:
        touches: What effects touched, as the ledger knows it.
        fleet: Labels of every host of the inventory, by its name.
        fixed: What is answered whatever was touched: for examples and cases.
    """

    touches: tuple[Touch, ...] = ()
    fleet: dict[str, dict[str, str]] = Field(default_factory=dict)
    fixed: Reach | None = None

    def within(self, span: str, *, host: str, now: datetime, group: str | None = None) -> Reach:
        """Count what is touched within a time span before a moment, if one more action acts on a host now.

        Args:
            span: The time span, such as ``1h``.
            host: Host of the action at hand.
            now: The moment.
            group: A label: only hosts with the same value of it as the host count. A host that left the
                inventory counts in every group, and what a clock that runs ahead dates later counts, too.

        Raises:
            ValueError: If it is not a time span.
        """
        if self.fixed is not None:
            return self.fixed
        labels = self.fleet.get(host, {})

        def counts(name: str) -> bool:
            other = self.fleet.get(name)
            return group is None or other is None or other.get(group) == labels.get(group)

        since = now - span_of(span)
        touched = [
            touch.host
            for touch in self.touches
            if (touch.unfinished or touch.at > since) and counts(touch.host)
        ]
        hosts = {host, *touched}
        fleet = {host, *(name for name in self.fleet if counts(name))}
        return Reach(hosts=len(hosts), share=min(1.0, len(hosts) / len(fleet)), actions=len(touched) + 1)
