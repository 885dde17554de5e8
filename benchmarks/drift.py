"""False alarms of drift detectors where nothing changes, and how late they tell a change.

python benchmarks/drift.py [--seeds 10]

ADWIN and KSWIN (river) see one value at a time; the population stability index sees windows of 250
against the first 500. Streams of 3,000 values are generated, so that the truth is known: stationary ones
(normal, uniform, errors at a rate of 0.1, and a daily wave), and ones whose mean shifts by half, one or two
standard deviations, or whose rate of errors goes from 0.1 to 0.3, after 1,500 values.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from watchkeeper.models.plots import write_plot
from watchkeeper.tools.predictors.drift import Adwin, DriftDetector, Kswin
from watchkeeper.tools.predictors.drift_plot import draw_drift, drift_lines
from watchkeeper.tools.predictors.psi import ColumnReference, Reference
from watchkeeper.tools.predictors.recording import Recorded

RESULTS = Path(__file__).parent / "results"
LENGTH, CHANGE = 3000, 1500
FIRST, WINDOW = 500, 250

Stream = Callable[[random.Random, int], float]

STATIONARY: dict[str, Stream] = {
    "normal": lambda draw, _: draw.gauss(0, 1),
    "uniform": lambda draw, _: draw.random(),
    "errors at 0.1": lambda draw, _: float(draw.random() < 0.1),
    "daily wave": lambda draw, at: math.sin(2 * math.pi * at / 288) + draw.gauss(0, 0.3),
}


def _shift(size: float) -> Stream:
    return lambda draw, at: draw.gauss(size if at >= CHANGE else 0.0, 1)


CHANGING: dict[str, Stream] = {
    "mean + 0.5 sd": _shift(0.5),
    "mean + 1 sd": _shift(1.0),
    "mean + 2 sd": _shift(2.0),
    "errors 0.1 to 0.3": lambda draw, at: float(draw.random() < (0.3 if at >= CHANGE else 0.1)),
}

DETECTORS: dict[str, Callable[[], DriftDetector]] = {
    "ADWIN (delta 0.002)": Adwin,
    "KSWIN (alpha 0.005)": lambda: Kswin(alpha=0.005, window=100, newest=30),
    "KSWIN (alpha 1e-4)": Kswin,
}


def alarms(make: Callable[[], DriftDetector], values: list[float]) -> list[int]:
    """Return where a detector tells a change."""
    detector = make()
    return [at for at, value in enumerate(values) if detector.update(value)]


def psi_alarms(values: list[float]) -> list[int]:
    """Return the ends of the windows that shifted."""
    known = Reference(rows=FIRST, columns={"x": ColumnReference.of(list(values[:FIRST]))})
    return [
        start + WINDOW - 1
        for start in range(FIRST, len(values) - WINDOW + 1, WINDOW)
        if known.compare([{"x": value} for value in values[start : start + WINDOW]])["x"].shifted
    ]


def measured(detect: Callable[[list[float]], list[int]], seeds: int) -> dict[str, object]:
    """Run a detector over all streams."""
    false, delays, missed = {}, {}, {}
    began = time.process_time()
    for name, stream in STATIONARY.items():
        counts = []
        for seed in range(seeds):
            draw = random.Random(seed)
            counts.append(len(detect([stream(draw, at) for at in range(LENGTH)])))
        false[name] = sum(counts) / seeds / LENGTH * 10_000
    for name, stream in CHANGING.items():
        found = []
        for seed in range(seeds):
            draw = random.Random(1000 + seed)
            after = [at for at in detect([stream(draw, at) for at in range(LENGTH)]) if at >= CHANGE]
            if after:
                found.append(after[0] - CHANGE + 1)
        delays[name] = statistics.median(found) if found else None
        missed[name] = seeds - len(found)
    values = (len(STATIONARY) + len(CHANGING)) * seeds * LENGTH
    return {
        "false_alarms_per_10000": false,
        "delay": delays,
        "missed": missed,
        "microseconds_per_value": (time.process_time() - began) / values * 1e6,
    }


def plot() -> None:
    """Draw the index of a predictor's rows and answers over time, with a shift in the middle."""
    draw = random.Random(3)
    begin = datetime(2026, 1, 5, tzinfo=UTC)
    found = []
    for at in range(LENGTH):
        load = draw.gauss(1.0 if at >= CHANGE else 0.0, 1)
        row = {"load": load, "disk": draw.random()}
        moment = begin + timedelta(minutes=5 * at)
        found.append(Recorded("busy", str(at), 1, "champion", moment, row, {"busy": load > 0.5}))
    lines = drift_lines(found, reference=FIRST, window=WINDOW)
    write_plot(
        RESULTS / "drift.png", draw_drift("load shifts by one standard deviation in the middle", lines)
    )


def main() -> None:
    """Measure, print and write the figures and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--kswin-seeds", type=int, default=2, help="KSWIN takes milliseconds a value.")
    given = parser.parse_args()
    results: dict[str, dict[str, object]] = {}
    for name, make in DETECTORS.items():
        seeds = given.kswin_seeds if name.startswith("KSWIN") else given.seeds
        results[name] = {"seeds": seeds, **measured(lambda values, make=make: alarms(make, values), seeds)}
    results["PSI (windows of 250)"] = {"seeds": given.seeds, **measured(psi_alarms, given.seeds)}
    for name, result in results.items():
        print(f"{name}: {result['seeds']} seeds, {result['microseconds_per_value']:.1f} us a value")
        for title in ("false_alarms_per_10000", "delay", "missed"):
            values = result[title]
            assert isinstance(values, dict)
            said = ", ".join(f"{key}: {'-' if one is None else f'{one:g}'}" for key, one in values.items())
            print(f"  {title.replace('_', ' ')}: {said}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "drift.json").write_text(json.dumps(results, indent=2) + "\n")
    plot()


if __name__ == "__main__":
    main()
