"""The gate as a graph of its own: plan, policy, people; usable as one node of any LangGraph graph."""

from __future__ import annotations

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt

from watchkeeper.runtime.approvals import ApprovalStatus
from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.policy_types import Verdict


class GateState(TypedDict, total=False):
    """What the gate reads from and writes to the state of the graph that it is a node of.

    Attributes:
        incident: Id of the incident that the action is for; given.
        host: Where; given.
        action: Registered name; given.
        arguments: Its arguments; given.
        step: Id of the planned step.
        diff: What would change.
        permitted: Whether the step may be applied.
        reason: Why, or why not.
    """

    incident: str
    host: str
    action: str
    arguments: dict[str, Any]
    step: str
    diff: str
    permitted: bool
    reason: str


class Gate:
    """The nodes of the gate."""

    def __init__(self, changes: Changes, journal: Journal) -> None:
        self._changes = changes
        self._journal = journal

    def propose(self, state: GateState) -> dict[str, Any]:
        """Plan the action."""
        number = len(self._journal.steps.list(state["incident"]))
        kept = state.get("step")
        step = (
            self._journal.steps.get(kept)
            if kept
            else self._changes.propose(
                state["incident"],
                host=state["host"],
                action=state["action"],
                arguments=state["arguments"],
                key=f"gate:{number}:{state['action']}",
            )
        )
        return {"step": step.id, "diff": step.plan.diff, "permitted": False, "reason": ""}

    def decide(self, state: GateState) -> dict[str, Any]:
        """Ask the policy, and write down the question to people where it says so."""
        decision = self._changes.decide(state["step"])
        if decision.decision is Verdict.ASK:
            self._changes.ask(state["step"])
        return {"permitted": decision.decision is Verdict.ALLOW, "reason": decision.reason}

    def route(self, state: GateState) -> str:
        """People are asked where the policy says so."""
        policy = self._journal.steps.get(state["step"]).policy
        return "ask" if policy and policy.decision is Verdict.ASK else END

    def ask(self, state: GateState) -> dict[str, Any]:
        """Wait for the answer; this node does nothing else."""
        approval = self._changes.ask(state["step"])
        interrupt({"approval": approval.id})
        return {}

    def answered(self, state: GateState) -> dict[str, Any]:
        """Read the answer from the store."""
        approval = self._journal.approvals.list(incident_id=state["incident"])
        found = next(a for a in approval if a.step_id == state["step"])
        permitted = found.status is ApprovalStatus.APPROVED
        said = found.answer.value if found.answer else found.status.value
        return {
            "permitted": permitted,
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
    graph.add_edge("propose", "decide")
    graph.add_conditional_edges("decide", gate.route, ["ask", END])
    graph.add_edge("ask", "answered")
    graph.add_edge("answered", END)
    return graph.compile()
