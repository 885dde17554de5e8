"""How detectors of anomalies do on series of the Numenta Anomaly Benchmark, by its standard profile.

Every detector sees one point after the other. The network is trained on the probationary parts of the series
alone (their first 15 %), of which nothing is scored. As the benchmark prescribes, one threshold is chosen for
all series of a detector together, by the score itself; in the second column it is chosen on all series but
the one that is scored. True windows are read after all scores are there.

    python benchmarks/nab.py --data ../shared/data/nab --seeds 3 --plots
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from watchkeeper.tools.predictors.anomaly import AnomalyPredictor
from watchkeeper.tools.predictors.forecaster import ForecastStream, Network
from watchkeeper.tools.predictors.nab import (
    Scored,
    Tally,
    Window,
    best_threshold,
    normalized,
    probation,
    score_at,
    windows_of,
)
from watchkeeper.tools.predictors.records import RecordStream
from watchkeeper.tools.predictors.series import Numbers, Series, SeriesFormat, read_folder
from watchkeeper.tools.predictors.streams import Scales, scores_of
from watchkeeper.tools.training.metric_anomaly import MetricAnomalyTrainer

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.training import Run

# The published series hold a few repeated times, and one is constant.
FORM = {"repeated_times": "keep", "constant": "keep"}
TRUTH = "combined_windows.json"
MOVING = 288
RESAMPLES = 2000

Detector = Callable[[Series], Numbers]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one detector."""

    name: str
    seed: int | None
    scores: dict[str, Numbers]
    seconds: float


