"""When disks are full: trends, intervals, and the trainer that chooses and calibrates them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.filling import filling, write_disks, write_series
from tests.training import Run, files_of
from watchkeeper.tools.errors import ArtefactError, DataError, JobCancelledError
from watchkeeper.tools.predictors import open_predictor, read_manifest
from watchkeeper.tools.predictors.disk_forecast import MODEL, DiskForecastPredictor, DiskModel
from watchkeeper.tools.predictors.growth import (
    LEVELS,
    LINE,
    History,
    HorizonModel,
    Trend,
    outlook,
    resampled,
)
from watchkeeper.tools.training import trainer_of
from watchkeeper.tools.versions.compare import Verdict, compare, score

TRAINER = trainer_of("disk-forecast")
THREE_DAYS = TRAINER.parse_parameters({"horizon_hours": 72})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disks")
    write_disks(folder / "data", hours=600, seeds=range(2))
    run = Run(folder / "data", folder / "run")
    TRAINER.train(run, THREE_DAYS)
    return run.artefacts


def told(model: DiskForecastPredictor, values: np.ndarray, step: float = 3600.0) -> dict[str, float]:
    (answer,) = model.predict([{"values": values.tolist(), "step_seconds": step}])
    return answer  # type: ignore[return-value]


def test_trends_go_on_straight_damped_or_not_at_all() -> None:
    assert Trend(window=6, damping=1.0).reach(10) == 10
    assert Trend(window=6, damping=0.0).reach(10) == 0
    assert Trend(window=6, damping=0.5).reach(3) == pytest.approx(0.5 + 0.25 + 0.125)


def test_the_median_growth_is_not_disturbed_by_a_cleanup() -> None:
    history = History.of(np.array([10, 12, 14, 16, 4, 6, 8.0]), 100)
    assert history.growth[6, True].tolist() == [0, 2, 2, 2, 2, 2, 2]
    assert history.growth[6, False][-1] == pytest.approx(-2 / 6)
    assert history.unit[-1] == pytest.approx((5 * 2 + 12) / 6)
    assert History.of(np.full(30, 7.0), 100).unit[-1] == pytest.approx(0.01)


def test_what_is_told_at_a_step_is_the_same_whatever_comes_later(trained: Path) -> None:
    model, values = DiskForecastPredictor.load(trained).model, filling("cleaned", 500, 8)
    whole, cut = History.of(values, 100), History.of(values[:300], 100)
    for horizon in model.horizons:
        assert horizon.quantiles(whole)[:300].tolist() == horizon.quantiles(cut).tolist()


def test_a_series_follows_the_trend_that_suited_it_lately() -> None:
    # Six days at rest, then steady growth: first nothing changes, and then the line goes on.
    values = np.concatenate([np.full(150, 10.0) + 0.01 * (np.arange(150) % 2), 10 + 0.1 * np.arange(200)])
    still = Trend(window=24, damping=0.0)
    model = HorizonModel(steps=6, trends=(still, LINE), losses=(1.0, 1.0))
    told = model.middles(History.of(values, 100))
    assert told[140] == values[140]
    assert told[-1] == pytest.approx(values[-1] + 0.6)


def test_values_are_read_off_at_even_steps_counted_back_from_the_last() -> None:
    times = np.array([0, 1000, 3500, 3700, 7200.0])
    assert resampled(times, np.array([1, 2, 3, 4, 5.0]), 3600).tolist() == [1, 3, 5]


def test_the_time_until_full_is_read_off_the_quantiles() -> None:
    # One usual change is 2; the quantiles spread evenly from -9 to +9 changes around the straight line.
    errors = tuple(float(place) for place in range(-9, 10))
    models = [HorizonModel(steps=n, trends=(LINE,), losses=(0.0,), errors=errors) for n in (10, 20)]
    values = np.arange(30) * 2.0 + 12.0  # 70 now; 90 and 110 in the middle
    seen = outlook(models, History.of(values, 100.0), 29, 100.0)
    assert seen.likely == pytest.approx(15.0)
    assert seen.earliest == pytest.approx(30 / 3.8)  # 108 after ten steps
    assert seen.latest is None  # 92 after twenty
    assert seen.probability == pytest.approx(1 - 0.25)  # 100 is five changes below the middle of the farthest
    assert len(errors) == len(LEVELS)


def test_a_full_disk_is_full_now() -> None:
    model = HorizonModel(steps=1, trends=(LINE,), losses=(0.0,), errors=(0.0,) * len(LEVELS))
    seen = outlook([model], History.of(np.full(30, 100.0), 100.0), 29, 100.0)
    assert (seen.probability, seen.likely, seen.latest) == (1.0, 0.0, 0.0)


def test_forecasts_of_other_disks_beat_the_straight_line(trained: Path, tmp_path: Path) -> None:
    write_disks(tmp_path, hours=500, seeds=range(100, 102))
    found = TRAINER.evaluate(trained, tmp_path, THREE_DAYS)
    assert found.primary == "skill"
    assert found.metrics["skill"] > 0.05
    assert 0.8 <= found.metrics["coverage"] <= 0.98
    assert 0 <= found.metrics["brier"] < 0.25
    assert len(found.outcomes) == found.rows > 500


def test_wide_intervals_are_no_reason_to_stay_the_champion(trained: Path, tmp_path: Path) -> None:
    """Intervals that hold every value, and a line to be measured by that is as bad, win nothing."""
    wide = Path(shutil.copytree(trained, tmp_path / "wide"))
    model = DiskModel.model_validate_json((wide / MODEL).read_bytes())
    worse = {
        name: tuple(
            one.model_copy(update={"errors": tuple(50 * error for error in one.errors)})
            for one in getattr(model, name)
        )
        for name in ("horizons", "line")
    }
    (wide / MODEL).write_text(model.model_copy(update=worse).model_dump_json())
    (tmp_path / "held-out").mkdir()
    write_disks(tmp_path / "held-out", hours=500, seeds=range(100, 102))
    before, after = (score(folder, tmp_path / "held-out") for folder in (wide, trained))
    assert before.metrics["coverage"] > after.metrics["coverage"]
    assert compare(before, after).verdict is Verdict.BETTER
    assert compare(after, before).verdict is Verdict.WORSE
    assert not after.promises


def test_a_disk_that_fills_is_told_from_one_that_idles(trained: Path) -> None:
    opened = open_predictor(trained)
    assert isinstance(opened, DiskForecastPredictor)
    filling_up = told(opened, 60 + 0.5 * np.arange(72))
    assert filling_up["probability"] > 0.6
    assert filling_up["earliest_hours"] <= filling_up["hours_to_full"]
    assert filling_up["horizon_hours"] == 72
    idle = told(opened, filling("idle", 200, 77))
    assert idle["probability"] < 0.1
    assert idle["hours_to_full"] is None
    assert idle["low"][-1] < idle["middle"][-1] < idle["high"][-1]  # type: ignore[index]


def test_minutes_and_hours_of_the_same_disk_are_answered_alike(trained: Path) -> None:
    opened = DiskForecastPredictor.load(trained)
    hours = filling("steady", 100, 5)
    minutes = np.interp(np.arange(0, 99.001, 1 / 6), np.arange(100), hours)
    assert told(opened, minutes, 600.0)["high"] == pytest.approx(told(opened, hours)["high"])


def test_training_goes_on_from_a_checkpoint_with_the_same_numbers(trained: Path, tmp_path: Path) -> None:
    data = trained.parents[1] / "data"
    cut = Run(data, tmp_path / "cut", cut_after=4)
    with pytest.raises(JobCancelledError):
        TRAINER.train(cut, THREE_DAYS)
    again = Run(data, tmp_path / "again", before=cut)
    TRAINER.train(again, THREE_DAYS)
    assert files_of(again.artefacts) == files_of(trained)
    assert list(again.metrics) == list(range(1, 9))


def test_data_are_looked_over_first(tmp_path: Path) -> None:
    write_series(tmp_path / "a.csv", filling("daily", 400, 3))
    found = TRAINER.inspect(tmp_path, THREE_DAYS)
    assert (found.rows, found.columns["value"]) == (400, "number")
    assert "400 steps of 1 h" in found.notes[0]
    with pytest.raises(DataError, match=r"measure longer, or look less far ahead \(horizon_hours\)"):
        TRAINER.inspect(tmp_path, TRAINER.parse_parameters({}))


@pytest.mark.parametrize(
    ("factor", "full", "what"),
    [
        (1.0, 25.0, "is above 25, which is said to be full: set `full`"),
        (0.01, 100.0, "and 100 is said to be full: are these shares of 1"),
    ],
)
def test_values_in_another_unit_than_full_are_refused(
    tmp_path: Path, factor: float, full: float, what: str
) -> None:
    write_series(tmp_path / "a.csv", filling("steady", 600, 3) * factor)
    with pytest.raises(DataError, match=what):
        TRAINER.inspect(tmp_path, TRAINER.parse_parameters({"horizon_hours": 72, "full": full}))


def test_times_in_milliseconds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("timestamp,value\n1750000000000,1\n")
    with pytest.raises(DataError, match=r"a\.csv:2: 'timestamp' '1750000000000' is no time .*milli"):
        TRAINER.inspect(tmp_path, THREE_DAYS)


def test_what_is_too_short_to_learn_from_is_long_enough_to_be_scored_on(
    trained: Path, tmp_path: Path
) -> None:
    write_series(tmp_path / "a.csv", filling("daily", 130, 3))
    with pytest.raises(DataError, match="measure longer"):
        TRAINER.inspect(tmp_path, THREE_DAYS)
    assert TRAINER.look_over(tmp_path, THREE_DAYS).rows == 130
    assert score(trained, tmp_path).rows > 0


def test_no_more_steps_are_made_than_are_looked_at() -> None:
    times, values = np.array([0.0, 1e12]), np.array([1.0, 2.0])
    assert resampled(times, values, 3600.0, most=4).tolist() == [1.0, 1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"step_seconds": 60}, "row 1: 'values' is missing"),
        ({"values": [1, 2]}, "row 1: 'step_seconds' is missing"),
        (
            {"values": [1, "2"], "step_seconds": 60},
            "row 1: 'values' holds '2' at place 1; give finite numbers",
        ),
        ({"values": [1, float("nan")], "step_seconds": 60}, "'values' holds nan at place 1"),
        ({"values": [1, True], "step_seconds": 60}, "'values' holds True at place 1"),
        ({"values": "many", "step_seconds": 60}, "'values' must be a list"),
        ({"values": [1, 2], "step_seconds": 0}, "'step_seconds' is 0; give a number from 0.001 to 3.2e+07"),
        ({"values": [1, 2], "step_seconds": 1e11}, "'step_seconds' is 100000000000.0; give a number"),
        ({"values": [1, 2], "step_seconds": 60}, "row 1: the values span too little; give those of at"),
        ({"values": [], "step_seconds": 60}, "row 1: 'values' is empty"),
    ],
)
def test_a_row_that_cannot_be_answered_is_named(trained: Path, row: dict[str, object], what: str) -> None:
    with pytest.raises(DataError, match=re.escape(what)):
        open_predictor(trained).predict([row])  # type: ignore[list-item]


def test_a_folder_of_another_kind_or_damaged_is_refused(trained: Path, tmp_path: Path) -> None:
    assert read_manifest(trained).kind == "disk-forecast"
    for name in ("predictor.json", "growth.json"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    (tmp_path / "growth.json").write_text("{}")
    with pytest.raises(ArtefactError, match=r"growth\.json cannot be used"):
        open_predictor(tmp_path)
