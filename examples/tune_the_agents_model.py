"""The agents' own model learns from decisions, and its adapter is used only if it is better on others.

    python examples/tune_the_agents_model.py [--model MODEL] [--decisions N] [--held-out N] [--seed N]

Everything lies in a temporary home; `watchkeeper models tune` does the same in yours, with more decisions,
and goes on where it was stopped. So few decisions seldom earn anything: then the adapter must not be there at
the end. Where it did, one held-out question is put without it and with it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from lifecycle_world import expect

from watchkeeper.models.adapter_store import adapter_folder, installed_adapters
from watchkeeper.models.catalog import DEFAULT_MODEL, CatalogEntry, find_model
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.home import home_folder
from watchkeeper.models.loading import load
from watchkeeper.runtime.tuning import Tuning
from watchkeeper.runtime.tuning_verdict import TuningPlan, TuningVerdict

NAME = "example"
_told: set[str] = set()


def main(arguments: list[str] | None = None) -> int:
    """Train, judge, and install what is better; 0 where the end fits the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--decisions", type=int, default=60, help="decisions to learn from")
    parser.add_argument("--held-out", type=int, default=60, help="decisions of other kinds that only judge")
    parser.add_argument("--calls", type=int, default=10, help="tool calls that must not get worse")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    entry = find_model(given.model)
    plan = TuningPlan(
        model=entry.id, drills=given.decisions, held_out=given.held_out, calls=given.calls, seed=given.seed
    )
    with tempfile.TemporaryDirectory(prefix="wk-tuning-") as folder:
        home = Path(folder)
        (home / "models").symlink_to(home_folder() / "models")
        tuning = Tuning.open(home, NAME, plan)
        ending = tuning.train(threads=2, progress=tell)
        expect(ending.how, "done", "training", why=ending.reason)
        engine = LocalEngine(load(entry.id))
        try:
            verdict = tuning.judge(engine, progress=tell)
            finish(tuning, engine, entry, verdict, home)
        finally:
            engine.close()
    return 0


def finish(
    tuning: Tuning, engine: LocalEngine, entry: CatalogEntry, verdict: TuningVerdict, home: Path
) -> None:
    """Say what the adapter is worth, and see that it is used only where that is something."""
    choices = verdict.choices
    interval = f"{choices.low:+.2f} to {choices.high:+.2f}"
    print(
        f"{choices.cases} held-out decisions: {choices.before:.2f} right without it, {choices.after:.2f} with"
    )
    print(f"95 % interval of the difference: {interval}")
    print(f"{'earned' if verdict.earned else 'not earned'}: {verdict.reason}")
    if verdict.earned:
        tuning.install(entry, verdict, home)
    expect(NAME in installed_adapters(entry, home), verdict.earned, "adapter is installed")
    if verdict.earned:
        engine.load_adapter(NAME, adapter_folder(entry, NAME, home))
        case = tuning.judged[0]
        for adapter in (None, NAME):
            choice = engine.choose(case.corrected(adapter))
            chosen = choice.options[choice.best]
            print(f"{'with' if adapter else 'without'} it: {chosen.text} ({chosen.probability:.2f})")
        print(f"right is: {case.answer}")


def tell(stage: str, done: int, total: int) -> None:
    """Show how far it is on a terminal; elsewhere say what is done."""
    if sys.stderr.isatty():
        print(f"\r{stage}: {100 * done // total} %\x1b[K", end="\n" if done == total else "", file=sys.stderr)
    elif done == total and stage not in _told:
        _told.add(stage)
        print(f"{stage}: all of it", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
