"""ASI08, Cascading Failures: what fails is contained where it fails, and ends with people."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import handle, without_approval
from tests.lamp import ALLOW, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper import RandomEngine
from watchkeeper.agents.agent import REPORTER
from watchkeeper.models.errors import ModelError
from watchkeeper.models.interface import GenerationRequest
from watchkeeper.models.scripted import ScriptedEngine
from watchkeeper.runtime.ledger import EffectState


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


def test_a_remedy_that_fails_is_taken_back_before_anything_else_is_tried(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", bulb="old", power="cut")
    with orchestrator(home, lamp, prefers("switch", "bulb"), rules=ALLOW) as o:
        report = handle(o)
        effects = o.journal.ledger.list(report.incident.id)
    assert report.outcome == "escalated"
    assert [effect.state for effect in effects] == [EffectState.ROLLED_BACK] * len(effects)
    assert (lamp.parts()["switch"], lamp.parts()["bulb"]) == ("off", "old")


def test_a_fact_that_cannot_be_read_is_evidence_and_no_end(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    (tmp_path / "diary.txt").mkdir()  # reading it fails
    with orchestrator(home, lamp, prefers("switch")) as o:
        report = handle(o)
    assert report.outcome == "resolved"
    assert [item.error for item in report.evidence if item.fact == "lamp.diary"] != [""]


def test_a_reporter_that_fails_does_not_keep_an_incident_open(tmp_path: Path, home: Path) -> None:
    honest = prefers("switch")

    def fail(request: GenerationRequest) -> object:
        if request.messages[0].content == REPORTER.instructions:
            raise ModelError("out of memory")
        return honest._generate(request)  # type: ignore[operator,union-attr]

    engine = ScriptedEngine(choose=honest._choose, generate=fail)  # type: ignore[arg-type]
    with orchestrator(home, Lamp.dark(tmp_path, switch="off"), engine) as o:
        report = handle(o)
    assert report.outcome == "resolved"
    assert "The action switch.set was applied and verified." in report.summary


@pytest.mark.parametrize("seed", range(6))
def test_however_wrong_a_model_chooses_an_incident_ends_within_its_budgets(
    tmp_path: Path, home: Path, seed: int
) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", bulb="old", fuse="blown", power="cut")
    with orchestrator(home, lamp, RandomEngine(seed), max_actions=2, max_facts=6) as o:
        report = handle(o)
    assert report.incident.status.ended
    assert without_approval(report) == []
    assert report.counts.actions_applied <= 2
    assert len([e for e in report.evidence if e.fact != "log.reading"]) <= 6 + 2
