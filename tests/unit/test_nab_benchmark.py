"""The benchmark of detectors shows them nothing of the future, and learns from nothing that is scored."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.nab import Window, probation
from watchkeeper.tools.predictors.series import Series, SeriesFormat, read_file, read_folder

ROOT = Path(__file__).parents[2]
PATH = ROOT / "benchmarks/nab.py"
DATA = ROOT.parent / "shared/data/nab"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("nab_benchmark", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def series(name: str, values: np.ndarray) -> Series:
    return Series(name=name, times=300.0 * np.arange(len(values)), values=values)


def noise(seed: int, rows: int = 1000) -> np.ndarray:
    return np.random.default_rng(seed).normal(10, 1, rows)


@pytest.mark.parametrize("name", ["null", "static threshold", "moving z-score", "records"])
def test_a_detector_says_the_same_of_the_past_whatever_the_future_holds(
    benchmark: ModuleType, name: str
) -> None:
    values, cut = noise(1), 600
    other = values.copy()
    other[cut:] += 1e6
    detector = benchmark._plain()[name]
    past = detector(series("a", values))[:cut].tolist()
    assert detector(series("a", other))[:cut].tolist() == past


def test_what_is_learned_from_ends_before_the_first_row_that_is_scored(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    values = noise(2)
    benchmark._write(tmp_path / "data" / "a.csv", series("a", values), probation(len(values)))
    (read,) = read_file(tmp_path / "data" / "a.csv", SeriesFormat())
    assert read.values.tolist() == values[:150].tolist()


def test_a_detector_is_compared_with_records_and_scored_by_the_threshold_of_others(
    benchmark: ModuleType,
) -> None:
    corpus = [series("a", noise(3)), series("b", noise(4))]
    windows = {"a": (Window(500, 549),), "b": (Window(700, 749),)}
    right, poor = ({s.name: np.zeros(1000) for s in corpus} for _ in range(2))
    right["a"][500] = right["b"][700] = 0.9
    poor["a"][500], poor["b"][700] = 0.9, 0.2  # the threshold of one series alone misses the other
    poor["a"][900] = 0.3
    records = benchmark.Result("records", None, right, 1.0)
    other = benchmark.Result("other", 1, poor, 1.0)
    row = benchmark._row(other, corpus, windows, [records, other])
    assert (row["score"], row["windows"], row["found"], row["false"]) == (97.2, 2, 2, 1)
    assert row["threshold of other series"] == pytest.approx(47.2, abs=3)
    assert row["better than records by"][0] == pytest.approx(-2.8, abs=0.1)
    assert benchmark._row(records, corpus, windows, [records, other])["score"] == 100.0


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/nab is not on this machine")
def test_the_published_series_are_read_and_every_window_has_its_rows(benchmark: ModuleType) -> None:
    corpus = read_folder(DATA, SeriesFormat.model_validate(benchmark.FORM))
    truth = benchmark._truth(DATA, corpus)
    published = json.loads((DATA / "combined_windows.json").read_bytes())
    assert {name: len(spans) for name, spans in published.items()} == {
        name: len(windows) for name, windows in truth.items()
    }
    assert sum(len(windows) for windows in truth.values()) == 36
    # Clocks that were set back are refused, with their line, unless that is asked for.
    with pytest.raises(DataError, match=r"\.csv:\d+: time '.*' stands there a second time"):
        read_folder(DATA / "realAWSCloudwatch", SeriesFormat())
