"""Facts about predictors, and promoting one as agents do: planned, verified, taken back exactly."""

from __future__ import annotations

import random
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from tests.clocks import START
from tests.predictor_homes import home_with_two
from tests.threshold import Threshold
from watchkeeper.runtime.drift_alerts import DriftEpisodes, drift_alert, serving_alert
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.journal import Journal
from watchkeeper.tools.action import ProbeAnswer
from watchkeeper.tools.errors import DriftError, PlanError, RollbackError
from watchkeeper.tools.evidence import Evidence
from watchkeeper.tools.host import LocalHost, Target
from watchkeeper.tools.inventory import HostSpec, Inventory
from watchkeeper.tools.plugins import load_registry
from watchkeeper.tools.predictors.recording import FILE, Predictions, Recorded
from watchkeeper.tools.predictors.watching import DriftReport, look, watch
from watchkeeper.tools.registry import Registry
from watchkeeper.tools.versions import Versions
from watchkeeper.tools.versions.promotion import PredictorPromote, PromoteArguments

TOOLS = ["watchkeeper.tools.versions.tools:predictor_tools"]
PROMOTE = PredictorPromote()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return Path(shutil.copytree(home_with_two(), tmp_path / "home"))


@pytest.fixture
def versions(home: Path) -> Versions:
    return Versions(home)


@pytest.fixture
def target(home: Path) -> Target:
    spec = HostSpec(name="web-1")
    return Target(LocalHost("web-1"), spec, home / "hosts" / "web-1")


@pytest.fixture
def registry() -> Registry:
    return load_registry(TOOLS)


def gather(registry: Registry, target: Target, fact: str, name: str = "busy") -> Evidence:
    return registry.gather(fact, target, {"name": name}, id="E1")


