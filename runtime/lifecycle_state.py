"""State of the lifecycle graph: ids and small values; the store holds everything else."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypedDict


class Change(StrEnum):
    """The changes of a lifecycle, in their order."""

    TRAIN = "train"
    TRIAL = "trial"
    PROMOTE = "promote"


class Outcome(StrEnum):
    """How a lifecycle ends."""

    PROMOTED = "promoted"
    ROLLED_BACK = "rolled-back"
    LEFT = "left"
    BAD_DATA = "refused: bad data"
    TRAINING_FAILED = "refused: training failed"
    WORSE = "refused: worse"
    BIASED = "refused: biased"
    CHANGED = "refused: changed"
    BY_PERSON = "refused: by a person"
    BY_POLICY = "refused: by policy"
    ESCALATED = "escalated"

    @property
    def refused(self) -> bool:
        """Whether the challenger was refused."""
        return self.value.startswith("refused")


class LifecycleState(TypedDict, total=False):
    """What LangGraph keeps of a lifecycle between two nodes.

    Attributes:
        incident: Id of the incident that it belongs to.
        change: The change at hand, see `Change`.
        step: Id of the step at hand.
        approval: Id of the question about it.
        repeat: How often the step at hand was proposed again.
        steps: Ids of the steps that were applied, by change.
        job: Id of the training job.
        digest: Digest of the files that it left.
        version: Number of the version that they became.
        champion: Number of the version that answered when it began; None for none.
        wait: What is waited for, see `Waits`.
        verdict: What the last node found, read by the edges.
        outcome: How it ends, see `Outcome`.
        reason: Why, for people.
    """

    incident: str
    change: str
    step: str
    approval: str
    repeat: int
    steps: dict[str, str]
    job: str
    digest: str
    version: int
    champion: int | None
    wait: dict[str, Any]
    verdict: str
    outcome: str
    reason: str


Update = dict[str, Any]


def ends(outcome: Outcome, reason: str) -> Update:
    """Return what a node leaves that ends a lifecycle."""
    return {"verdict": "end", "outcome": outcome.value, "reason": reason}
