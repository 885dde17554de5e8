"""Escalation rules, as they are written in YAML: who is called, in which order, and when the next is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from watchkeeper.runtime.errors import ConfigurationError
from watchkeeper.runtime.roles import Role
from watchkeeper.runtime.times import Duration, Moment, TimeOfDay, ZoneName, local_moment, zone_of
from watchkeeper.tools.documents import Document, DocumentError, Place, read_document
from watchkeeper.tools.findings import Severity
from watchkeeper.tools.inventory import Name

TERMINAL = "terminal"
"""The channel to whoever sits at the running process, and the policy that is in force without a file."""

FILE = "file"
"""The channel to ``notifications.jsonl`` in the home."""

EVERYONE = "everyone"
"""Who is meant where no person is named."""

PersonName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
"""Whatever a user may be called, too."""

_BUILT_IN = (TERMINAL, FILE)


class _Strict(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )


class Weekday(StrEnum):
    """A day of the week."""

    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"


class Person(_Strict):
    """Somebody who can be called.

    Attributes:
        channels: How; without any, at the terminal.
    """

    channels: tuple[str, ...] = Field(default=(TERMINAL,), min_length=1)


class Channel(_Strict):
    """A way to a person beyond the terminal and the file.

    Attributes:
        kind: ``apprise``: mail, chat, webhooks.
        secret: Name of the environment variable, or of the file in ``secrets`` in the home, that holds its
            address; addresses carry passwords, so none is written here.
    """

    kind: Literal["apprise"]
    secret: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,99}$")


class Override(_Strict):
    """Somebody takes a rotation for a while, whoever's turn it is.

    Attributes:
        who: Who takes it.
        start: From when, by the clocks of the rotation's zone.
        until: Until when.
    """

    who: PersonName
    start: Moment = Field(alias="from")
    until: Moment

    def span(self, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """Return its first moment and the first one after it, in UTC.

        Raises:
            ValueError: If clocks skip one of them, or show it twice.
        """
        return local_moment(self.start, zone), local_moment(self.until, zone)


class Rotation(_Strict):
    """Members who take turns.

    Attributes:
        zone: IANA name of the zone whose clocks it goes by.
        every: How long a turn is.
        at: Time of day at which the next member takes over.
        start: Day on which the first member takes over (its day of the week is that of a weekly rotation).
        members: Whose turns follow each other.
        overrides: Exceptions.
    """

    zone: ZoneName
    every: Literal["day", "week"]
    at: TimeOfDay
    start: date
    members: tuple[PersonName, ...] = Field(min_length=1)
    overrides: tuple[Override, ...] = ()

    @property
    def days(self) -> int:
        """Days of a turn."""
        return 7 if self.every == "week" else 1

    @model_validator(mode="after")
    def _check(self) -> Rotation:
        spans = []
        for override in self.overrides:
            start, until = override.span(zone_of(self.zone))
            if start >= until:
                raise ValueError(f"the override of {override.who!r} ends before it begins ({until} UTC)")
            spans.append((start, until, override.who))
        spans.sort()
        for (_, end, one), (begin, _, other) in pairwise(spans):
            if begin < end:
                raise ValueError(f"the overrides of {one!r} and {other!r} overlap from {begin} on")
        return self


class Who(_Strict):
    """Who is called at a level.

    Attributes:
        users: People by name.
        roles: All people of these roles: groups of the rules, or roles of users (``approver``).
        rotations: Whoever has their turn then.
        everyone: Whoever sits at the terminal.
    """

    users: tuple[PersonName, ...] = ()
    roles: tuple[Name, ...] = ()
    rotations: tuple[Name, ...] = ()
    everyone: bool = False

    @model_validator(mode="after")
    def _somebody(self) -> Who:
        if not (self.users or self.roles or self.rotations or self.everyone):
            raise ValueError("nobody is named: users, roles, rotations or everyone")
        return self


class Level(_Strict):
    """One step of an escalation.

    Attributes:
        who: Who is called.
        wait: How long they have; None, at the last level only: until the question's own deadline.
        repeat: How often they are called again before the next level is.
    """

    who: Who
    wait: Duration | None = None
    repeat: int = Field(default=0, ge=0, le=20)


class Hours(_Strict):
    """Business hours; outside of them an escalation begins at another level.

    Attributes:
        zone: IANA name of the zone whose clocks they go by.
        days: Days of the week.
        start: Time of day at which they begin.
        until: Time of day at which they are over.
        outside: Number of the level that is called first outside of them.
    """

    zone: ZoneName
    days: tuple[Weekday, ...] = Field(
        default=(
            Weekday.MONDAY,
            Weekday.TUESDAY,
            Weekday.WEDNESDAY,
            Weekday.THURSDAY,
            Weekday.FRIDAY,
        ),
        min_length=1,
    )
    start: TimeOfDay = Field(alias="from")
    until: TimeOfDay
    outside: int = Field(ge=1)

    @model_validator(mode="after")
    def _check(self) -> Hours:
        if self.start >= self.until:
            raise ValueError(f"business hours end at {self.until:%H:%M}, before they begin")
        return self


class Plan(_Strict):
    """An escalation policy.

    Attributes:
        levels: Who is called, one level after the other.
        hours: When it begins at its first level; always, where not given.
    """

    levels: tuple[Level, ...] = Field(min_length=1, max_length=20)
    hours: Hours | None = None

    @property
    def length(self) -> timedelta:
        """Time from its first call to its last deadline (of a last level that has none: to its call)."""
        waits = ((level.wait or timedelta(0)) * (level.repeat + 1) for level in self.levels)
        return sum(waits, timedelta(0))

    @model_validator(mode="after")
    def _check(self) -> Plan:
        for number, level in enumerate(self.levels, start=1):
            if level.wait is None and (number < len(self.levels) or level.repeat):
                raise ValueError(f"level {number} says no wait, so nothing would ever follow it")
        if self.hours is not None and self.hours.outside > len(self.levels):
            raise ValueError(f"hours.outside is {self.hours.outside}, of {len(self.levels)} levels")
        return self


class Applies(_Strict):
    """Which incidents a policy is for; the first line that fits counts.

    Attributes:
        policy: The policy.
        severities: Severities, any of which must fit.
        hosts: Patterns of the host's labels, all of which must fit.
    """

    policy: Name
    severities: tuple[Severity, ...] = Field(default=tuple(Severity), min_length=1)
    hosts: dict[str, str] = Field(default_factory=dict)

    def fits(self, severity: Severity, labels: dict[str, str]) -> bool:
        """Whether an incident is meant; a missing label never fits."""
        return severity in self.severities and all(
            name in labels and fnmatchcase(labels[name], pattern) for name, pattern in self.hosts.items()
        )


_ALONE = Plan(levels=(Level(who=Who(everyone=True)),))


class EscalationRules(_Strict):
    """Everything that ``escalation.yaml`` says.

    Attributes:
        version: Of this form.
        people: Who can be called, by name.
        roles: Groups of them.
        channels: Ways to them, beyond ``terminal`` and ``file``.
        rotations: On-call rotations.
        policies: Escalation policies; ``terminal`` is built in: everyone at the terminal.
        apply: Which policy is for what.
        default: The policy where none of ``apply`` fits.
    """

    version: Literal[1] = 1
    people: dict[PersonName, Person] = Field(default_factory=dict)
    roles: dict[Name, Annotated[tuple[PersonName, ...], Field(min_length=1)]] = Field(default_factory=dict)
    channels: dict[Name, Channel] = Field(default_factory=dict)
    rotations: dict[Name, Rotation] = Field(default_factory=dict)
    policies: dict[Name, Plan] = Field(default_factory=dict)
    apply: tuple[Applies, ...] = ()
    default: Name = TERMINAL

    def policy(self, name: str) -> Plan:
        """Return a policy.

        Raises:
            ConfigurationError: If there is none of that name.
        """
        plan = self.policies.get(name) or (_ALONE if name == TERMINAL else None)
        if plan is None:
            known = ", ".join(sorted({*self.policies, TERMINAL}))
            raise ConfigurationError(f"escalation policy {name!r} is unknown (there are: {known})")
        return plan

    def choose(self, severity: Severity, labels: dict[str, str]) -> str:
        """Return the name of the policy for an incident."""
        return next((line.policy for line in self.apply if line.fits(severity, labels)), self.default)

    def channels_of(self, person: str) -> tuple[str, ...]:
        """Return the ways to a person; whom the rules do not name is at the terminal."""
        return self.people[person].channels if person in self.people else (TERMINAL,)

    @classmethod
    def load(cls, path: Path) -> EscalationRules:
        """Read rules from a YAML file.

        Raises:
            ConfigurationError: With file, line and value, if one is not right or names what is not there.
        """
        try:
            document = read_document(path, "escalation rules")
        except DocumentError as error:
            raise ConfigurationError(str(error)) from error
        try:
            rules = cls.model_validate(document.data)
        except ValidationError as error:
            raise ConfigurationError(f"escalation rules {document.explain(error)}") from error
        rules.check(document)
        return rules

    def check(self, document: Document | None = None) -> None:
        """Check that every name is one of something that is there.

        Args:
            document: Where the rules were read, for messages.

        Raises:
            ConfigurationError: If not.
        """
        for place, said in self._wrong():
            where = document.where(place) if document else ".".join(map(str, place))
            raise ConfigurationError(f"escalation rules {where}: {said}")

    def _wrong(self) -> Iterator[tuple[Place, str]]:
        yield from self._taken()
        for place, kind, name in self._names():
            known = {
                "person": set(self.people),
                "role": {*self.roles, *Role},
                "channel": {*self.channels, *_BUILT_IN},
                "rotation": set(self.rotations),
                "policy": {*self.policies, TERMINAL},
            }[kind]
            if name not in known:
                listed = ", ".join(sorted(known)) or "none"
                yield place, f"unknown {kind} {name!r} (there are: {listed})"

    def _taken(self) -> Iterator[tuple[Place, str]]:
        for name in _BUILT_IN:
            if name in self.channels:
                yield ("channels", name), f"channel {name!r} is built in: choose another name"
        if TERMINAL in self.policies:
            yield ("policies", TERMINAL), f"policy {TERMINAL!r} is built in: choose another name"
        if EVERYONE in self.people:
            yield ("people", EVERYONE), f"{EVERYONE!r} is whoever sits at the terminal: choose another name"

    def _names(self) -> Iterator[tuple[Place, str, str]]:
        """Every name that something is called by, with its place and kind."""
        for person, spec in self.people.items():
            for number, channel in enumerate(spec.channels):
                yield ("people", person, "channels", number), "channel", channel
        for role, members in self.roles.items():
            for number, member in enumerate(members):
                yield ("roles", role, number), "person", member
        for name, rotation in self.rotations.items():
            for number, member in enumerate(rotation.members):
                yield ("rotations", name, "members", number), "person", member
            for number, override in enumerate(rotation.overrides):
                yield ("rotations", name, "overrides", number, "who"), "person", override.who
        for policy, plan in self.policies.items():
            for number, level in enumerate(plan.levels):
                place: Place = ("policies", policy, "levels", number, "who")
                named = (("users", "person"), ("roles", "role"), ("rotations", "rotation"))
                for key, kind in named:
                    for index, found in enumerate(getattr(level.who, key)):
                        yield (*place, key, index), kind, found
        for number, line in enumerate(self.apply):
            yield ("apply", number, "policy"), "policy", line.policy
        yield ("default",), "policy", self.default
