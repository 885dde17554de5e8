"""What drills are made of: kinds of faults in words, and the words around them."""

from __future__ import annotations

from dataclasses import dataclass

from watchkeeper.agents.causes import Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultKind:
    """Something that goes wrong, and what is seen of it.

    Texts have places: ``{service}`` is what the alert names, ``{other}`` runs beside it, ``{host}``,
    ``{mount}``, ``{config}``, ``{port}``, ``{pid}``; ``{few}``, ``{many}``, ``{high}`` (percent) and
    ``{middle}`` (percent) are numbers; ``{just}`` and ``{long}`` are spans of time.

    Attributes:
        id: Its name.
        texts: Wordings of the cause, continuing "The root cause is that"; none where there is a `cause`.
        subject: What it is said of.
        strong: Observations that show it, each enough alone.
        weak: Observations of the same matter that do not explain the alert: what is old, small, over, or
            within its limits. An empty one is a normal observation, which supports the cause and is not told.
        weak_subject: What the weak ones are said of; ``subject`` where empty.
        stops: Whether the service may not be running in consequence.
        weight: How often it is at the root, for once of the others.
        cause: The agents' own cause, where this is one of those.
        passes: Whether the alert's check passes again.
    """

    id: str
    texts: tuple[str, ...] = ()
    subject: str = "{service}"
    strong: tuple[str, ...]
    weak: tuple[str, ...]
    weak_subject: str = ""
    stops: bool = False
    weight: int = 1
    cause: Cause | None = None
    passes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What is the same for all kinds of faults; a held-out part has words of its own.

    Attributes:
        services: Names of services.
        hosts: Names of hosts.
        mounts: File systems.
        configs: Configuration files, with ``{service}``.
        alerts: What an alert checks, with ``{service}``, ``{host}`` and ``{port}``.
        failing: What a failing check says.
        passing: What a passing check says.
        stopped: What is said of a service that went down in consequence of something else.
        stopped_cause: The cause that this supports, though another is at the root.
        noise: Observations that support nothing.
    """

    services: tuple[str, ...]
    hosts: tuple[str, ...]
    mounts: tuple[str, ...]
    configs: tuple[str, ...]
    alerts: tuple[str, ...]
    failing: tuple[str, ...]
    passing: tuple[str, ...]
    stopped: tuple[str, ...]
    stopped_cause: Cause
    noise: tuple[str, ...]
