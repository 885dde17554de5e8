"""The incident graph: intake to report, one LangGraph thread per incident."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.context import Context
from watchkeeper.runtime.ending import Ending
from watchkeeper.runtime.investigation import Investigation
from watchkeeper.runtime.mitigation import Mitigation
from watchkeeper.runtime.state import FactTask, IncidentState

_CHANGE = {"propose": "propose", "rollback": "rollback", "doubt": "doubt", "verify": "verify"}
_NEXT: dict[str, dict[str, str]] = {
    "assess": {"investigate": "investigate", "diagnose": "diagnose"},
    "diagnose": {"investigate": "investigate", "settle": "settle", "plan": "plan", "escalate": "escalate"},
    "settle": {"closed": "report", "diagnose": "diagnose", "escalate": "escalate"},
    "plan": {"propose": "propose", "diagnose": "diagnose", "escalate": "escalate"},
    "propose": {"lint": "lint", "diagnose": "diagnose", "rollback": "rollback"},
    "lint": {
        "gate": "gate",
        "diagnose": "diagnose",
        "propose": "propose",
        "rollback": "rollback",
        "verify": "verify",
    },
    "gate": {
        "approve": "approve",
        "propose": "propose",
        "execute": "execute",
        "diagnose": "diagnose",
        "rollback": "rollback",
        "abandon": "abandon",
        "observed": "escalate",
    },
    "answered": _CHANGE
    | {
        "approve": "approve",
        "execute": "execute",
        "investigate": "investigate",
        "abandon": "abandon",
        "respond": "rollback",
        "terminate": "rollback",
        "closed": "report",
        "escalate": "escalate",
    },
    "execute": _CHANGE | {"diagnose": "diagnose", "abandon": "abandon", "observed": "escalate"},
    "doubt": {"approve": "approve", "escalate": "escalate"},
    "verify": {"resolved": "report", "rollback": "rollback"},
    "rollback": {"investigate": "investigate", "closed": "report", "escalate": "escalate"},
}
"""From each node by its verdict to the next; a verdict that is not here is a programming error."""


def build_graph(
    context: Context, changes: Changes, checkpointer: BaseCheckpointSaver[Any]
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Wire the agents and the change machinery into a state machine.

    Args:
        context: Site, team, journal, settings.
        changes: The only way in which anything is changed.
        checkpointer: Where LangGraph keeps its state.
    """
    investigation = Investigation(context)
    mitigation = Mitigation(context, changes, investigation)
    ending = Ending(context)
    graph = StateGraph(IncidentState)
    graph.add_node("intake", investigation.intake)
    graph.add_node("triage", investigation.triage)
    graph.add_node("investigate", investigation.investigate)
    graph.add_node("fact", investigation.fact, input_schema=FactTask)
    graph.add_node("assess", investigation.assess)
    graph.add_node("diagnose", investigation.diagnose)
    graph.add_node("settle", investigation.settle)
    graph.add_node("plan", mitigation.remedy)
    graph.add_node("propose", mitigation.propose)
    graph.add_node("lint", mitigation.lint)
    graph.add_node("gate", mitigation.gate)
    graph.add_node("approve", mitigation.approve)
    graph.add_node("answered", mitigation.answered)
    graph.add_node("execute", mitigation.execute)
    graph.add_node("doubt", mitigation.doubt)
    graph.add_node("verify", mitigation.verify)
    graph.add_node("rollback", mitigation.rollback)
    graph.add_node("escalate", ending.escalate)
    graph.add_node("report", ending.report)
    graph.add_edge(START, "intake")
    graph.add_edge("intake", "triage")
    graph.add_edge("triage", "investigate")
    graph.add_conditional_edges("investigate", investigation.fan_out, ["fact", "diagnose"])
    graph.add_edge("fact", "assess")
    graph.add_edge("approve", "answered")
    graph.add_edge("escalate", "report")
    graph.add_edge("report", END)
    for node, ways in _NEXT.items():
        targets = sorted(
            (set(ways.values()) - {"abandon"}) | ({"rollback", "escalate"} if "abandon" in ways else set())
        )
        graph.add_conditional_edges(node, _router(ways), targets)
    return graph.compile(checkpointer=checkpointer)


def _router(ways: dict[str, str]) -> Any:
    def route(state: IncidentState) -> str:
        way = ways[state["verdict"]]
        if way == "abandon":
            # What a person refused ends the attempt; earlier steps of the same plan are taken back first.
            return "rollback" if state.get("applied") else "escalate"
        return way

    return route
