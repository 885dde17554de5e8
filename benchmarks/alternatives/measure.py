"""The same questions, on the same weights, through what a user would put in the engine's place.

    python benchmarks/alternatives/measure.py [MODEL] [--rounds 5] [--modules FOLDER] [--output FILE] [--json]

Asks for tool calls with prompts of about 250 tokens: through this project's engine (int8), through smolagents
(`TransformersModel`) and plain `generate` of transformers (fp32, free text), and through llama.cpp with a
grammar of the same JSON schema (the published GGUF file, the beginning of a call given as here).
An agent's first call comes with a prompt that nobody has seen, its later one continues that conversation;
llama.cpp keeps its prompt cache for that. All take turns, so that a busy moment hits all of them, and ratios
are of the sums over all rounds. Eight agents of one site, with the same instructions and tools and questions
of their own, ask at once; that is compared with eight first calls one after the other.

llama.cpp needs Node.js and its package, anywhere: `npm install --prefix FOLDER node-llama-cpp`. It is left
out, and said to be, where FOLDER/node_modules is not given.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.interface import (
    GenerationRequest,
    Message,
    Role,
    ToolCall,
    ToolSpec,
    assistant,
    system,
    user,
)
from watchkeeper.models.loading import load
from watchkeeper.models.store import find_installed

SCRIPT = Path(__file__).with_name("llama.mjs")
RESULTS = Path(__file__).parents[1] / "results/alternatives.json"
TOKENS = 128
AGENTS = 8
HOSTS = ("web-1", "web-2", "db-1", "cache-1")
SERVICES = ("shop", "search", "mail")
TOOLS = (
    ToolSpec(
        "service.restart",
        "Restart a service on a host, after a delay.",
        {
            "type": "object",
            "properties": {
                "host": {"type": "string", "enum": list(HOSTS)},
                "service": {"type": "string", "enum": list(SERVICES)},
                "delay_seconds": {"type": "integer", "minimum": 0, "maximum": 600},
            },
            "required": ["host", "service", "delay_seconds"],
        },
    ),
)


@dataclass(frozen=True)
class Question:
    """Two turns of one agent: a call, its result, and what is asked next."""

    number: int
    site: int | None = None
    """Agents of one site have the same instructions; everyone has their own where ``None``."""

    @property
    def first(self) -> tuple[Message, ...]:
        """A conversation that no question of another site shares a beginning with."""
        host, service = HOSTS[self.number % 4], SERVICES[self.number % 3]
        site = self.number if self.site is None else self.site
        return (
            system(f"Site {site}: you run its servers. You answer with one call of a tool."),
            user(f"The {service} on {host} answers slowly. Restart it in {10 + self.number % 50} seconds."),
        )

    def later(self, call: ToolCall) -> tuple[Message, ...]:
        """The conversation after a call was answered."""
        host, service = HOSTS[(self.number + 1) % 4], SERVICES[(self.number + 1) % 3]
        return (
            *self.first,
            assistant("", (call,)),
            Message(Role.TOOL, "done", tool_call_id=call.id),
            user(f"Better. Now the {service} on {host}, in {20 + self.number % 40} seconds."),
        )

    @property
    def call(self) -> ToolCall:
        """The call that every way continues with, so that all read the same."""
        arguments = {
            "host": HOSTS[self.number % 4],
            "service": SERVICES[self.number % 3],
            "delay_seconds": 10 + self.number % 50,
        }
        return ToolCall("service.restart", arguments, "call-1")


Asked = Callable[[Sequence[Message], bool], bool]
"""Answers a conversation (whether it is a new one) and tells whether that was a valid call."""


@dataclass
class Way:
    """One way to get a call, and how long it took."""

    name: str
    ask: Asked
    first: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    valid: int = 0

    def time(self, messages: Sequence[Message], into: list[float], *, fresh: bool) -> None:
        """Ask, and note the seconds."""
        started = time.perf_counter()
        self.valid += self.ask(messages, fresh)
        into.append(time.perf_counter() - started)


def is_valid(call: Any) -> bool:
    """Whether something is a call of a tool with arguments that its schema allows."""
    from jsonschema import Draft202012Validator

    tools = {tool.name: tool for tool in TOOLS}
    if not isinstance(call, dict) or call.get("name") not in tools:
        return False
    return bool(Draft202012Validator(dict(tools[call["name"]].parameters)).is_valid(call.get("arguments")))


def hermes(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as a chat template takes them."""
    written: list[dict[str, Any]] = []
    for message in messages:
        one: dict[str, Any] = {"role": str(message.role), "content": message.content}
        if message.tool_calls:
            one["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
                for call in message.tool_calls
            ]
        written.append(one)
    return written


