"""Handle an incident through the Python API: a real service is broken, agents mend it, you say yes or no.

    python examples/python_api.py                 # asks you; the model of your settings decides
    python examples/python_api.py --yes           # says yes to everything
    python examples/python_api.py --scripted --yes   # without a model: a script takes its place

The services run under a supervisord of their own in a temporary folder, and are gone afterwards.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from watchkeeper import Orchestrator, ScriptedEngine, Settings
from watchkeeper.demo.environment import DemoEnvironment
from watchkeeper.demo.faults import inject
from watchkeeper.models.interface import ChoiceRequest
from watchkeeper.runtime.wording import describe_event


def scripted() -> ScriptedEngine:
    """Stand in for a model: of the causes that evidence supports, take the service that stopped."""

    def choose(request: ChoiceRequest) -> int:
        fitting = [number for number, text in enumerate(request.options) if "stopped" in text]
        return fitting[0] if fitting else 0

    return ScriptedEngine(choose=choose)


def asks(orchestrator: Orchestrator, approval_id: str, *, always: bool) -> str:
    """Show what would change, and answer."""
    question = orchestrator.journal.approvals.get(approval_id)
    print(f"\n  {question.summary}\n")
    print("".join(f"    {line}\n" for line in question.diff.splitlines()))
    if always:
        return "approve"
    if not sys.stdin.isatty():
        return "reject"  # nobody is there to say yes
    return "approve" if input("  May this be done? [y/n] ").strip().lower() == "y" else "reject"


def main() -> int:
    """Break a service, and let it be mended; 0 where it was."""
    parser = argparse.ArgumentParser(description="Handle an incident through the Python API.")
    parser.add_argument("--scripted", action="store_true", help="use a script instead of a model")
    parser.add_argument("--yes", action="store_true", help="approve everything")
    given = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="wk-home-") as home, DemoEnvironment.create(None, 7) as site:
        site.start()
        inject(site, "killed")

        # An inventory and an alert are pydantic models; both can be read from YAML as well
        # (`Inventory.load`, `Alert.load`). What is not in the inventory cannot be touched.
        inventory, alert = site.inventory(), site.alert()

        # Solo: you ask and you approve. Where others are, another person must answer. Without an engine
        # the model of the settings is opened when it is first asked; `model="..."` names another.
        with Orchestrator(
            inventory=inventory,
            engine=scripted() if given.scripted else None,
            settings=Settings(home=Path(home), solo=True),
        ) as orchestrator:
            for event in orchestrator.run(alert):
                said = describe_event(event)
                if said:
                    print(f"{event.at:%H:%M:%S} {said}")
                # The run waits for the answer, which may also come from another thread or process:
                # `watchkeeper approvals approve ...` with the same WATCHKEEPER_HOME.
                if event.kind == "approval-requested":
                    answer = asks(orchestrator, event.approval_id, always=given.yes)
                    orchestrator.answer(event.approval_id, answer, reason="from the example")

            # Everything that happened is on record: evidence, decisions with probabilities, plans,
            # policy, answers, effects, costs. The same is in home/reports as Markdown and JSON.
            report = orchestrator.report(event.incident_id)

        print(f"\n{report.outcome}: {report.summary or report.reason}")
        for decision in report.decisions:
            print(f"  {decision.role}: {decision.answer.text[:70]!r} (p = {decision.answer.probability:.2f})")
        healthy = site.wait_healthy(10)
        print(f"the service {'answers again' if healthy else 'does not answer'}")
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
