"""How often the agents handle the demo's faults, and how much of that is the model's doing.

Plays all scenarios of `watchkeeper demo` with different seeds (and with them service names, files, ports and
wording). The oracle judges from outside. Whenever the model is asked for the root cause, a chooser that picks
at random is asked the very same question, so that both first choices can be compared in pairs. Random rounds
let that chooser run whole incidents, to show what the structure around the model does alone. With an adapter
the model without it is asked the very same questions, too.

    python benchmarks/incidents.py --rounds 10 --random-rounds 2 --first-seed 1000
    python benchmarks/incidents.py --adapter site --random-rounds 0
    python benchmarks/incidents.py --adapter ""
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from watchkeeper.demo.faults import SCENARIOS
from watchkeeper.demo.runner import Player, ScenarioResult
from watchkeeper.models import open_engine
from watchkeeper.models.interface import (
    Cancellation,
    Choice,
    ChoiceRequest,
    Chunk,
    Engine,
    Generation,
    GenerationRequest,
    ModelIdentity,
)
from watchkeeper.models.memory import peak_memory
from watchkeeper.models.scripted import RandomEngine
from watchkeeper.runtime.approvals import Answer, Approval
from watchkeeper.runtime.orchestrator import Orchestrator
from watchkeeper.runtime.settings import load_settings

LEAD = "The root cause is that"
RESAMPLES = 10_000
RANDOM = "a random chooser"
UNADAPTED = "the model without the adapter"


Shadow = Callable[[ChoiceRequest], Choice]


class Shadowed:
    """An engine whose first question for the root cause is put to others as well.

    Attributes:
        firsts: What each of them answered.
    """

    def __init__(self, engine: Engine, shadows: Mapping[str, Shadow]) -> None:
        self._engine = engine
        self._shadows = shadows
        self.firsts: dict[str, str] = {}

    @property
    def identity(self) -> ModelIdentity:
        """Which model answers."""
        return self._engine.identity

    def generate(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Generation:
        """Ask the engine."""
        return self._engine.generate(request, cancel=cancel)

    def stream(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        """Ask the engine."""
        return self._engine.stream(request, cancel=cancel)

    def choose(self, request: ChoiceRequest, *, cancel: Cancellation | None = None) -> Choice:
        """Ask all, and keep what the shadows said first."""
        if request.lead == LEAD and not self.firsts:
            self.firsts = {name: request.options[ask(request).best] for name, ask in self._shadows.items()}
        return self._engine.choose(request, cancel=cancel)

    def close(self) -> None:
        """Leave it open."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="times that every scenario is played")
    parser.add_argument(
        "--random-rounds", type=int, default=2, help="rounds that the random chooser plays alone"
    )
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--model", default=None)
    parser.add_argument(
        "--adapter",
        default=None,
        help="adapter that the diagnostician is asked with; empty for none (default: as the settings say)",
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/incidents.json"))
    options = parser.parse_args()
    started = time.monotonic()
    adapters = load_settings(model=options.model, adapter=options.adapter).adapters
    adapter = next(iter(adapters), None)
    engine = open_engine(options.model, adapters=adapters)
    identity, seconds = engine.identity, time.monotonic() - started
    print(f"{identity.id} ({identity.quantization}) loaded in {seconds:.1f} s", file=sys.stderr)
    played = _play(engine, options.rounds, options.first_seed, adapter)
    engine.close()
    peak = peak_memory() / 2**30
    alone = _play(None, options.random_rounds, options.first_seed)
    figures = {
        "model": _figures([result for result, _ in played]),
        "random alone": _figures([result for result, _ in alone]),
        "first choices": {
            f"against {name}": _paired(
                [(_right(r), others[name]) for r, others in played if r.first_choice is not None]
            )
            for name in (RANDOM, *([UNADAPTED] if adapter else []))
        },
        "peak GiB of this process": round(peak, 2),
    }
    print(json.dumps(figures, indent=2))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        json.dumps(
            {"figures": figures, "runs": [result.model_dump(mode="json") for result, _ in played + alone]},
            indent=2,
        ),
        encoding="utf-8",
    )
    print(f"every run is in {options.output}", file=sys.stderr)


