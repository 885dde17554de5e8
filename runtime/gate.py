"""The gate as a graph of its own: plan, policy, people; usable as one node of any LangGraph graph."""

from __future__ import annotations

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt
from pydantic import JsonValue

from watchkeeper.runtime.approvals import Answer, ApprovalStatus
from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.policy_types import Verdict
from watchkeeper.runtime.steps import StepStatus
from watchkeeper.tools.evidence import digest_json


class GateState(TypedDict, total=False):
    """What the gate reads from and writes to the state of the graph that it is a node of.

    Attributes:
        incident: Id of the incident that the action is for; given.
        host: Where; given.
        action: Registered name; given.
        arguments: Its arguments; given, and changed by the edit of a person.
        editor: Whose edit it is; empty where it was not edited.
        answer: What was answered; empty where nobody was asked, or nobody answered.
        step: Id of the planned step.
        approval: Id of the question to people; empty where nobody is asked.
        diff: What would change.
        permitted: Whether the step may be applied.
        reason: Why, or why not.
    """

    incident: str
    host: str
    action: str
    arguments: dict[str, Any]
    editor: str
    answer: str
    step: str
    approval: str
    diff: str
    permitted: bool
    reason: str


class Gate:
    """The nodes of the gate."""

    def __init__(self, changes: Changes, journal: Journal) -> None:
        self._changes = changes
        self._journal = journal

    def propose(self, state: GateState) -> dict[str, Any]:
        """Plan the action; what a crash cut off after it was planned is not planned twice."""
        asked: JsonValue = [state["host"], state["action"], state["arguments"]]
        before = [
            step
            for step in self._journal.steps.list(state["incident"])
            if step.status is not StepStatus.PLANNED
        ]
        step = self._changes.propose(
            state["incident"],
            host=state["host"],
            action=state["action"],
            arguments=state["arguments"],
            requester=state.get("editor", ""),
            key=f"gate:{len(before)}:{digest_json(asked)}",
        )
        if step.plan.is_empty:
            # It is decided: asked again once the target is another, it is planned anew.
            self._journal.steps.update(step.id, status=StepStatus.REFUSED, detail="it would change nothing")
        return {
            "step": step.id,
            "answer": "",
            "approval": "",
            "diff": step.plan.diff,
            "permitted": False,
            "reason": "it would change nothing" if step.plan.is_empty else "",
        }

    def decide(self, state: GateState) -> dict[str, Any]:
        """Ask the policy, and write down the question to people where it says so."""
        decision = self._changes.decide(state["step"])
        refused = self._changes.refusal(state["step"])
        if refused and decision.decision is not Verdict.DENY:
            return {"reason": refused}
        if self._changes.observe_only and decision.decision is not Verdict.DENY:
            return {"reason": f"only observed: {self._changes.observe(state['step']).asked}"}
        if decision.decision is not Verdict.ASK:
            return {"permitted": decision.decision is Verdict.ALLOW, "reason": decision.reason}
        if self._changes.beyond_solo(state["step"]):
            return {"reason": f"{decision.reason} (tier {decision.tier}), and one person alone runs this"}
        return {"approval": self._changes.ask(state["step"]).id, "reason": decision.reason}

    def planned(self, state: GateState) -> str:
        """A plan that would change nothing is put to nobody."""
        return END if self._journal.steps.get(state["step"]).plan.is_empty else "decide"

    def asked(self, state: GateState) -> str:
        """People are asked where the policy says so."""
        return "ask" if state["approval"] else END

    def ask(self, state: GateState) -> dict[str, Any]:
        """Wait for the answer; this node does nothing else."""
        interrupt({"approval": state["approval"]})
        return {}

    def open(self, state: GateState) -> str:
        """Who resumes a graph before there is an answer waits again; an edit is proposed anew."""
        found = self._journal.approvals.get(state["approval"])
        if found.answer is Answer.EDIT:
            return "propose"
        return "ask" if found.status is ApprovalStatus.PENDING else END

    def answered(self, state: GateState) -> dict[str, Any]:
        """Read the answer from the store; whatever the graph was resumed with, only that counts."""
        found = self._journal.approvals.get(state["approval"])
        said = found.answer.value if found.answer else found.status.value
        if found.answer is not None and found.status not in {ApprovalStatus.APPROVED, ApprovalStatus.USED}:
            self._journal.steps.update(state["step"], status=StepStatus.REFUSED, detail=f"answered {said}")
        changed: dict[str, Any] = {}
        if found.answer is Answer.EDIT:
            changed = {"arguments": found.edited, "editor": found.decided_by}
        return changed | {
            "answer": found.answer.value if found.answer else "",
            "permitted": found.status is ApprovalStatus.APPROVED,
            "reason": f"{said} by {found.decided_by or 'nobody'} {found.reason}".strip(),
        }


def build_gate(changes: Changes, journal: Journal) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Compile the gate; add the result as a node of a graph that has a checkpointer.

    Args:
        changes: The only way in which anything is changed.
        journal: Where everything is written.
    """
    gate = Gate(changes, journal)
    graph = StateGraph(GateState)
    graph.add_node("propose", gate.propose)
    graph.add_node("decide", gate.decide)
    graph.add_node("ask", gate.ask)
    graph.add_node("answered", gate.answered)
    graph.add_edge(START, "propose")
    graph.add_conditional_edges("propose", gate.planned, ["decide", END])
    graph.add_conditional_edges("decide", gate.asked, ["ask", END])
    graph.add_edge("ask", "answered")
    graph.add_conditional_edges("answered", gate.open, ["ask", "propose", END])
    return graph.compile()
