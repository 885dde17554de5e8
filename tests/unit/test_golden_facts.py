"""Each recorded reading of a host gives the recorded result and findings, or the recorded refusal.

``WATCHKEEPER_WRITE_GOLDEN=1`` writes what comes out now into the files, to be looked at as a diff.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.tools.errors import ArgumentError, CollectError
from watchkeeper.tools.facts import builtin_facts
from watchkeeper.tools.registry import parse

GOLDEN = Path(__file__).parents[1] / "golden" / "facts"
WRITE = os.environ.get("WATCHKEEPER_WRITE_GOLDEN") == "1"
FACTS = {fact.name: fact for fact in builtin_facts()}
LEAST_CASES = 3


def cases() -> list[Any]:
    found = [path for name in FACTS for path in sorted((GOLDEN / name).glob("*.json"))]
    return [pytest.param(path, id=f"{path.parent.name}: {path.stem}") for path in found]


def outcome(case: dict[str, Any], name: str) -> dict[str, Any]:
    fact = FACTS[name]
    try:
        arguments = parse(fact, case["arguments"])
        result = fact.interpret(case["raw"], arguments)
    except (ArgumentError, CollectError) as error:
        return {"error": str(error)}
    findings = [finding.model_dump(mode="json") for finding in fact.findings(result, arguments)]
    return {"result": result.model_dump(mode="json"), "findings": findings}


@pytest.mark.parametrize("path", cases())
def test_a_recorded_reading_gives_the_recorded_outcome(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    found = outcome(case, path.parent.name)
    if WRITE:
        given = {key: case[key] for key in ("arguments", "raw")}
        path.write_text(json.dumps(given | found, indent=1) + "\n", encoding="utf-8")
    assert {key: case[key] for key in case if key not in ("arguments", "raw")} == found


@pytest.mark.parametrize("name", FACTS)
def test_every_fact_has_golden_cases(name: str) -> None:
    assert len(list((GOLDEN / name).glob("*.json"))) >= LEAST_CASES


@pytest.mark.parametrize("path", cases())
def test_findings_are_of_declared_kinds_and_short_sentences_without_anything_hidden(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    for finding in case.get("findings", []):
        assert finding["kind"] in (FACTS[path.parent.name].kinds or ())
        assert finding["text"].isprintable()
        assert len(finding["text"]) <= 400
        assert len(finding["subject"]) <= 300