def _play(
    engine: Engine | None, rounds: int, first_seed: int, adapter: str | None = None
) -> list[tuple[ScenarioResult, dict[str, bool]]]:
    """Play rounds over all scenarios; the second value is whether the others' picks were right, by name."""
    played: list[tuple[ScenarioResult, dict[str, bool]]] = []
    for number in range(rounds * len(SCENARIOS)):
        scenario, seed = SCENARIOS[number % len(SCENARIOS)], first_seed + number
        chooser = RandomEngine(seed)
        shadows: dict[str, Shadow] = {RANDOM: chooser.choose}
        if engine is not None and adapter is not None:
            shadows[UNADAPTED] = partial(_unadapted, engine)
        shadowed = Shadowed(engine or chooser, shadows)
        # Each has a home of its own: limits and breakers count across the incidents of one.
        with tempfile.TemporaryDirectory(prefix="wk-bench-") as home:
            player = Player(
                engine=shadowed,
                settings=load_settings(home=Path(home), solo=True, adapter=adapter or ""),
                answerer=_approve,
            )
            result = player.play(scenario, seed)
        if result.skipped:
            print(f"{scenario} skipped: {result.skipped}", file=sys.stderr)
            continue
        right = {name: shadowed.firsts.get(name) in result.right_options for name in shadows}
        played.append((result, right))
        _show("model" if engine else "random", result, right)
    return played


def _unadapted(engine: Engine, request: ChoiceRequest) -> Choice:
    return engine.choose(replace(request, adapter=None))


def _show(who: str, result: ScenarioResult, others: Mapping[str, bool]) -> None:
    first = result.first_choice
    said = {True: "right", False: "wrong"}
    line = (
        f"{who:6} {result.scenario:10} seed {result.seed}: {'ok' if result.ok else 'NOT OK':6} "
        f"{result.state:9} first choice {said[_right(result)]} of {first.options if first else 0}, "
        f"{result.seconds:.0f} s"
    )
    line += "".join(f"; {name} {said[right]}" for name, right in others.items())
    line += "".join(f"; {check.name}: {check.detail}" for check in result.checks)
    print(line, file=sys.stderr, flush=True)


def _approve(orchestrator: Orchestrator, approval: Approval) -> None:
    orchestrator.answer(approval.id, Answer.APPROVE, reason="benchmark")


def _right(result: ScenarioResult) -> bool:
    return result.first_choice is not None and result.first_choice.right


def _figures(results: Sequence[ScenarioResult]) -> dict[str, object]:
    if not results:
        return {}
    seconds = sorted(result.seconds for result in results)
    return {
        "incidents": len(results),
        "ok": sum(result.ok for result in results),
        "ok by scenario": {name: _share([r.ok for r in results if r.scenario == name]) for name in SCENARIOS},
        "first choice right": sum(_right(result) for result in results),
        "actions applied": sum(len(r.actions) for r in results),
        "rollbacks": sum(result.rollbacks for result in results),
        "escalations": sum(result.escalations for result in results),
        "seconds, median": seconds[len(seconds) // 2],
        "seconds, longest": seconds[-1],
    }


def _share(values: Sequence[bool]) -> str:
    return f"{sum(values)}/{len(values)}"


def _paired(pairs: Sequence[tuple[bool, bool]]) -> dict[str, object]:
    """Compare two choosers on the same questions; the interval is a percentile bootstrap over the pairs."""
    if not pairs:
        return {}
    differences = [int(ours) - int(theirs) for ours, theirs in pairs]
    pick = random.Random(0)
    means = sorted(
        sum(pick.choices(differences, k=len(differences))) / len(differences) for _ in range(RESAMPLES)
    )
    return {
        "questions": len(pairs),
        "model right": round(sum(ours for ours, _ in pairs) / len(pairs), 3),
        "other right": round(sum(theirs for _, theirs in pairs) / len(pairs), 3),
        "difference": round(sum(differences) / len(differences), 3),
        "95 % interval": [round(means[int(RESAMPLES * 0.025)], 3), round(means[int(RESAMPLES * 0.975)], 3)],
    }


if __name__ == "__main__":
    main()
