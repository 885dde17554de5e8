"""The trainer of forecasters, and the predictor that it leaves."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.filling import write_series
from tests.training import Run, files_of
from watchkeeper.tools.builtin import builtin_registry
from watchkeeper.tools.errors import ArtefactError, DataError, JobCancelledError
from watchkeeper.tools.evidence import Evidence
from watchkeeper.tools.host import LocalHost, Target
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.predictors import open_predictor, read_manifest
from watchkeeper.tools.predictors.anomaly import AnomalyPredictor
from watchkeeper.tools.predictors.forecaster import SPREADS, WEIGHTS, Calibration, Network
from watchkeeper.tools.predictors.records import RecordStream
from watchkeeper.tools.predictors.streams import Scales, scores_of
from watchkeeper.tools.training import Evaluation, trainer_of
from watchkeeper.tools.versions.compare import Verdict, compare, score

TRAINER = trainer_of("metric-anomaly")
TINY = TRAINER.parse_parameters({"epochs": 4, "hidden": 32, "batch": 16, "learning_rate": 5e-3, "dropout": 0})
HALF_HOUR = 1800


def load_of_a_server(days: int, seed: int) -> np.ndarray:
    """Return a load that follows the day, every half an hour."""
    draw = np.random.default_rng(seed)
    at = np.arange(days * 48)
    peak = draw.uniform(20, 200)
    return peak * (1.2 + np.sin(2 * np.pi * at / 48 + seed) + draw.normal(0, 0.05, len(at)))


def write_servers(folder: Path, *, days: int, seeds: range) -> None:
    for seed in seeds:
        write_series(folder / f"server-{seed}.csv", load_of_a_server(days, seed), step=HALF_HOUR)


def train(folder: Path, data: Path, seed: int = 3, before: Run | None = None) -> Run:
    run = Run(data, folder, seed=seed, before=before)
    TRAINER.train(run, TINY)
    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("servers")
    write_servers(folder, days=10, seeds=range(4))
    return folder


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("whole") / "run", data)


@pytest.fixture(scope="module")
def trained(whole: Run) -> Path:
    return whole.artefacts


def evaluated(trained: Path, tmp_path: Path) -> Evaluation:
    write_servers(tmp_path, days=8, seeds=range(50, 52))
    return TRAINER.evaluate(trained, tmp_path, TINY)


def test_a_seed_gives_the_same_bytes_and_another_seed_others(
    trained: Path, data: Path, tmp_path: Path
) -> None:
    assert files_of(trained) == files_of(train(tmp_path / "again", data).artefacts)
    assert files_of(trained) != files_of(train(tmp_path / "other", data, seed=4).artefacts)


def test_training_goes_on_from_a_checkpoint_with_the_same_numbers(
    whole: Run, data: Path, tmp_path: Path
) -> None:
    cut = Run(data, tmp_path / "cut", seed=3, cut_after=2)
    with pytest.raises(JobCancelledError):
        TRAINER.train(cut, TINY)
    assert list(cut.artefacts.iterdir()) == []
    again = train(tmp_path / "again", data, before=cut)
    assert files_of(again.artefacts) == files_of(whole.artefacts)
    assert again.metrics == whole.metrics
    assert list(whole.metrics) == [1, 2, 3, 4]
    assert whole.metrics[4]["held_out_loss"] < whole.metrics[1]["held_out_loss"]


def test_somebody_may_cancel_between_any_two_batches(whole: Run) -> None:
    batches = sum(4 * round(0.8 * (10 * 48 - 24)) for _ in range(4)) // 16
    assert whole.checks >= batches
    assert whole.told[-1] == 1.0


def test_forecasts_of_other_series_beat_the_last_value_and_the_interval_holds(
    trained: Path, tmp_path: Path
) -> None:
    found = evaluated(trained, tmp_path)
    assert found.primary == "skill"
    assert found.metrics["skill"] > 0.1
    assert 0.93 <= found.metrics["inside"] <= 1.0
    assert found.metrics["alarms_a_day"] < 0.5
    assert np.mean(found.outcomes) == pytest.approx(found.metrics["skill"])
    assert len(found.outcomes) == found.rows


def test_wide_intervals_are_no_reason_to_stay_the_champion(trained: Path, tmp_path: Path) -> None:
    """A forecaster of nothing, however wide its intervals are, is worse row by row than one that learned."""
    wide = Path(shutil.copytree(trained, tmp_path / "wide"))
    weights = {name: np.zeros_like(value) for name, value in load_file(wide / WEIGHTS).items()}
    weights["2.bias"][1] = SPREADS[1]
    save_file(weights, wide / WEIGHTS)
    (tmp_path / "held-out").mkdir()
    write_servers(tmp_path / "held-out", days=8, seeds=range(50, 52))
    before, after = (score(folder, tmp_path / "held-out") for folder in (wide, trained))
    assert before.metrics["inside"] == 1.0 > after.metrics["inside"]
    assert before.metrics["skill"] < after.metrics["skill"]
    assert compare(before, after).verdict is Verdict.BETTER
    assert compare(after, before).verdict is Verdict.WORSE
    assert not after.promises


def test_past_scores_are_the_same_whatever_the_future_holds(trained: Path) -> None:
    predictor = open_predictor(trained)
    assert isinstance(predictor, AnomalyPredictor)
    values, cut = load_of_a_server(8, 60), 250
    other = values.copy()
    other[cut:] = np.random.default_rng(1).normal(-1e5, 1e4, len(values) - cut)
    judged = [
        [stream.judge(value) for value in given.tolist()]
        for given in (values, other, values[:cut])
        for stream in [predictor.stream(HALF_HOUR)]
    ]
    assert judged[0][:cut] == judged[1][:cut] == judged[2]
    assert judged[0][cut:] != judged[1][cut:]


def test_a_night_that_is_as_busy_as_the_day_is_a_surprise_to_the_forecaster(trained: Path) -> None:
    predictor = AnomalyPredictor.load(trained)
    values = load_of_a_server(10, 61)
    stream = predictor.stream(HALF_HOUR)
    for value in values.tolist():
        calm = stream.judge(value)
    assert calm.low is not None
    assert calm.high is not None
    assert calm.low < values[-1] < calm.high
    values[-1] = 2.4 * values.mean()
    surprised = predictor.stream(HALF_HOUR)
    for value in values.tolist():
        judged = surprised.judge(value)
    assert judged.likelihood is not None
    assert judged.likelihood > 0.98
    assert judged.score > 0.0
    assert judged.expected == calm.expected  # what is expected was said before the value was there


def test_a_row_is_answered_like_the_stream(trained: Path) -> None:
    predictor = open_predictor(trained)
    assert isinstance(predictor, AnomalyPredictor)
    values = load_of_a_server(3, 62).tolist()
    values[-1] = 1e4
    rows = [{"values": values, "step_seconds": HALF_HOUR}, {"values": values[:-1], "step_seconds": HALF_HOUR}]
    broken, calm = predictor.predict(rows)
    assert [broken] == predictor.predict(rows[:1])
    assert (broken["anomaly"], calm["anomaly"]) == (True, False)
    stream = predictor.stream(HALF_HOUR)
    last = [stream.judge(value) for value in values][-1]
    assert (broken["score"], broken["expected"]) == (last.score, last.expected)
    with pytest.raises(
        DataError, match=r"row 1: 'values' holds 3, and more than 24 are needed at one every 1800 s"
    ):
        predictor.predict([{"values": [1, 2, 3], "step_seconds": HALF_HOUR}])


def test_a_record_counts_no_more_than_it_would_without_the_forecaster(trained: Path) -> None:
    values = load_of_a_server(8, 63)
    values[300] = 5 * values.max()
    alone = scores_of(RecordStream(Scales.of_step(HALF_HOUR)), values)
    weighed = scores_of(AnomalyPredictor.load(trained).stream(HALF_HOUR), values)
    assert 0.5 < weighed[300] <= alone[300]


def test_likelihoods_are_shares_of_ordinary_errors() -> None:
    errors = np.random.default_rng(2).laplace(size=4000)
    kept = Calibration.of(np.abs(errors))
    assert len(kept.errors) <= 500
    fresh = np.abs(np.random.default_rng(3).laplace(size=4000))
    for share in (0.5, 0.9, 0.99):
        assert np.mean([kept.likelihood(e) <= share for e in fresh]) == pytest.approx(share, abs=0.02)
    assert kept.likelihood(1e9) == pytest.approx(4000 / 4001)
    assert kept.likelihood(0.0) == 0.0
    assert kept.likelihood(kept.error_of(0.98)) == pytest.approx(0.98)


def test_data_are_looked_over_first(data: Path, trained: Path, tmp_path: Path) -> None:
    found = TRAINER.inspect(data, TINY)
    assert found.rows == 4 * (10 * 48 - 24)
    assert read_manifest(trained).data_sha256 == found.sha256
    write_series(tmp_path / "short.csv", np.arange(110.0), step=300)
    with pytest.raises(
        DataError, match=r"short\.csv: 110 rows, and at least 180 are needed at one every 300 s"
    ):
        TRAINER.inspect(tmp_path / "short.csv", TINY)


def test_a_damaged_forecaster_is_refused(trained: Path, tmp_path: Path) -> None:
    for path in trained.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "forecaster.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(ArtefactError, match="holds no usable forecaster"):
        open_predictor(tmp_path)
    (tmp_path / "forecaster.safetensors").unlink()
    with pytest.raises(ArtefactError, match="train it anew"):
        Network.load(tmp_path)


def test_agents_are_told_of_a_metric_that_stands_out(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "load.csv"
    spec = HostSpec.model_validate(
        {
            "name": "web-1",
            "services": [
                {
                    "name": "shop",
                    "supervisor": {"kind": "systemd"},
                    "metrics": [
                        {
                            "about": "load of the shop",
                            "path": str(path),
                            "kind": "anomaly",
                            "predictor": str(trained),
                        }
                    ],
                }
            ],
        }
    )

    def asked(values: np.ndarray, age: float = 0.0) -> Evidence:
        end = time.time() - age
        times = end - HALF_HOUR * np.arange(len(values) - 1, -1, -1)
        rows = zip(times.tolist(), values.tolist(), strict=True)
        path.write_text("timestamp,value\n" + "".join(f"{at:.0f},{value!r}\n" for at, value in rows))
        target = Target(host=LocalHost("web-1"), spec=spec, state=tmp_path)
        return builtin_registry().gather("metric.anomaly", target, {"path": str(path)}, id="E1")

    values = load_of_a_server(8, 64)
    calm = asked(values)
    assert not calm.error
    assert calm.findings == ()
    values[-1] = 4 * values.max()
    (finding,) = asked(values).findings
    assert (finding.kind, finding.subject, finding.severity.value) == ("metric-anomaly", str(path), "warning")
    assert finding.text.startswith("load of the shop stands out: ")
    assert "; made by the points of " in finding.text
    (stale,) = asked(values, age=4 * 86400).findings
    assert stale.text == "load of the shop was last measured 4 days ago: nothing is known of now."
    assert "more than 24 are needed" in (asked(values[:20]).error or "")
