"""Facts that ask predictors of the registry: whichever version is the champion, named and recorded."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from tests.filling import filling, write_disks
from tests.predictor_homes import empty_home
from tests.training import Run
from tests.unit.test_logs_classify import MADE, stamped
from tests.unit.test_logs_classify import predictor as log_predictor
from tests.unit.test_logs_classify import target as host_with_a_log
from tests.unit.test_measured_facts import host, write_now
from watchkeeper.cli.predictors import app as predictors
from watchkeeper.tools.builtin import builtin_registry
from watchkeeper.tools.evidence import Evidence
from watchkeeper.tools.host import LocalHost, Target
from watchkeeper.tools.inventory import Registered
from watchkeeper.tools.plugins import load_registry
from watchkeeper.tools.predictors import Manifest, write_manifest
from watchkeeper.tools.predictors.forecaster import CALIBRATION, LAYERS, WEIGHTS, WIDTH, Calibration
from watchkeeper.tools.predictors.recording import FILE, Predictions, Recorded
from watchkeeper.tools.training import trainer_of
from watchkeeper.tools.versions import CHAMPION, Versions

NAME = "known"


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two forecasts of disks, which look two days ahead and one."""
    folder = tmp_path_factory.mktemp("disks")
    write_disks(folder / "data", hours=400, seeds=range(1))
    trainer = trainer_of("disk-forecast")
    runs = [Run(folder / "data", folder / f"run-{hours}") for hours in (48, 24)]
    for run, hours in zip(runs, (48, 24), strict=True):
        trainer.train(run, trainer.parse_parameters({"horizon_hours": hours}))
    return runs[0].artefacts, runs[1].artefacts


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return Path(shutil.copytree(empty_home(), tmp_path / "home"))


def forecaster(folder: Path, threshold: float) -> Path:
    """A predictor of anomalies made by hand, which expects the median of the day."""
    folder.mkdir()
    widths = [WIDTH, 4, 4, 2]
    weights = {
        f"{n}.{name}": np.zeros((widths[n + 1], *more), np.float32)
        for n in range(LAYERS)
        for name, more in (("weight", (widths[n],)), ("bias", ()))
    }
    save_file(weights, folder / WEIGHTS)
    (folder / CALIBRATION).write_text(Calibration(shares=(0.5, 0.99), errors=(1.0, 3.0)).model_dump_json())
    manifest = Manifest(kind="anomaly", trainer="x", created_at=MADE, parameters={"threshold": threshold})
    write_manifest(folder, manifest)
    return folder


def ask(home: Path, fact: str, path: Path, kind: str, name: str = NAME) -> Evidence:
    spec = host({"about": "/data", "path": str(path), "kind": kind, "predictor": {"registry": name}})
    target = Target(host=LocalHost("web-1"), spec=spec, state=home / "hosts" / "web-1")
    return builtin_registry().gather(fact, target, {"path": str(path)}, id="E1")


def result_of(evidence: Evidence) -> dict[str, Any]:
    assert evidence.result is not None, evidence.error
    return evidence.result


def kept(home: Path) -> tuple[Recorded, ...]:
    predictions = Predictions(home / "predictors" / FILE)
    try:
        return predictions.list(NAME)
    finally:
        predictions.close()


def registered(home: Path, *folders: Path) -> Versions:
    """Keep versions, of which the first answers."""
    versions = Versions(home)
    for folder in folders:
        versions.register(NAME, folder)
    versions.promote(NAME, 1, by="ann")
    return versions


