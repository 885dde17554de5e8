"""Who is on call: plain arithmetic over rotations and clocks.

Turns go by the clocks of the rotation's zone, so a day on which they change is an hour shorter or longer. A
hand-over at a time that clocks skip takes place as much later; at one that they show twice, the first time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from watchkeeper.runtime.escalation_rules import (
    EVERYONE,
    EscalationRules,
    Hours,
    Level,
    Plan,
    Rotation,
    Weekday,
)
from watchkeeper.runtime.times import zone_of

_WEEK = tuple(Weekday)


@dataclass(frozen=True, slots=True)
class Shift:
    """One member's time.

    Attributes:
        member: Who.
        since: Its first moment (UTC).
        until: The first moment after it (UTC).
        override: Whether it is an exception from the turns.
    """

    member: str
    since: datetime
    until: datetime
    override: bool = False


def on_call(rotation: Rotation, at: datetime) -> Shift:
    """Return who has a rotation at a moment, and for how long.

    Before the day on which the first member takes over, turns are counted backwards.

    Args:
        rotation: The rotation.
        at: The moment, aware of its zone.
    """
    turn = _turn(rotation, at)
    since, until = turn.since, turn.until
    for override in rotation.overrides:
        start, end = override.span(zone_of(rotation.zone))
        if start <= at < end:
            return Shift(override.who, start, end, override=True)
        if end <= at:
            since = max(since, end)
        else:
            until = min(until, start)
    return Shift(turn.member, since, until)


def shifts(rotation: Rotation, start: datetime, until: datetime) -> tuple[Shift, ...]:
    """Return all shifts that touch a span, in their order."""
    found = []
    at = start
    while at < until:
        shift = on_call(rotation, at)
        found.append(shift)
        at = shift.until
    return tuple(found)


def is_open(hours: Hours, at: datetime) -> bool:
    """Whether a moment lies in business hours."""
    local = at.astimezone(zone_of(hours.zone))
    return _WEEK[local.weekday()] in hours.days and hours.start <= local.time() < hours.until


def first_level(plan: Plan, at: datetime) -> int:
    """Return the number of the level that is called first, from 1."""
    return 1 if plan.hours is None or is_open(plan.hours, at) else plan.hours.outside


def people_of(rules: EscalationRules, level: Level, at: datetime) -> tuple[str, ...]:
    """Return who is called at a level at a moment, each once; everyone where its roles have nobody."""
    named = list(level.who.users)
    for role in level.who.roles:
        named += rules.roles.get(role, ())
    named += [on_call(rules.rotations[name], at).member for name in level.who.rotations]
    if level.who.everyone:
        named.append(EVERYONE)
    return tuple(dict.fromkeys(named)) or (EVERYONE,)


def _turn(rotation: Rotation, at: datetime) -> Shift:
    """Return the turn at a moment, whatever the overrides say."""
    days = (at.astimezone(zone_of(rotation.zone)).date() - rotation.start).days
    number = days // rotation.days
    # The day of a hand-over belongs to two turns, and a zone may skip a whole day.
    while at < _hand_over(rotation, number):
        number -= 1
    while at >= _hand_over(rotation, number + 1):
        number += 1
    return Shift(
        rotation.members[number % len(rotation.members)],
        _hand_over(rotation, number),
        _hand_over(rotation, number + 1),
    )


def _hand_over(rotation: Rotation, number: int) -> datetime:
    """Return when a turn begins, in UTC; the first member's first turn has number 0."""
    day = rotation.start + timedelta(days=number * rotation.days)
    return datetime.combine(day, rotation.at, tzinfo=zone_of(rotation.zone)).astimezone(UTC)
