"""How fast the engine answers on this machine, and what each of its savings is worth.

    python benchmarks/engine.py [MODEL] [--quantization int8] [--threads N] [--json]

Every ratio compares two measurements of the same run, so that it holds on a busy machine too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.errors import ModelError
from watchkeeper.models.interface import ChoiceRequest, GenerationRequest, Message, ToolSpec, system, user
from watchkeeper.models.loading import load
from watchkeeper.models.options import EngineOptions

TOOLS = tuple(
    ToolSpec(
        f"{noun}.{verb}",
        f"{verb.capitalize()} a {noun} on a host, after a delay, and note the reason.",
        {
            "type": "object",
            "properties": {
                "host": {"type": "string", "enum": ["web1", "web2", "db1", "cache1"]},
                "name": {"type": "string", "enum": [f"{noun}-a", f"{noun}-b"]},
                "delay_seconds": {"type": "integer", "minimum": 0, "maximum": 600},
            },
            "required": ["host", "name", "delay_seconds"],
        },
    )
    for noun in ("service", "volume")
    for verb in ("restart", "inspect", "move")
)
OPTIONS = ("the disk is full", "the memory is exhausted", "the network is down", "a certificate expired")


@dataclass(frozen=True)
class Row:
    """One line of the result."""

    name: str
    value: float
    unit: str


def seconds(repeat: int, *works: Callable[[], object]) -> list[float]:
    """Return the shortest time of each piece of work; they take turns, so that a busy moment hits all."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(repeat):
        for work, taken in zip(works, times, strict=True):
            started = time.perf_counter()
            work()
            taken.append(time.perf_counter() - started)
    return [min(taken) for taken in times]


def observations(number: int) -> tuple[Message, ...]:
    """A conversation of about 500 tokens that shares nothing with another number's."""
    lines = "\n".join(
        f"{number}-{line}: host web{line % 4} reports {37 * line % 100} % of its disk used"
        for line in range(20)
    )
    return (system(f"You watch site {number}."), user(f"{lines}\nWhat is wrong?"))


def measure(engine: LocalEngine, unsaved: LocalEngine, stepwise: LocalEngine, repeat: int) -> list[Row]:
    """Measure an engine against one without prefix reuse and one without fast-forward."""
    numbers = iter(range(1_000_000))
    engine.generate(GenerationRequest((user("warm up"),), max_tokens=4))

    def prefill() -> None:
        engine.generate(GenerationRequest(observations(next(numbers)), max_tokens=1))

    asked = engine.generate(GenerationRequest(observations(next(numbers)), max_tokens=1)).usage.prompt_tokens
    (taken,) = seconds(repeat, prefill)
    rows = [Row("prefill", asked / taken, "tokens/s")]

    story = GenerationRequest((user("Write a long story about a server room."),), max_tokens=1)
    longer = GenerationRequest(story.messages, max_tokens=49)
    produced = engine.generate(longer).usage.generated_tokens - 1
    first, whole = seconds(repeat, lambda: engine.generate(story), lambda: engine.generate(longer))
    rows.append(Row("decode", produced / (whole - first), "tokens/s"))

    talk = (system("You run servers."), user("Restart service-b on db1 in 30 seconds."))
    call = GenerationRequest(talk, TOOLS, "required")
    usage = engine.generate(call).usage
    stepwise.generate(call)
    cached, computed, slow = seconds(
        repeat, lambda: engine.generate(call), lambda: unsaved.generate(call), lambda: stepwise.generate(call)
    )
    rows += [
        Row("tool call, prompt cached", cached, "s"),
        Row("tool call, prompt computed", computed, "s"),
        Row("tool call, prompt", usage.prompt_tokens, "tokens"),
        Row("tool call, forced share", usage.forced_tokens / usage.generated_tokens, ""),
        Row("gain of prefix reuse", computed / cached, "x"),
        Row("gain of fast-forward", slow / cached, "x"),
    ]

    question = ChoiceRequest(observations(next(numbers)), "The root cause is that", OPTIONS)
    single = [ChoiceRequest(question.messages, question.lead, (option,)) for option in OPTIONS]
    engine.choose(question)
    together, apart = seconds(
        repeat, lambda: engine.choose(question), lambda: [engine.choose(one) for one in single]
    )
    rows += [
        Row("choice of 4, prompt cached", together, "s"),
        Row("gain of scoring in one pass", apart / together, "x"),
    ]
    return rows


def main() -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="catalog id; the default model where left out")
    parser.add_argument("--quantization", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        loaded = load(options.model, quantization=options.quantization, threads=options.threads)
    except ModelError as error:
        print(error, file=sys.stderr)
        return 1
    engines = (
        LocalEngine(loaded),
        LocalEngine(loaded, EngineOptions(prefix_bytes=0)),
        LocalEngine(loaded, EngineOptions(fast_forward=False)),
    )
    rows = measure(*engines, repeat=options.repeat)
    if options.json:
        print(json.dumps({"model": asdict(loaded.identity), "rows": [asdict(row) for row in rows]}, indent=2))
        return 0
    table = Table("measured", "value", "unit", title=f"{loaded.identity.id}, {loaded.identity.quantization}")
    for row in rows:
        table.add_row(row.name, f"{row.value:.3g}", row.unit)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