def test_after_a_promotion_and_a_rollback_the_version_that_answers_is_another(
    home: Path, disks: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "data.csv"
    write_now(path, 60 + 0.9 * np.arange(36), 3600)
    versions = registered(home, *disks)

    def answered() -> tuple[int, float, bool]:
        evidence = ask(home, "disk.forecast", path, "disk-forecast")
        result = result_of(evidence)
        assert result["by"]["predictor"] == NAME
        number = result["by"]["version"]
        (finding,) = evidence.findings
        return number, result["horizon_seconds"] / 3600, f"(version {number} of known)" in finding.text

    assert answered() == (1, 48, True)
    move = versions.promote(NAME, 2, by="ann")
    assert answered() == (2, 24, True)
    versions.restore(move, by="ann")
    assert answered() == (1, 48, True)
    # The third answer is the first one again: to the same point, by the same version.
    assert [(one.version, one.role) for one in kept(home)] == [(1, CHAMPION), (2, CHAMPION)]
    assert [one.answer["horizon_hours"] for one in kept(home)] == [48, 24]
    assert {one.asked["value"] for one in kept(home)} == {60 + 0.9 * 35}


def test_the_registry_is_asked_where_it_changed_and_a_version_is_loaded_once(
    home: Path, disks: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.csv"
    write_now(path, filling("idle", 60, 4), 3600)
    versions = registered(home, *disks)
    called: list[str] = []
    for method in ("aliases", "open"):
        real = getattr(Versions, method)

        def noted(self: Versions, *given: Any, method: str = method, real: Any = real) -> Any:
            called.append(method)
            return real(self, *given)

        monkeypatch.setattr(Versions, method, noted)
    for _ in range(3):
        ask(home, "disk.forecast", path, "disk-forecast")
    assert called.count("open") == 1
    asked = len(called)
    ask(home, "disk.forecast", path, "disk-forecast")
    assert len(called) == asked
    versions.promote(NAME, 2, by="ann")
    called.clear()
    assert result_of(ask(home, "disk.forecast", path, "disk-forecast"))["by"]["version"] == 2
    assert called.count("open") == 1


def test_an_answer_that_cannot_be_recorded_is_given_all_the_same(
    home: Path, disks: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "data.csv"
    write_now(path, filling("idle", 60, 4), 3600)
    registered(home, disks[0])
    (home / "predictors" / FILE).mkdir()
    assert result_of(ask(home, "disk.forecast", path, "disk-forecast"))["by"]["version"] == 1
    (home / "predictors" / FILE).rmdir()
    ask(home, "disk.forecast", path, "disk-forecast")
    assert len(kept(home)) == 1


def test_a_predictor_that_cannot_answer_is_an_error_of_the_fact(
    home: Path, disks: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "data.csv"
    write_now(path, filling("idle", 60, 4), 3600)

    def said(fact: str = "disk.forecast", kind: str = "disk-forecast", name: str = NAME) -> str:
        return ask(home, fact, path, kind, name).error or ""

    versions = Versions(home)
    versions.register(NAME, disks[0])
    assert "predictor 'known' has no champion; promote a version with `watchkeeper predictors" in said()
    assert "there is no predictor 'other'; there are: known" in said(name="other")
    versions.promote(NAME, 1, by="ann")
    assert said() == ""
    told = said("metric.anomaly", "anomaly")
    assert told == "version 1 of known is a predictor of kind 'disk-forecast', and one of 'anomaly' is needed"
    second = versions.register(NAME, disks[1])
    versions.promote(NAME, 2, by="ann")
    (second.folder / "growth.json").write_text("{}")
    assert "champion of 'known' cannot be loaded: " in said()
    versions.promote(NAME, 1, by="ann")
    assert said() == ""


def test_without_the_registry_the_fact_says_what_to_install(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.csv"
    write_now(path, filling("idle", 60, 4), 3600)
    evidence = ask(tmp_path / "new", "disk.forecast", path, "disk-forecast")
    assert "no predictor is registered in" in (evidence.error or "")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    evidence = ask(home, "disk.forecast", path, "disk-forecast")
    assert "need the extra 'registry': pip install 'watchkeeper[registry]'" in (evidence.error or "")


def test_points_of_the_last_hour_are_recorded_once_and_those_that_made_a_score_are_told(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(home, forecaster(tmp_path / "a", 0.1))
    path, values = tmp_path / "cpu.csv", 10 + np.sin(np.arange(400) / 4)
    values[-2] = 90.0
    write_now(path, values, 300)
    evidence = ask(home, "metric.anomaly", path, "anomaly")
    result = result_of(evidence)
    (because,) = result["because"]
    assert because["first"] == because["last"] == result["at"]
    assert because["worth"] >= 0.9 * result["score"] > 0.8
    assert f"; made by the points of {result['at'][11:16]}; version 1 of known)." in evidence.findings[0].text
    ask(home, "metric.anomaly", path, "anomaly")
    found = kept(home)
    assert len(found) == 12
    assert [one.answer["anomaly"] for one in found] == [False] * 10 + [True, False]
    assert found[-2].asked == {"series": str(path), "value": 90.0, "step_seconds": 300.0}
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    drift = CliRunner().invoke(predictors, ["drift", NAME])
    assert (drift.exit_code, drift.stdout.split(",")[0]) == (0, "known version 1: 12 predictions")


def test_what_made_a_score_is_looked_for_where_something_stands_out_alone(home: Path, tmp_path: Path) -> None:
    registered(home, forecaster(tmp_path / "a", 0.1))
    for step, count in ((300, 400), (3600, 13), (7200, 14), (60, 800)):
        path, values = tmp_path / f"{step}.csv", 10 + np.sin(np.arange(count) / 4)
        write_now(path, values, step)
        assert result_of(ask(home, "metric.anomaly", path, "anomaly"))["because"] == []
        values[-1] = 90.0
        write_now(path, values, step)
        assert result_of(ask(home, "metric.anomaly", path, "anomaly"))["because"]


def test_logs_are_classified_by_the_champion_and_no_secret_of_theirs_is_recorded(
    home: Path, tmp_path: Path
) -> None:
    one = log_predictor(tmp_path / "one")
    other = log_predictor(tmp_path / "other", classes=("-", "STORAGE", "LINK"))
    versions = registered(home, one, other, log_predictor(tmp_path / "bad", classes=("-", "do it", "now")))
    registry = load_registry(log_predictor=Registered(registry=NAME))
    where = host_with_a_log(tmp_path, [stamped("link 3 severed by peer, password=hunter2"), stamped("well")])
    target = Target(where.host, where.spec, home / "hosts" / "here")

    def gathered() -> Evidence:
        return registry.gather("logs.classify", target, {"service": "shop"}, id="E1")

    labels = []
    for number in (1, 2, 1):
        versions.promote(NAME, number, by="ann")
        evidence = gathered()
        assert result_of(evidence)["by"] == {"predictor": NAME, "version": number}
        assert evidence.findings[0].told.endswith(f"; version {number} of known).")
        labels.append(sorted(result_of(evidence)["by_label"]))
    assert labels == [["-", "NET"], ["-", "LINK"], ["-", "NET"]]
    found = kept(home)
    assert [(p.version, p.answer["label"]) for p in found] == [(1, "NET"), (1, "-"), (2, "LINK"), (2, "-")]
    assert "link 3 severed" in str(found[0].asked["message"])
    assert "hunter2" not in str(found)
    versions.promote(NAME, 3, by="ann")
    assert "label 'do it' may not be told to agents" in (gathered().error or "")
