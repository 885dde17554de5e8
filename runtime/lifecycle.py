"""The lifecycle graph: how a new version of a predictor comes to answer, one LangGraph thread for each."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from watchkeeper.runtime.lifecycle_changing import Changing
from watchkeeper.runtime.lifecycle_ending import Ending
from watchkeeper.runtime.lifecycle_judging import Judging
from watchkeeper.runtime.lifecycle_run import LifecycleRun
from watchkeeper.runtime.lifecycle_state import LifecycleState
from watchkeeper.runtime.lifecycle_watching import Watching

_CHANGED = {
    "propose": "propose",
    "doubt": "doubt",
    "train": "submitted",
    "trial": "trial",
    "promote": "verify",
}
_NEXT: dict[str, dict[str, str]] = {
    "intake": {"consider": "consider", "check": "check"},
    "consider": {"check": "check"},
    "check": {"propose": "propose"},
    "propose": {"gate": "gate"},
    "gate": {"approve": "approve", "execute": "execute", "propose": "propose"},
    "answered": _CHANGED | {"approve": "approve", "execute": "execute"},
    "execute": _CHANGED,
    "doubt": {"approve": "approve"},
    "submitted": {"wait": "training"},
    "trained": {"wait": "training", "evaluate": "evaluate"},
    "evaluate": {"compare": "compare"},
    "compare": {"bias": "bias"},
    "bias": {"explain": "explain"},
    "explain": {"card": "card"},
    "card": {"propose": "propose"},
    "trial": {"wait": "trying"},
    "tried": {"propose": "propose"},
    "verify": {"watch": "watch", "rollback": "rollback"},
    "watch": {"wait": "watching"},
    "judge": {"wait": "watching", "rollback": "rollback"},
    "rollback": {"prove": "prove"},
    "prove": {},
}
"""From each node by its verdict to the next, besides ``end``; any other verdict is a programming error."""


def build_lifecycle(
    run: LifecycleRun, checkpointer: BaseCheckpointSaver[Any]
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Wire the nodes into a state machine.

    Args:
        run: The lifecycle.
        checkpointer: Where LangGraph keeps its state.
    """
    ending, judging, changing, watching = Ending(run), Judging(run), Changing(run), Watching(run)
    graph = StateGraph(LifecycleState)
    graph.add_node("intake", ending.intake)
    graph.add_node("consider", ending.consider)
    graph.add_node("check", judging.check)
    graph.add_node("propose", changing.propose)
    graph.add_node("gate", changing.gate)
    graph.add_node("approve", changing.approve)
    graph.add_node("answered", changing.answered)
    graph.add_node("execute", changing.execute)
    graph.add_node("doubt", changing.doubt)
    graph.add_node("submitted", judging.submitted)
    graph.add_node("training", judging.training)
    graph.add_node("trained", judging.trained)
    graph.add_node("evaluate", judging.evaluate)
    graph.add_node("compare", judging.compare)
    graph.add_node("bias", judging.bias)
    graph.add_node("explain", judging.explain)
    graph.add_node("card", judging.card)
    graph.add_node("trial", watching.trial)
    graph.add_node("trying", watching.trying)
    graph.add_node("tried", watching.tried)
    graph.add_node("verify", changing.verify)
    graph.add_node("watch", watching.watch)
    graph.add_node("watching", watching.watching)
    graph.add_node("judge", watching.judge)
    graph.add_node("rollback", changing.rollback)
    graph.add_node("prove", watching.prove)
    graph.add_node("settle", changing.settle)
    graph.add_node("report", ending.report)
    graph.add_edge(START, "intake")
    graph.add_edge("approve", "answered")
    graph.add_edge("training", "trained")
    graph.add_edge("trying", "tried")
    graph.add_edge("watching", "judge")
    graph.add_edge("settle", "report")
    graph.add_edge("report", END)
    for node, ways in _NEXT.items():
        graph.add_conditional_edges(node, _router(ways), sorted({*ways.values(), "settle"}))
    return graph.compile(checkpointer=checkpointer)


def _router(ways: dict[str, str]) -> Any:
    def route(state: LifecycleState) -> str:
        return "settle" if state["verdict"] == "end" else ways[state["verdict"]]

    return route
