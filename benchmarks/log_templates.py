"""How well templates of log lines are found: ours and drain3's on public logs.

Each line of loghub's samples (2,000 of each system, logpai/loghub, "Loghub: A Large Collection of System Log
Datasets") has a true template. A line counts as right where the lines that were given its template are
exactly those of its true one (parsing accuracy, Zhu et al., "Tools and Benchmarks for Automated Log Parsing",
ICSE-SEIP 2019). Both see the lines one after the other, once. drain3 is measured as it comes, and given the
same masks. It pins an old cachetools, so it is installed beside the environment, not into it:

    pip install --no-deps --target build/drain3 drain3==0.9.11 jsonpickle==4.1.4
    PYTHONPATH=build/drain3 python benchmarks/log_templates.py
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from watchkeeper.tools.predictors.masks import mask
from watchkeeper.tools.predictors.templates import TemplateMiner

DATA = Path(__file__).parents[2] / "shared/data/loghub"
RESULTS = Path(__file__).parent / "results/log_templates.json"

Learn = Callable[[str], object]
"""Gives a line the name of its template."""


def parsing_accuracy(truth: Sequence[object], found: Sequence[object]) -> float:
    """Return the share of lines that are grouped exactly as the truth groups them."""
    true_groups, found_groups = defaultdict(set), defaultdict(set)
    for line, (true, name) in enumerate(zip(truth, found, strict=True)):
        true_groups[true].add(line)
        found_groups[name].add(line)
    right = sum(true_groups[t] == found_groups[n] for t, n in zip(truth, found, strict=True))
    return right / len(truth)


def ours(**options: Any) -> Learn:
    """Our miner."""
    miner = TemplateMiner(**options)
    return lambda line: miner.learn(line).id


def drain3(*, masked: bool) -> Learn | None:
    """drain3's, None where it is not installed."""
    try:
        from drain3.drain import Drain
    except ImportError:
        return None
    made = Drain()
    prepare = mask if masked else str
    return lambda line: made.add_log_message(prepare(line))[0].cluster_id


def main() -> None:
    """Measure and print a table; keep it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--similarity", type=float, nargs="+", default=[], help="try these thresholds, too")
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is missing: the loghub samples belong there")
    makers: dict[str, Callable[[], Learn | None]] = {
        "drain3": lambda: drain3(masked=False),
        "drain3, our masks": lambda: drain3(masked=True),
        "watchkeeper": ours,
    }
    for similarity in options.similarity:
        makers[f"watchkeeper, {similarity}"] = lambda similarity=similarity: ours(similarity=similarity)
    results: dict[str, dict[str, dict[str, float]]] = {}
    table = Table("miner", title="parsing accuracy")
    files = sorted(DATA.glob("*_structured.csv"))
    for file in files:
        table.add_column(file.name.partition("_")[0], justify="right")
    table.add_column("mean", justify="right")
    table.add_column("lines/s", justify="right")
    for name, make in makers.items():
        rows, took, lines = [], 0.0, 0
        for file in files:
            with file.open(encoding="utf-8", newline="") as opened:
                read = list(csv.DictReader(opened))
            learn = make()
            if learn is None:
                break
            started = time.perf_counter()
            found = [learn(row["Content"]) for row in read]
            seconds = time.perf_counter() - started
            accuracy = parsing_accuracy([row["EventId"] for row in read], found)
            system = file.name.partition("_")[0]
            results.setdefault(name, {})[system] = {"accuracy": accuracy, "seconds": seconds}
            rows.append(accuracy)
            took, lines = took + seconds, lines + len(read)
        if len(rows) < len(files):
            table.add_row(name, *["not installed"] * (len(files) + 2))
            continue
        cells = [f"{accuracy:.3f}" for accuracy in (*rows, sum(rows) / len(rows))]
        table.add_row(name, *cells, f"{lines / took:,.0f}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    Console().print(table)


if __name__ == "__main__":
    main()