def record(home: Path, *, count: int = 600, shift: float = 0.0, right: float = 0.75) -> list[Recorded]:
    """Record what version 1 was asked and answered; from the middle on it may be asked other things."""
    draw = random.Random(1)
    predictor = Threshold(0.5)
    found = []
    for number in range(count):
        row = {"load": draw.random() + (shift if number >= count // 2 else 0.0)}
        (answer,) = predictor.predict([row])
        label = answer["busy"] if draw.random() < right else not answer["busy"]
        at = START + timedelta(minutes=number)
        found.append(Recorded("busy", str(number), 1, "champion", at, row, answer, label))
    kept = Predictions(home / "predictors" / FILE)
    kept.record(found)
    kept.label("busy", {one.id: one.label for one in found}, START)
    kept.close()
    return found


def test_tools_of_predictors_are_offered_only_where_the_configuration_names_them(registry: Registry) -> None:
    names = {tool.name for tool in (*registry.facts, *registry.actions)}
    assert {"predictor.versions", "predictor.quality", "predictor.promote"} <= names
    others = load_registry()
    assert not {tool.name for tool in (*others.facts, *others.actions) if "predictor" in tool.name}


def test_versions_are_told_with_what_answers(registry: Registry, target: Target, versions: Versions) -> None:
    evidence = gather(registry, target, "predictor.versions")
    assert evidence.result is not None
    assert evidence.result["champion"] is None
    assert [finding.kind for finding in evidence.findings] == ["predictor-unanswered"]
    versions.promote("busy", 2, by="alice")
    evidence = gather(registry, target, "predictor.versions")
    assert evidence.result is not None
    assert evidence.result["champion"] == 2
    found = evidence.result["versions"]
    assert isinstance(found, list)
    assert [(one["number"], one["quality"]) for one in found if isinstance(one, dict)] == [
        (1, 0.75),
        (2, 0.8),
    ]
    assert evidence.findings == ()


def test_what_is_not_there_is_evidence_too(registry: Registry, target: Target, tmp_path: Path) -> None:
    assert "no predictor 'lazy'" in gather(registry, target, "predictor.versions", "lazy").error
    nowhere = Target(target.host, target.spec, tmp_path / "other" / "hosts" / "web-1")
    assert "no predictor is registered" in gather(registry, nowhere, "predictor.quality").error
    assert not (tmp_path / "other").exists()


def test_quality_is_told_as_before_shifted_or_worse(
    registry: Registry, target: Target, versions: Versions, home: Path
) -> None:
    versions.promote("busy", 1, by="alice")
    record(home)
    assert [f.kind for f in gather(registry, target, "predictor.quality").findings] == ["predictor-as-before"]
    (home / "predictors" / FILE).unlink()
    record(home, shift=0.6, right=0.4)
    evidence = gather(registry, target, "predictor.quality")
    assert [f.kind for f in evidence.findings] == ["predictor-drift", "predictor-worse"]
    assert evidence.result is not None
    assert evidence.result["held_out"] == 0.75
    assert evidence.result["labels"] == 600


def test_labels_that_began_to_disagree_are_told_while_all_together_still_do(
    registry: Registry, target: Target, versions: Versions, home: Path
) -> None:
    versions.promote("busy", 1, by="alice")
    found = record(home, right=1.0)
    kept = Predictions(home / "predictors" / FILE)
    kept.label("busy", {one.id: not one.answer["busy"] for one in found[-60:]}, START)
    kept.close()
    evidence = gather(registry, target, "predictor.quality")
    assert [finding.text for finding in evidence.findings] == [
        "predictor busy is right in 0% of labelled answers since their stream changed, and was in 94% before"
    ]
    assert [finding.kind for finding in evidence.findings] == ["predictor-worse"]
    assert evidence.result is not None
    assert evidence.result["worse"] is False
    report = DriftReport(predictor="busy", version=1, rows=600, signals=("stream:quality",))
    assert drift_alert(report, host="web-1").severity.value == "critical"


def test_what_a_version_fails_at_and_how_slow_it_is_are_told(
    registry: Registry, target: Target, versions: Versions, home: Path
) -> None:
    versions.promote("busy", 1, by="alice")
    kept = Predictions(home / "predictors" / FILE)
    kept.record(
        [
            Recorded(
                "busy",
                f"{n}",
                1,
                "champion",
                START + timedelta(minutes=n),
                {},
                {"busy": True},
                seconds=0.1 if n < 100 else 0.4,
            )
            for n in range(200)
        ]
    )
    kept.record_failure("busy", 1, "champion", 60, START + timedelta(minutes=300))
    report = look(kept, versions.get("busy"))
    kept.close()
    evidence = gather(registry, target, "predictor.quality")
    assert [finding.text for finding in evidence.findings] == [
        "95 % of the answers of predictor busy take up to 0.4 s, and took up to 0.1 s at first",
        "predictor busy failed at 60 of the newest 130 rows",
    ]
    assert report.signals == ("latency", "errors")
    alerts = [serving_alert(report, sign, host="web-1") for sign in report.signals]
    assert [alert.condition.firing for alert in alerts] == [(found.kind,) for found in evidence.findings]
    assert [alert.severity.value for alert in alerts] == ["warning", "critical"]


def test_a_plan_shows_the_move_and_the_metrics(target: Target, versions: Versions) -> None:
    versions.promote("busy", 1, by="alice")
    plan = PROMOTE.plan(target, PromoteArguments(name="busy", version=2), key="S1")
    digest = versions.get("busy", 2).digest
    assert plan.preconditions == {"champion": 1, "digest": digest}
    assert plan.diff.splitlines() == [
        "--- champion of busy: version 1",
        "+++ champion of busy: version 2",
        "-accuracy: 0.75 (20 rows)",
        "+accuracy: 0.8 (20 rows)",
        "-data: dddddddddddd",
        "+data: dddddddddddd",
        "-recall: 0.5",
        "+recall: 0.5",
    ]
    assert versions.get("busy").number == 1


def test_what_answers_already_makes_an_empty_plan(target: Target, versions: Versions) -> None:
    versions.promote("busy", 2, by="alice")
    assert PROMOTE.plan(target, PromoteArguments(name="busy", version=2), key="S1").is_empty


def test_a_damaged_version_is_not_planned(target: Target, versions: Versions) -> None:
    (versions.get("busy", 2).folder / "threshold.json").write_text("{}")
    with pytest.raises(PlanError, match="is not as it was kept"):
        PROMOTE.plan(target, PromoteArguments(name="busy", version=2), key="S1")


@pytest.mark.parametrize("before", [None, 1])
def test_a_promotion_is_applied_verified_and_taken_back_exactly(
    target: Target, versions: Versions, before: int | None
) -> None:
    if before is not None:
        versions.promote("busy", before, by="alice")
    plan = PROMOTE.plan(target, PromoteArguments(name="busy", version=2), key="S1")
    assert PROMOTE.probe(target, plan) is ProbeAnswer.NOT_DONE
    PROMOTE.apply(target, plan)
    assert versions.get("busy").number == 2
    verified = PROMOTE.verify(target, plan)
    assert verified.ok
    assert verified.detail == "version 2 of busy is its champion; no server of it runs here"
    assert PROMOTE.probe(target, plan) is ProbeAnswer.DONE
    PROMOTE.rollback(target, plan)
    assert versions.aliases("busy").get("champion") == before
    assert not PROMOTE.verify(target, plan).ok
    again = PROMOTE.rollback(target, plan)
    assert versions.aliases("busy").get("champion") == before
    assert "names" in again.detail


def test_an_alias_that_was_moved_meanwhile_is_left_alone(target: Target, versions: Versions) -> None:
    plan = PROMOTE.plan(target, PromoteArguments(name="busy", version=2), key="S1")
    versions.promote("busy", 1, by="bob")
    with pytest.raises(DriftError, match="names version 1, not nothing"):
        PROMOTE.apply(target, plan)
    assert versions.get("busy").number == 1
    assert "nothing to undo" in PROMOTE.rollback(target, plan).detail


def test_a_promotion_that_somebody_followed_up_is_not_taken_back(target: Target, versions: Versions) -> None:
    plan = PROMOTE.plan(target, PromoteArguments(name="busy", version=2), key="S1")
    PROMOTE.apply(target, plan)
    versions.promote("busy", 1, by="bob")
    with pytest.raises(RollbackError, match="was moved again since, to version 1 by 'bob'"):
        PROMOTE.rollback(target, plan)


def test_an_episode_of_drift_is_one_alert(home: Path, versions: Versions) -> None:
    versions.promote("busy", 1, by="alice")
    drifted = watch("busy", 1, record(home, shift=0.6), column="busy")
    steady = watch("busy", 1, [], column="busy")
    assert drifted.signals
    episodes = DriftEpisodes(home)

    assert episodes.alerts(steady, host="web-1") == ()
    (alert,) = episodes.alerts(drifted, host="web-1")
    alert.check(Inventory(hosts=(HostSpec(name="web-1"),)), load_registry(TOOLS))
    # A crash before it is kept tells it again, and the store groups it into the same incident.
    with Journal(home) as journal:
        first = journal.open(alert, by="alice")
        (same,) = DriftEpisodes(home).alerts(drifted, host="web-1")
        second = journal.open(same, by="alice")
        assert first.id == second.id
        assert isinstance(journal.incidents, Incidents)
    episodes.told(drifted, START)
    assert DriftEpisodes(home).alerts(drifted, host="web-1") == ()
    episodes.told(steady, START)
    assert episodes.current("busy") is None
    assert episodes.alerts(drifted, host="web-1") != ()


def test_what_is_new_in_an_episode_is_told_and_what_comes_again_is_not(home: Path) -> None:
    def report(*signals: str) -> DriftReport:
        return DriftReport(predictor="busy", version=1, rows=100, signals=signals)

    episodes = DriftEpisodes(home)
    said = []
    for day, signals in enumerate(
        [("rows:load",), ("rows:load", "quality"), ("rows:load",), ("quality",), ("rows:load", "rows:disk")]
    ):
        said.append([alert.severity.value for alert in episodes.alerts(report(*signals), host="web-1")])
        episodes.told(report(*signals), START + timedelta(days=day))
    assert said == [["warning"], ["critical"], [], [], ["warning"]]
    known = episodes.current("busy")
    assert known is not None
    assert (known.since, known.signals) == (START, ("rows:load", "quality", "rows:disk"))


def test_another_version_begins_another_episode(home: Path) -> None:
    drifted = watch("busy", 1, record(home, shift=0.6), column="busy")
    episodes = DriftEpisodes(home)
    episodes.told(drifted, START)
    newer = drifted.model_copy(update={"version": 2})
    assert episodes.alerts(newer, host="web-1") != ()


def test_a_drift_that_is_known_hides_no_trouble_of_serving(home: Path) -> None:
    def report(*signals: str) -> DriftReport:
        return DriftReport(predictor="busy", version=1, rows=100, signals=signals)

    episodes = DriftEpisodes(home)
    titles = []
    with Journal(home) as journal:
        looks: list[tuple[str, ...]] = [
            ("rows:load",),
            ("rows:load", "latency"),
            ("rows:load", "latency", "errors"),
            ("latency", "errors"),
            ("rows:load",),
            ("errors",),
        ]
        for day, signals in enumerate(looks):
            found = episodes.alerts(report(*signals), host="web-1")
            titles.append([alert.title.partition(") ")[2] for alert in found])
            for alert in found:
                alert.check(Inventory(hosts=(HostSpec(name="web-1"),)), load_registry(TOOLS))
                journal.open(alert, by="alice")
            episodes.told(report(*signals), START + timedelta(days=day))
        assert [incident.alert_count for incident in journal.incidents.list()] == [2, 1, 1]
    assert titles == [
        ["is asked or answers what it was not"],
        ["answers slower than at first"],
        ["fails more often than it may"],
        [],
        # It was over, so it is told again, though the drift is not.
        [],
        ["fails more often than it may"],
    ]
    both = report("answers:score", "errors")
    episodes.told(report(), START)
    assert [alert.severity.value for alert in episodes.alerts(both, host="web-1")] == ["warning", "critical"]