def main() -> None:
    """Measure, print a table, and write figures and plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/nab"), help="folder of the benchmark"
    )
    parser.add_argument("--seeds", type=int, default=3, help="networks that are trained")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/nab.json"))
    parser.add_argument("--plots", action="store_true", help="draw each series beside the figures")
    options = parser.parse_args()
    if not (options.data / TRUTH).is_file():
        parser.error(f"{options.data / TRUTH} is missing; name the benchmark's data folder with --data")
    corpus = read_folder(options.data, SeriesFormat.model_validate(FORM))
    results = [_run(name, None, detector, corpus) for name, detector in _plain().items()]
    for seed in range(options.seeds):
        results += _learned(corpus, seed, options.threads)
    truth = _truth(options.data, corpus)
    rows = [_row(result, corpus, truth, results) for result in results]
    _print(rows)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        json.dumps({"series": len(corpus), "detectors": rows}, indent=2), encoding="utf-8"
    )
    print(f"all figures are in {options.output}", file=sys.stderr)
    if options.plots:
        folder = options.output.with_suffix("")
        _plot(folder, corpus, truth, results, rows)
        print(f"plots are in {folder}", file=sys.stderr)


def _plain() -> dict[str, Detector]:
    """Return detectors that learn nothing."""
    draw = np.random.default_rng(0)
    return {
        "null": lambda series: np.full(len(series.values), 0.5),
        "random": lambda series: draw.random(len(series.values)),
        "static threshold": _static,
        "moving z-score": _moving,
        "records": lambda series: scores_of(RecordStream(Scales.of_step(series.step_seconds)), series.values),
    }


def _static(series: Series) -> Numbers:
    """Score by the distance from the mean of the probationary part, in its standard deviations."""
    first = series.values[: probation(len(series.values))]
    return np.abs(series.values - first.mean()) / max(float(first.std()), 1e-9)


def _moving(series: Series) -> Numbers:
    """Score by the distance from the mean of the last points, in their standard deviations."""
    scores = np.zeros(len(series.values))
    for row in range(20, len(scores)):
        last = series.values[max(0, row - MOVING) : row]
        scores[row] = abs(series.values[row] - last.mean()) / max(
            float(last.std()), 1e-3 * abs(last.mean()), 1e-9
        )
    return scores


def _run(name: str, seed: int | None, detector: Detector, corpus: Sequence[Series]) -> Result:
    started = time.process_time()
    scores = {series.name: detector(series) for series in corpus}
    seconds = time.process_time() - started
    print(f"{name} (seed {seed}): {seconds:.0f} s", file=sys.stderr, flush=True)
    return Result(name, seed, scores, seconds)


def _learned(corpus: Sequence[Series], seed: int, threads: int) -> list[Result]:
    """Train on probationary parts, and run what comes of it."""
    with tempfile.TemporaryDirectory(prefix="wk-nab-") as name:
        folder = Path(name)
        for number, series in enumerate(corpus):
            _write(folder / "data" / f"{number:03}.csv", series, probation(len(series.values)))
        trainer = MetricAnomalyTrainer()
        run = Run(folder / "data", folder / "run", seed=seed)
        run.threads = threads
        started = time.process_time()
        trainer.train(run, trainer.parse_parameters(FORM))
        print(f"trained (seed {seed}): {time.process_time() - started:.0f} s", file=sys.stderr, flush=True)
        network = Network.load(run.artefacts)
        predictor = AnomalyPredictor.load(run.artefacts)

    def errors(series: Series) -> Numbers:
        scales = Scales.of_step(series.step_seconds)
        forecasts, records = ForecastStream(network, scales), RecordStream(scales)
        told = (forecasts.next(value) for value in series.values.tolist())
        return np.array([records.judge(0.0 if f is None else f.error).score for f in told])

    def judged(series: Series) -> Numbers:
        return scores_of(predictor.stream(series.step_seconds), series.values)

    return [
        _run("forecast errors alone", seed, errors, corpus),
        _run("metric-anomaly", seed, judged, corpus),
    ]


def _write(path: Path, series: Series, rows: int) -> None:
    path.parent.mkdir(exist_ok=True)
    lines = zip(series.times[:rows].tolist(), series.values[:rows].tolist(), strict=True)
    path.write_text(
        "timestamp,value\n" + "".join(f"{at!r},{value!r}\n" for at, value in lines), encoding="utf-8"
    )


def _truth(data: Path, corpus: Sequence[Series]) -> dict[str, tuple[Window, ...]]:
    read: dict[str, list[list[str]]] = json.loads((data / TRUTH).read_bytes())
    return {
        series.name: windows_of(
            series.times, [(_seconds(start), _seconds(end)) for start, end in read.get(series.name, [])]
        )
        for series in corpus
    }


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def _row(
    result: Result,
    corpus: Sequence[Series],
    truth: Mapping[str, tuple[Window, ...]],
    results: Sequence[Result],
) -> dict[str, object]:
    """Score a detector: with the one threshold, with that of all other series, and against ``records``."""
    scored = _scored(result, corpus, truth)
    threshold, tally = best_threshold(scored)
    unseen = [
        score_at(one, best_threshold([other for other in scored if other is not one])[0]) for one in scored
    ]
    (baseline,) = (other for other in results if other.name == "records")
    others = _scored(baseline, corpus, truth)
    other_threshold, _ = best_threshold(others)
    mine = [score_at(one, threshold) for one in scored]
    theirs = [score_at(one, other_threshold) for one in others]
    return {
        "detector": result.name,
        "seed": result.seed,
        "score": round(normalized(tally), 1),
        "threshold of other series": round(normalized(_sum(unseen)), 1),
        "threshold": threshold,
        "windows": tally.windows,
        "found": tally.found,
        "false": tally.false,
        "better than records by": _interval(mine, theirs),
        "seconds": round(result.seconds, 1),
        "microseconds a point": round(1e6 * result.seconds / sum(len(s.values) for s in corpus)),
        "by series": {one.name: round(part.raw, 3) for one, part in zip(scored, mine, strict=True)},
    }


def _scored(
    result: Result, corpus: Sequence[Series], truth: Mapping[str, tuple[Window, ...]]
) -> list[Scored]:
    return [Scored(s.name, result.scores[s.name], truth[s.name]) for s in corpus]


def _sum(tallies: Sequence[Tally]) -> Tally:
    total = tallies[0]
    for tally in tallies[1:]:
        total += tally
    return total


def _interval(mine: Sequence[Tally], theirs: Sequence[Tally]) -> list[float]:
    """Return the difference of scores and its 95 % interval, by a paired bootstrap over the series."""
    draw = np.random.default_rng(0)
    differences = np.array([a.raw - b.raw for a, b in zip(mine, theirs, strict=True)])
    windows = np.array([a.windows for a in mine])
    chosen = draw.integers(0, len(mine), (RESAMPLES, len(mine)))
    counts = np.maximum(windows[chosen].sum(axis=1), 1)
    drawn = 100 * differences[chosen].sum(axis=1) / (2 * counts)
    whole = 100 * differences.sum() / (2 * windows.sum())
    return [round(float(v), 1) for v in (whole, *np.quantile(drawn, (0.025, 0.975)))]


def _print(rows: Sequence[Mapping[str, object]]) -> None:
    columns = (
        "detector",
        "seed",
        "score",
        "threshold of other series",
        "found",
        "false",
        "better than records by",
    )
    print(" | ".join((*columns, "microseconds a point")))
    for row in rows:
        print(" | ".join(str(row[column]) for column in (*columns, "microseconds a point")))


def _plot(
    folder: Path,
    corpus: Sequence[Series],
    truth: Mapping[str, tuple[Window, ...]],
    results: Sequence[Result],
    rows: Sequence[Mapping[str, object]],
) -> None:
    """Draw each series with the scores and detections of the baseline and of the first network."""
    from matplotlib import pyplot as plt

    shown = {
        result.name: (result, float(str(row["threshold"])))
        for result, row in zip(results, rows, strict=True)
        if result.name in ("records", "metric-anomaly") and not result.seed
    }
    folder.mkdir(parents=True, exist_ok=True)
    for series in corpus:
        figure, (above, *below) = plt.subplots(1 + len(shown), sharex=True, figsize=(10, 5))
        above.plot(series.values, linewidth=0.6)
        above.set_title(series.name)
        above.axvspan(0, probation(len(series.values)), color="0.9")
        for window in truth[series.name]:
            for axis in (above, *below):
                axis.axvspan(window.first, window.last, color="tab:green", alpha=0.2)
        for axis, (name, (result, threshold)) in zip(below, shown.items(), strict=True):
            scores = result.scores[series.name]
            axis.plot(scores, linewidth=0.6, color="tab:red")
            axis.axhline(threshold, color="0.5", linewidth=0.6)
            rows_told = np.flatnonzero(scores >= threshold)
            above.plot(
                rows_told,
                series.values[rows_told],
                marker="o" if name == "records" else "x",
                linestyle="none",
                markersize=5,
                markerfacecolor="none",
                label=name,
            )
            axis.set_ylabel(name)
            axis.set_ylim(0, 1)
        above.legend(loc="upper left", fontsize="small")
        figure.savefig(folder / (series.name.replace("/", "-").removesuffix(".csv") + ".png"), dpi=80)
        plt.close(figure)


if __name__ == "__main__":
    main()
