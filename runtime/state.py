"""State of the incident graph: ids and small values; the store holds everything else."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict


class Turn(TypedDict):
    """A hypothesis that had its turn: which, what was done about it, and what came of it."""

    hypothesis: str
    text: str
    action: str
    result: str


class IncidentState(TypedDict, total=False):
    """What LangGraph keeps of an incident between two nodes.

    Attributes:
        incident: Id of the incident.
        round: Rounds of investigation begun; the first reads the alert's own condition.
        calls: Fact calls of this round, as JSON of `FactCall`.
        first: Number of the evidence that the first of those calls gives, so that facts that are read in
            parallel are numbered as they were chosen, not as they end.
        gathered: Keys of the fact calls that were made.
        diagnosis: JSON of the `Diagnosis` whose turn it is.
        queue: Steps of the current plan that are still to be proposed, as ``{action, arguments}``; of one
            that a person edited, ``by`` is who, and ``edit`` the question that they answered so.
        step: Id of the step at hand.
        approval: Id of the question about it.
        applied: Ids of the steps of the current plan that were applied, in their order.
        repeat: How often the step at hand was proposed again because a crash hid that it was not done.
        turns: Hypotheses that had their turn.
        verdict: What the last node found, read by the edges.
        reason: Why, for people.
    """

    incident: str
    round: int
    calls: list[dict[str, Any]]
    first: int
    gathered: Annotated[list[str], operator.add]
    diagnosis: dict[str, Any]
    queue: list[dict[str, Any]]
    step: str
    approval: str
    applied: list[str]
    repeat: int
    turns: Annotated[list[Turn], operator.add]
    verdict: str
    reason: str


class FactTask(TypedDict):
    """What one parallel branch is sent."""

    incident: str
    number: int
    call: dict[str, Any]