def described() -> list[dict[str, Any]]:
    """The tools as a chat template takes them."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        }
        for tool in TOOLS
    ]


def by_engine(engine: LocalEngine) -> Asked:
    """Through this project's engine."""

    def ask(messages: Sequence[Message], fresh: bool) -> bool:
        del fresh  # a new conversation shares nothing with an old one
        request = GenerationRequest(tuple(messages), TOOLS, "required", max_tokens=TOKENS)
        (call,) = engine.generate(request).tool_calls
        return is_valid({"name": call.name, "arguments": dict(call.arguments)})

    return ask


def read_call(text: str) -> Any:
    """Read the first JSON object of a free text."""
    at = text.find("{")
    if at < 0:
        return None
    try:
        return json.JSONDecoder().raw_decode(text, at)[0]
    except ValueError:
        return None


def by_generate(model: Any, tokenizer: Any) -> Asked:
    """Through transformers' `generate`, with the model's own template."""

    def ask(messages: Sequence[Message], fresh: bool) -> bool:
        del fresh
        given = tokenizer.apply_chat_template(
            hermes(messages),
            tools=described(),
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            written = model.generate(
                **given,
                max_new_tokens=TOKENS,
                do_sample=False,
                eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
                pad_token_id=tokenizer.pad_token_id,
            )
        text = tokenizer.decode(written[0, given["input_ids"].shape[1] :])
        return is_valid(read_call(text.replace("<tool_call>", "")))

    return ask


def by_smolagents(weights: Path) -> tuple[Asked, Any]:
    """Through smolagents, which loads the weights its own way; its model is returned too."""
    from smolagents import Tool, TransformersModel
    from smolagents.models import ChatMessage, MessageRole

    def made(spec: ToolSpec) -> Tool:
        properties = dict(spec.parameters["properties"])
        inputs = {
            name: {
                "type": schema["type"],
                "description": name.replace("_", " "),
                **({"enum": schema["enum"]} if "enum" in schema else {}),
            }
            for name, schema in properties.items()
        }
        forward: dict[str, Any] = {}
        exec(f"def forward(self, {', '.join(inputs)}): return ''", forward)
        kind = type(
            "Made",
            (Tool,),
            {
                "name": spec.name.replace(".", "_"),
                "description": spec.description,
                "inputs": inputs,
                "output_type": "string",
                "forward": forward["forward"],
                "skip_forward_signature_validation": True,
            },
        )
        return kind()

    model = TransformersModel(
        model_id=str(weights), device_map="cpu", torch_dtype="float32", max_new_tokens=TOKENS, do_sample=False
    )
    tools = [made(spec) for spec in TOOLS]

    def ask(messages: Sequence[Message], fresh: bool) -> bool:
        del fresh
        written = [
            ChatMessage(
                MessageRole.TOOL_RESPONSE
                if message.role is Role.TOOL
                else MessageRole.TOOL_CALL
                if message.tool_calls
                else MessageRole(str(message.role)),
                [
                    {
                        "type": "text",
                        "text": message.content or f"Calling tools: {hermes([message])[0]['tool_calls']}",
                    }
                ],
            )
            for message in messages
        ]
        reply = model.generate(written, tools_to_call_from=tools)
        call = read_call(str(reply.content).replace("<tool_call>", ""))
        if isinstance(call, dict):
            call = {**call, "name": str(call.get("name")).replace("_", ".")}
        return is_valid(call)

    return ask, model


@contextmanager
def by_llama(modules: Path, file: Path, tokenizer: Any, threads: int) -> Iterator[Asked]:
    """Through llama.cpp, with a grammar of the JSON schema."""
    node = shutil.which("node") or "node"
    command = [node, str(SCRIPT), str(modules), str(file), str(threads), "2048"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        print(f"llama.cpp {ready['llama']}", file=sys.stderr)
        (tool,) = TOOLS
        schema = {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": tool.parameters},
            "required": ["name", "arguments"],
        }

        def ask(messages: Sequence[Message], fresh: bool) -> bool:
            assert process.stdin is not None
            assert process.stdout is not None
            prompt = tokenizer.apply_chat_template(
                hermes(messages), tools=described(), add_generation_prompt=True, tokenize=False
            )
            question = {
                "prompt": prompt + "<tool_call>\n",
                "schema": schema,
                "fresh": fresh,
                "tokens": TOKENS,
            }
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            return is_valid(read_call(json.loads(process.stdout.readline())["text"]))

        try:
            yield ask
        finally:
            process.stdin.close()


def together(engine: LocalEngine, site: int) -> float:
    """Seconds until several agents of one site, who ask at once, all have their calls."""
    questions = [Question(AGENTS * site + agent, site) for agent in range(AGENTS)]
    requests = [GenerationRequest(one.first, TOOLS, "required", max_tokens=TOKENS) for one in questions]
    with ThreadPoolExecutor(len(requests)) as pool:
        started = time.perf_counter()
        list(pool.map(engine.generate, requests))
        return time.perf_counter() - started


def measure(ways: Sequence[Way], engine: LocalEngine, rounds: int) -> dict[str, Any]:
    """Let all ways take turns."""
    ours = ways[0]
    for way in ways:  # what is compiled or allocated once
        way.ask(Question(99).first, True)
    at_once: list[float] = []
    for number in range(rounds):
        question = Question(100 + number)
        for way in ways:
            way.time(question.first, way.first, fresh=True)
            way.time(question.later(question.call), way.later, fresh=False)
        at_once.append(together(engine, 1000 + number))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    calls = 2 * rounds
    figures: dict[str, Any] = {
        "ways": {
            way.name: {
                "first call, s": round(statistics.mean(way.first), 3),
                "later call, s": round(statistics.mean(way.later), 3),
                "valid": f"{way.valid}/{calls}",
            }
            for way in ways
        },
        "ratios": {
            way.name: {
                "first call": round(sum(way.first) / sum(ours.first), 2),
                "later call": round(sum(way.later) / sum(ours.later), 2),
            }
            for way in ways[1:]
        },
        "eight agents at once, s": round(statistics.mean(at_once), 3),
    }
    for way in ways[1:]:
        figures["ratios"][way.name]["eight agents"] = round(AGENTS * sum(way.first) / sum(at_once), 2)
    return figures


def main() -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="catalog id; the default model where left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--modules", type=Path, help="the node_modules folder with node-llama-cpp")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    loaded = load(options.model, quantization="int8")
    installed = find_installed(loaded.entry)
    with ExitStack() as stack:
        engine = LocalEngine(loaded)
        stack.callback(engine.close)
        smolagents, slow = by_smolagents(installed.weights)
        ways = [
            Way("watchkeeper", by_engine(engine)),
            Way("smolagents", smolagents),
            Way("generate", by_generate(slow.model, loaded.tokenizer)),
        ]
        source = next((installed.folder / "source").glob("*.gguf"), None)
        if options.modules is None or source is None:
            print("llama.cpp is left out: give --modules, and a model that was pulled", file=sys.stderr)
        else:
            threads = torch.get_num_threads()
            asked = stack.enter_context(by_llama(options.modules, source, loaded.tokenizer, threads))
            ways.append(Way("llama.cpp", asked))
        figures = measure(ways, engine, options.rounds)
        tokens = engine.count_tokens(Question(100).first, TOOLS)
    report = {"model": asdict(loaded.identity), "prompt tokens": tokens, "rounds": options.rounds, **figures}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps(report, indent=2))
        return 0
    table = Table("way", "first call", "later call", "valid", "first x", "later x", "8 agents x")
    for name, row in figures["ways"].items():
        ratios = figures["ratios"].get(name, {})
        table.add_row(
            name,
            f"{row['first call, s']:.2f} s",
            f"{row['later call, s']:.2f} s",
            row["valid"],
            *(
                f"{ratios[key]:.1f}" if key in ratios else ""
                for key in ("first call", "later call", "eight agents")
            ),
        )
    console = Console()
    console.print(table)
    console.print(
        f"prompts of {tokens} tokens; eight agents at once: {figures['eight agents at once, s']:.2f} s; "
        f"all of it is in {options.output}",
        highlight=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
