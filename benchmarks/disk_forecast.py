"""How well ``disk-forecast`` says when disks are full, beside the straight line of the last day.

There is no public collection of disks that fill, so these are written processes (`tests/filling.py`): steady
growth that wanders, growth by day alone, cleanups, large files, and none at all. The trainer learns from some
seeds, and other seeds are forecast. Both have intervals that are calibrated in the same way, so that the
difference is the trends'.

    python benchmarks/disk_forecast.py --plots
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from watchkeeper.tools.predictors.disk_forecast import DiskForecastPredictor
from watchkeeper.tools.predictors.growth import LEVELS, History
from watchkeeper.tools.training.disk_forecast import DiskForecastTrainer

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.filling import KINDS, filling, write_disks
from tests.training import Run

COLUMNS = ("skill", "coverage", "coverage_line", "brier", "brier_line")


def main() -> None:
    """Measure, print a table, and write figures and plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--disks", type=int, default=10, help="of each kind, to learn from and to forecast")
    parser.add_argument("--hours", type=int, default=1500)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/disk_forecast.json"))
    parser.add_argument(
        "--plots", action="store_true", help="draw a forecast of each kind beside the figures"
    )
    options = parser.parse_args()
    trainer = DiskForecastTrainer()
    parameters = trainer.parse_parameters({})
    with tempfile.TemporaryDirectory(prefix="wk-disks-") as name:
        folder = Path(name)
        write_disks(folder / "learned", hours=options.hours, seeds=range(options.disks))
        run = Run(folder / "learned", folder / "run")
        trainer.train(run, parameters)
        predictor = DiskForecastPredictor.load(run.artefacts)
        write_disks(folder / "all", hours=options.hours, seeds=range(1000, 1000 + options.disks))
        figures = {"all": trainer.evaluate(run.artefacts, folder / "all", parameters).metrics}
        for kind in KINDS:
            part = folder / kind
            part.mkdir()
            for path in (folder / "all").glob(f"{kind}-*.csv"):
                path.rename(part / path.name)
            figures[kind] = trainer.evaluate(run.artefacts, part, parameters).metrics
    print(" | ".join(("disks", *COLUMNS)))
    for kind, metrics in figures.items():
        print(" | ".join((kind, *(f"{metrics[column]:.3f}" for column in COLUMNS))))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    print(f"all figures are in {options.output}", file=sys.stderr)
    if options.plots:
        path = options.output.with_suffix(".png")
        _plot(path, predictor, options.hours)
        print(f"forecasts are drawn in {path}", file=sys.stderr)


def _plot(path: Path, predictor: DiskForecastPredictor, hours: int) -> None:
    """Draw for one disk of each kind what was foreseen, and what came."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(KINDS), sharex=True, figsize=(9, 10))
    for axis, kind in zip(axes, KINDS, strict=True):
        values, now = filling(kind, hours, 1000), hours // 3
        history = History.of(values[: now + 1], predictor.model.full)
        told = [h.quantiles(history)[-1] for h in predictor.model.horizons]
        at = [now, *(now + h.steps for h in predictor.model.horizons)]
        paths = [[float(values[now]), *(float(t[place]) for t in told)] for place in range(len(LEVELS))]
        axis.plot(range(now - 168, now + 169), values[now - 168 : now + 169], linewidth=0.8)
        axis.plot(at, paths[LEVELS.index(0.5)], color="tab:red", linewidth=0.8)
        axis.fill_between(at, paths[0], paths[-1], color="tab:red", alpha=0.2, linewidth=0)
        axis.set_ylabel(f"{kind}, %")
    axes[-1].set_xlabel("hours")
    figure.savefig(path, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    main()
