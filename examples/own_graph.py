"""Use Watchkeeper's gate in a LangGraph graph of your own: plan, policy and people before anything changes.

    python examples/own_graph.py                  # asks you
    python examples/own_graph.py --yes            # says yes to everything

The graph looks at the queue of `own_tools.py` by rules of its own; no model is involved. What it wants to
change goes through the gate, and is then applied at most once, as in an incident.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from own_tools import AGENTS, ALERT, INVENTORY, TOOLS, holds, queue_with_a_worker

from watchkeeper import Orchestrator, ScriptedEngine, Settings
from watchkeeper.runtime.gate import GateState


class Tidying(GateState, total=False):
    """The state of this graph: that of the gate, and what came of it."""

    outcome: str


def build(orchestrator: Orchestrator) -> Any:
    """Make a graph that looks, passes the gate, and changes."""
    target = orchestrator.site.target("here")

    def look(state: Tidying) -> dict[str, Any]:
        found = holds(target)  # a fact can be called like the function that it was made from
        wanted = "queue.unlock" if found.locked else "queue.resume"
        return {"host": "here", "action": wanted, "arguments": {}}

    def change(state: Tidying) -> dict[str, Any]:
        # Checks the approval and the target again, writes the intent down, and acts once: called again
        # after a crash it asks the action's probe instead.
        return {"outcome": orchestrator.apply(state["step"]).detail}

    graph = StateGraph(Tidying)
    graph.add_node("look", look)
    graph.add_node("gate", orchestrator.gate())
    graph.add_node("change", change)
    graph.add_edge(START, "look")
    graph.add_edge("look", "gate")
    graph.add_conditional_edges("gate", lambda state: "change" if state["permitted"] else END)
    graph.add_edge("change", END)
    # A question outlives this process if the checkpointer does (e.g. SqliteSaver).
    return graph.compile(checkpointer=InMemorySaver())


def main() -> int:
    """Tidy a queue up behind the gate; 0 where it was done or refused."""
    parser = argparse.ArgumentParser(description="The gate as a node of a graph of your own.")
    parser.add_argument("--yes", action="store_true", help="approve everything")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="wk-home-") as home,
        queue_with_a_worker(),
        Orchestrator(
            inventory=INVENTORY,
            engine=ScriptedEngine(),
            tools=TOOLS,
            agents=AGENTS,
            settings=Settings(home=Path(home), solo=True),
        ) as orchestrator,
    ):
        graph = build(orchestrator)
        # Whatever is changed belongs to an incident: that is where it is looked up later.
        incident = orchestrator.open(ALERT)
        config = {"configurable": {"thread_id": incident.id}}
        state = graph.invoke(Tidying(incident=incident.id), config, durability="sync")
        while questions := state.get("__interrupt__"):
            approval_id = questions[0].value["approval"]
            question = orchestrator.journal.approvals.get(approval_id)
            print(f"{question.summary}\n  {question.diff}")
            yes = given.yes or (
                sys.stdin.isatty() and input("May this be done? [y/n] ").strip().lower() == "y"
            )
            orchestrator.answer(approval_id, "approve" if yes else "reject", reason="from the example")
            # The answer is in the store, and only that counts: a graph that is resumed without one waits.
            state = graph.invoke(Command(resume=approval_id), config, durability="sync")
        print(f"permitted: {state['permitted']} ({state['reason']})")
        print(f"outcome: {state.get('outcome', 'nothing was done')}")
        print(f"on record: {[entry.kind for entry in orchestrator.journal.audit.entries()]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
