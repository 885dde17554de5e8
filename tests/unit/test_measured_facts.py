"""Facts about series that are measured: offered where the inventory names a predictor, and only there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.filling import filling, write_disks
from tests.training import Run
from watchkeeper.tools.builtin import builtin_registry
from watchkeeper.tools.errors import ArgumentError, InventoryError
from watchkeeper.tools.evidence import Evidence
from watchkeeper.tools.facts import DiskForecast, MetricAnomaly
from watchkeeper.tools.host import LocalHost, Target
from watchkeeper.tools.inventory import HostSpec, Inventory, Registered
from watchkeeper.tools.schema import argument_schema, candidate_calls, vocabulary_of
from watchkeeper.tools.training import trainer_of


def host(*metrics: dict[str, Any]) -> HostSpec:
    service = {"name": "shop", "supervisor": {"kind": "systemd"}, "metrics": list(metrics)}
    return HostSpec.model_validate({"name": "web-1", "services": [service]})


def metric(path: Path | str, kind: str, predictor: Path | str = "/nowhere") -> dict[str, Any]:
    return {"about": "/data", "path": str(path), "kind": kind, "predictor": str(predictor)}


def asked(folder: Path, fact: str, *metrics: dict[str, Any]) -> Evidence:
    target = Target(host=LocalHost("web-1"), spec=host(*metrics), state=folder)
    return builtin_registry().gather(fact, target, {"path": metrics[0]["path"]}, id="E1")


def write_now(path: Path, values: np.ndarray, step: float) -> None:
    """Write a series that ends now."""
    end = time.time()
    rows = (
        f"{end - step * (len(values) - 1 - n):.0f},{value!r}\n" for n, value in enumerate(values.tolist())
    )
    path.write_text("timestamp,value\n" + "".join(rows), encoding="utf-8")


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disks")
    write_disks(folder / "data", hours=400, seeds=range(1))
    trainer = trainer_of("disk-forecast")
    run = Run(folder / "data", folder / "run")
    trainer.train(run, trainer.parse_parameters({"horizon_hours": 48}))
    return run.artefacts


def test_without_a_series_in_the_inventory_nothing_is_offered() -> None:
    for fact in (MetricAnomaly(), DiskForecast()):
        assert candidate_calls(fact, host()) == []
        with pytest.raises(ArgumentError, match="nothing to choose from"):
            argument_schema(fact, vocabulary_of(host()))


def test_each_series_is_offered_to_the_fact_that_its_predictor_answers() -> None:
    spec = host(metric("/m/cpu.csv", "anomaly"), metric("/m/data.csv", "disk-forecast"))
    assert candidate_calls(MetricAnomaly(), spec) == [{"path": "/m/cpu.csv"}]
    assert candidate_calls(DiskForecast(), spec) == [{"path": "/m/data.csv"}]
    schema = argument_schema(DiskForecast(), vocabulary_of(spec))
    assert schema["properties"]["path"]["enum"] == ["/m/data.csv"]


def test_a_predictor_is_a_folder_or_a_name_in_the_registry(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    text = (
        "hosts:\n- name: web-1\n  services:\n  - name: shop\n    supervisor: {kind: systemd}\n    metrics:\n"
        "    - {about: cpu, path: /m/cpu.csv, kind: anomaly, predictor: latency}\n"
        "    - {about: memory, path: /m/memory.csv, kind: anomaly, predictor: {registry: latency}}\n"
    )
    path.write_text(text)
    inventory = Inventory.load(path)
    first, second = inventory.host("web-1").services[0].metrics
    assert (first.predictor, second.predictor) == (Path("latency"), Registered(registry="latency"))
    assert Inventory.model_validate(inventory.model_dump(mode="json")) == inventory
    path.write_text(text.replace("{registry: latency}", "{registry: ../latency}"))
    with pytest.raises(InventoryError, match=r"line 8: .*registry: String should match pattern"):
        Inventory.load(path)


def test_a_disk_that_fills_is_foreseen(forecaster: Path, tmp_path: Path) -> None:
    write_now(tmp_path / "data.csv", 60 + 0.9 * np.arange(36), 3600)
    evidence = asked(tmp_path, "disk.forecast", metric(tmp_path / "data.csv", "disk-forecast", forecaster))
    assert not evidence.error
    (finding,) = evidence.findings
    assert (finding.kind, finding.subject, finding.severity.value) == (
        "filesystem-filling",
        "/data",
        "critical",
    )
    assert "/data is 92 % full and likely to be full in" in finding.text


def test_a_disk_that_idles_is_no_finding(forecaster: Path, tmp_path: Path) -> None:
    write_now(tmp_path / "data.csv", filling("idle", 60, 4), 3600)
    evidence = asked(tmp_path, "disk.forecast", metric(tmp_path / "data.csv", "disk-forecast", forecaster))
    assert not evidence.error
    assert evidence.findings == ()


def test_a_line_that_is_being_written_is_left_out(forecaster: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    write_now(path, filling("steady", 60, 4), 3600)
    with path.open("a") as file:
        file.write(f"{time.time():.0f},9")
    whole = asked(tmp_path, "disk.forecast", metric(path, "disk-forecast", forecaster))
    assert not whole.error
    assert whole.result is not None
    assert whole.result["used_percent"] == round(filling("steady", 60, 4)[-1], 1)


@pytest.mark.parametrize("fact", ["disk.forecast", "metric.anomaly"])
def test_what_cannot_be_read_is_told_as_evidence(forecaster: Path, tmp_path: Path, fact: str) -> None:
    path, kind = tmp_path / "x.csv", "anomaly" if fact == "metric.anomaly" else "disk-forecast"
    known = metric(path, kind, tmp_path / "none")
    assert "x.csv cannot be read: No such file" in (asked(tmp_path, fact, known).error or "")
    path.write_text("timestamp,value\n1,2\n2,\x1b[2Jmuch\n")
    error = asked(tmp_path, fact, known).error or ""
    assert "x.csv:3: 'value'" in error
    assert error.isprintable()
    write_now(path, filling("daily", 60, 1), 3600)
    assert "holds no predictor" in (asked(tmp_path, fact, known).error or "")
    (tmp_path / "secret").write_text("timestamp,value\n1,2\n2,3\n")
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    assert "cannot be read" in (asked(tmp_path, fact, known).error or "")
    other = metric(path, "disk-forecast" if kind == "anomaly" else "anomaly", forecaster)
    assert "is no series of host 'web-1'" in (asked(tmp_path, fact, other).error or "")
