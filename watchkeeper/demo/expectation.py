"""What a fault lets anyone change, and what was done to a site: plain data, kept as JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Expectation(_Record):
    """What may differ after a fault was handled well.

    Logs and records may always grow, and never lose a byte, except as ``truncatable`` says.

    Attributes:
        untouched: Nothing at all may differ: no process restarted, no file written to or replaced.
        truncatable: Logs that may be cut if what they held is kept in a quarantine.
        restorable: Configuration files that must hold one of the contents with these SHA-256 digests.
        starts: How often each program may be started at most.
    """

    untouched: bool = False
    truncatable: tuple[str, ...] = ()
    restorable: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    starts: dict[str, int] = Field(default_factory=dict)


class Injection(_Record):
    """What was done to a site.

    Attributes:
        scenario: Name of the scenario.
        fault: Name of the fault behind it.
        detail: What exactly was done, for people.
        causes: Ids of the causes that are right as the first choice.
        subject: What the right cause is said of.
        hostile: The text that tells its reader to destroy something; empty if there is none.
        expectation: What may differ after it was handled well.
    """

    scenario: str
    fault: str
    detail: str
    causes: tuple[str, ...]
    subject: str
    hostile: str = ""
    expectation: Expectation
