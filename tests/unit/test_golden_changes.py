"""Each recorded state of a target gives the recorded plan, or the recorded refusal."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.tools.actions import ObservedAction, builtin_actions
from watchkeeper.tools.errors import PlanError
from watchkeeper.tools.facts.config import ConfigChanges
from watchkeeper.tools.facts.service import ServiceStatus

GOLDEN = Path(__file__).parents[1] / "golden"
WRITE = os.environ.get("WATCHKEEPER_WRITE_GOLDEN") == "1"
ACTIONS = {action.name: action for action in builtin_actions()}
FACTS: dict[str, Any] = {fact.name: fact for fact in (ServiceStatus(), ConfigChanges())}


def cases(kind: str, names: dict[str, Any]) -> list[Any]:
    found = [path for name in names for path in sorted((GOLDEN / kind / name).glob("*.json"))]
    return [pytest.param(path, id=f"{path.parent.name}: {path.stem}") for path in found]


def compare(path: Path, case: dict[str, Any], expected: dict[str, Any]) -> None:
    if WRITE:
        given = {k: case[k] for k in ("arguments", "raw")}
        path.write_text(json.dumps(given | expected, indent=1) + "\n", encoding="utf-8")
    assert {k: case[k] for k in case if k not in ("arguments", "raw")} == expected


@pytest.mark.parametrize("path", cases("actions", ACTIONS))
def test_a_recorded_state_gives_the_recorded_plan(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    action = ACTIONS[path.parent.name]
    assert isinstance(action, ObservedAction)
    arguments = action.parse_arguments(case["arguments"])
    try:
        expected = {"plan": action.plan_from(case["raw"], arguments, key="step-1").model_dump(mode="json")}
    except PlanError as error:
        expected = {"error": str(error)}
    compare(path, case, expected)


@pytest.mark.parametrize("path", cases("facts", FACTS))
def test_a_recorded_answer_gives_the_recorded_result_and_findings(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    fact = FACTS[path.parent.name]
    arguments = fact.parse_arguments(case["arguments"])
    result = fact.interpret(case["raw"], arguments)
    findings = [f.model_dump(mode="json") for f in fact.findings(result, arguments)]
    compare(path, case, {"result": result.model_dump(mode="json"), "findings": findings})


@pytest.mark.parametrize("name", ACTIONS)
def test_every_action_has_golden_cases_of_plans_and_of_refusals(name: str) -> None:
    recorded = [
        json.loads(path.read_text(encoding="utf-8")) for path in (GOLDEN / "actions" / name).glob("*")
    ]
    assert any("plan" in case for case in recorded)
    assert any("error" in case for case in recorded)


@pytest.mark.parametrize("path", sorted((GOLDEN / "facts" / "config.changes").glob("*.json")))
def test_no_finding_about_configuration_quotes_its_content(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    text = " ".join(finding["text"] for finding in case["findings"])
    assert "ignore all rules" not in text
    assert "hunter2" not in json.dumps(case["result"])
    assert "letmein" not in json.dumps(case["result"])
