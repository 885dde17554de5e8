"""What a grammar and 8-bit weights cost or bring: calls of the Berkeley Function-Calling Leaderboard.

Asks the questions of `simple_python` (BFCL v4, ShishirPatil/gorilla, Apache-2.0) in four ways: with the
engine's grammar or as free text read leniently, each with fp32 and with quantized weights. Free text is what
transformers' own `generate` writes with the model's own template. A call is right where name, required
arguments, types and values match (BFCL's AST match). Greedy throughout.

    python benchmarks/function_calls.py --limit 20
    python benchmarks/function_calls.py --ways constrained-int8 free-none --resume
    python benchmarks/function_calls.py --adapter site        # with and without an adapter
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from rich.console import Console
from rich.table import Table

from watchkeeper.models.adapter_store import adapter_folder
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.errors import ModelError
from watchkeeper.models.interface import GenerationRequest, ToolSpec, user
from watchkeeper.models.loading import LoadedModel, Quantization, load

DATA = Path(__file__).parents[2] / "shared/data/bfcl"
RESULTS = Path(__file__).parent / "results/function_calls.json"
RESAMPLES = 10_000
MAX_TOKENS = 256
ADAPTED = "constrained-int8-adapted"
WAYS = ("constrained-int8", "free-none", "constrained-none", "free-int8", ADAPTED)
COMPARED = ("constrained-int8", "free-none")
_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None}


@dataclass(frozen=True)
class Question:
    """A question, the function it is about, and the accepted values of each argument."""

    id: str
    text: str
    tool: ToolSpec
    accepted: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Call:
    """A call that somebody made."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What came of a question: the text, whether it holds a valid or a right call, and the time it took."""

    id: str
    text: str
    valid: bool
    right: bool
    seconds: float


def json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Write a schema of the data set, which has Python's names of types, as a JSON schema."""
    made = dict(schema)
    if "type" in made:
        kind = _TYPES.get(made["type"], made["type"])
        made.pop("type") if kind is None else made.update(type=kind)
    if isinstance(made.get("properties"), Mapping):
        made["properties"] = {name: json_schema(part) for name, part in made["properties"].items()}
    if isinstance(made.get("items"), Mapping):
        made["items"] = json_schema(made["items"])
    return made


def read(folder: Path, limit: int | None) -> list[Question]:
    """Read the questions and their answers."""

    def lines(name: str) -> Iterator[dict[str, Any]]:
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            yield json.loads(line)

    answers = {answer["id"]: answer["ground_truth"][0] for answer in lines("simple_python.answers.jsonl")}
    questions = []
    for row in lines("simple_python.jsonl"):
        function = row["function"][0]
        tool = ToolSpec(function["name"], function["description"], json_schema(function["parameters"]))
        accepted = answers[row["id"]][function["name"]]
        questions.append(Question(row["id"], row["question"][0][0]["content"], tool, accepted))
    return questions[:limit]


def lenient(text: str, tool: ToolSpec) -> Call | None:
    """Read a call out of free text: JSON in tags, in a fence or bare, or a call as Python writes it."""
    for value in _json_values(text):
        if "name" in value and isinstance(inner := value.get("arguments", value.get("parameters")), Mapping):
            return Call(str(value["name"]), inner)
        if isinstance(inner := value.get(tool.name), Mapping):
            return Call(tool.name, inner)
        if value and value.keys() <= tool.parameters["properties"].keys():
            return Call(tool.name, value)
    return next(_python_calls(text, tool), None)


def _json_values(text: str) -> Iterator[Mapping[str, Any]]:
    decoder = json.JSONDecoder(strict=False)
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except ValueError:
            at = text.find("{", at + 1)
            continue
        if isinstance(value, Mapping):
            yield value
        at = text.find("{", end)


def _python_calls(text: str, tool: ToolSpec) -> Iterator[Call]:
    for found in re.finditer(re.escape(tool.name) + r"\s*\(", text):
        for end in (match.end() for match in re.finditer(r"\)", text[found.start() :])):
            try:
                call = ast.parse(text[found.start() : found.start() + end].strip(), mode="eval").body
                if not isinstance(call, ast.Call):
                    continue
                names = list(tool.parameters["properties"])
                given = {name: ast.literal_eval(part) for name, part in zip(names, call.args, strict=False)}
                given |= {part.arg: ast.literal_eval(part.value) for part in call.keywords if part.arg}
            except (SyntaxError, ValueError):
                continue
            yield Call(tool.name, given)
            break


def matches(call: Call, question: Question) -> bool:
    """Tell whether a call is among the accepted ones."""
    schema = question.tool.parameters
    if call.name != question.tool.name:
        return False
    if any(name not in call.arguments for name in schema.get("required", ())):
        return False
    if any(name not in question.accepted for name in call.arguments):
        return False
    for name, accepted in question.accepted.items():
        if name not in call.arguments:
            if "" not in accepted:
                return False
            continue
        value = call.arguments[name]
        if not _typed(value, schema["properties"][name]) or not any(_same(value, one) for one in accepted):
            return False
    return True


def _typed(value: Any, schema: Mapping[str, Any]) -> bool:
    kinds: dict[str, tuple[type, ...]] = {
        "object": (dict,),
        "array": (list, tuple),
        "string": (str,),
        "integer": (int,),
        "number": (int, float),
        "boolean": (bool,),
    }
    kind = schema.get("type")
    if kind is None:
        return True
    if isinstance(value, bool) and kind != "boolean":
        return False
    if not isinstance(value, kinds[kind]):
        return False
    if kind == "array" and "items" in schema:
        return all(_typed(item, schema["items"]) for item in value)
    return True


def _same(value: Any, accepted: Any) -> bool:
    if isinstance(value, bool) or isinstance(accepted, bool):
        return value is accepted
    if isinstance(value, str) and isinstance(accepted, str):
        return _plain(value) == _plain(accepted)
    if isinstance(value, Mapping) and isinstance(accepted, Mapping):
        # Each key of an accepted object has its own list of accepted values.
        if any(key not in accepted for key in value):
            return False
        return all(
            any(_same(value[key], one) for one in options) if key in value else "" in options
            for key, options in accepted.items()
        )
    if isinstance(value, list | tuple) and isinstance(accepted, list | tuple):
        if len(value) != len(accepted):
            return False
        return all(_same(one, other) for one, other in zip(value, accepted, strict=True))
    return bool(value == accepted)


def _plain(text: str) -> str:
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')


Reply = tuple[str, Call | None]
Asked = Callable[[Sequence[Question]], list[Reply]]


def constrained(loaded: LoadedModel, adapter: str | None = None) -> Asked:
    """Ask through the engine, whose grammar leaves nothing but a valid call."""
    engine = LocalEngine(loaded)
    if adapter is not None:
        engine.load_adapter(adapter, adapter_folder(loaded.entry, adapter))

    def one(question: Question) -> Reply:
        request = GenerationRequest(
            (user(question.text),),
            (question.tool,),
            tool_choice="required",
            max_tokens=MAX_TOKENS,
            adapter=adapter,
        )
        try:
            (made,) = engine.generate(request).tool_calls
        except ModelError as error:
            return str(error), None
        text = json.dumps({"name": made.name, "arguments": dict(made.arguments)}, ensure_ascii=False)
        return text, Call(made.name, made.arguments)

    def ask(questions: Sequence[Question]) -> list[Reply]:
        with ThreadPoolExecutor(len(questions)) as pool:
            return list(pool.map(one, questions))

    return ask


def free(loaded: LoadedModel) -> Asked:
    """Ask for free text with transformers' own `generate`, and read it leniently."""
    import torch

    model: Any = loaded.model
    tokenizer: Any = loaded.tokenizer
    tokenizer.padding_side = "left"

    def prompt(question: Question) -> str:
        function = {
            "name": question.tool.name,
            "description": question.tool.description,
            "parameters": question.tool.parameters,
        }
        text: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": question.text}],
            tools=[{"type": "function", "function": function}],
            add_generation_prompt=True,
            tokenize=False,
        )
        return text

    def ask(questions: Sequence[Question]) -> list[Reply]:
        prompts = tokenizer([prompt(question) for question in questions], return_tensors="pt", padding=True)
        with torch.inference_mode():
            written = model.generate(
                **prompts,
                max_new_tokens=MAX_TOKENS,
                do_sample=False,
                eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
                pad_token_id=tokenizer.pad_token_id,
            )
        replies: list[Reply] = []
        for question, tokens in zip(questions, written, strict=True):
            text = tokenizer.decode(tokens[prompts["input_ids"].shape[1] :], skip_special_tokens=False)
            text = text.partition("<|im_end|>")[0]
            replies.append((text, lenient(text, question.tool)))
        return replies

    return ask


def valid(call: Call | None, question: Question) -> bool:
    """Tell whether a call names the function and satisfies its schema."""
    if call is None or call.name != question.tool.name:
        return False
    arguments = json.loads(json.dumps(dict(call.arguments)))
    return bool(Draft202012Validator(question.tool.parameters).is_valid(arguments))


def measure(
    way: str,
    model: str | None,
    questions: Sequence[Question],
    together: int,
    note: Console,
    adapter: str | None = None,
) -> Iterator[Answer]:
    """Ask questions in one way, several at once: alone, each would get the same answer."""
    style, quantization, *adapted = way.split("-")
    chosen: Quantization = "none" if quantization == "none" else "int8"
    loaded = load(model, quantization=chosen)
    ask = constrained(loaded, adapter if adapted else None) if style == "constrained" else free(loaded)
    for first in range(0, len(questions), together):
        batch = questions[first : first + together]
        started = time.perf_counter()
        replies = ask(batch)
        seconds = round((time.perf_counter() - started) / len(batch), 3)
        for question, (text, call) in zip(batch, replies, strict=True):
            right = call is not None and matches(call, question)
            yield Answer(question.id, text, valid(call, question), right, seconds)
        note.print(f"{way}: {first + len(batch)}/{len(questions)}", end="\r")


def paired(left: Sequence[bool], right: Sequence[bool]) -> dict[str, Any]:
    """Compare two ways on the same questions; the interval is a percentile bootstrap over the pairs."""
    differences = [int(a) - int(b) for a, b in zip(left, right, strict=True)]
    pick = random.Random(0)
    size = len(differences)
    means = sorted(sum(pick.choices(differences, k=size)) / size for _ in range(RESAMPLES))
    return {
        "questions": size,
        "difference": round(sum(differences) / size, 3),
        "interval_95": [round(means[int(RESAMPLES * 0.025)], 3), round(means[int(RESAMPLES * 0.975)], 3)],
        "only_first_right": differences.count(1),
        "only_second_right": differences.count(-1),
    }


def summary(
    answers: Mapping[str, Mapping[str, Mapping[str, Any]]], compared: tuple[str, str] = COMPARED
) -> dict[str, Any]:
    """Sum up what was measured so far."""
    ways = {
        way: {
            "questions": len(rows),
            "accuracy": round(sum(row["right"] for row in rows.values()) / len(rows), 3),
            "valid": sum(row["valid"] for row in rows.values()),
            "seconds": round(sum(row["seconds"] for row in rows.values()) / len(rows), 2),
        }
        for way, rows in answers.items()
        if rows
    }
    result: dict[str, Any] = {"ways": ways}
    first, second = (answers.get(way, {}) for way in compared)
    shared = [id_ for id_ in first if id_ in second]
    if shared:
        pairs = paired([first[i]["right"] for i in shared], [second[i]["right"] for i in shared])
        result["paired"] = {"first": compared[0], "second": compared[1], **pairs}
    return result


def main() -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="catalog id; the default model where left out")
    parser.add_argument("--limit", type=int, help="ask the first N questions only")
    parser.add_argument("--ways", nargs="+", choices=WAYS)
    parser.add_argument(
        "--adapter", help="compare the engine with and without this installed adapter, in int8"
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--resume", action="store_true", help="keep the answers that the output file holds")
    parser.add_argument("--together", type=int, default=8, help="questions asked at once")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    compared = COMPARED if options.adapter is None else (ADAPTED, "constrained-int8")
    ways = options.ways or list(compared)
    if ADAPTED in ways and options.adapter is None:
        parser.error(f"{ADAPTED} needs --adapter NAME")
    note = Console(stderr=True)
    if not (options.data / "simple_python.jsonl").is_file():
        note.print(f"skipped: the questions are not in {options.data} (simple_python.jsonl of BFCL v4)")
        return 0
    questions = read(options.data, options.limit)
    answers: dict[str, dict[str, Any]] = {}
    asked = {"model": options.model, "adapter": options.adapter}
    if options.resume and options.output.is_file():
        before = json.loads(options.output.read_text(encoding="utf-8"))
        if before.get("asked", asked) != asked:
            parser.error(f"{options.output} holds answers of {before['asked']}, not of {asked}: name another")
        answers = before["answers"]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        for way in ways:
            rows = answers.setdefault(way, {})
            missing = [question for question in questions if question.id not in rows]
            for answer in (
                measure(way, options.model, missing, options.together, note, options.adapter)
                if missing
                else ()
            ):
                rows[answer.id] = asdict(answer)
                whole = {"asked": asked, "summary": summary(answers, compared), "answers": answers}
                partial = options.output.with_suffix(".part")
                partial.write_text(json.dumps(whole, indent=1, ensure_ascii=False), encoding="utf-8")
                partial.replace(options.output)
    except ModelError as error:
        note.print(str(error))
        return 1
    except KeyboardInterrupt:
        note.print(f"\nstopped; go on with --resume (answers so far are in {options.output})")
        return 130
    result = summary(answers, compared)
    if options.json:
        print(json.dumps(result, indent=2))
        return 0
    table = Table("way", "questions", "accuracy", "valid", "s/question")
    for way, row in result["ways"].items():
        values = (row["questions"], row["accuracy"], row["valid"], row["seconds"])
        table.add_row(way, *(str(value) for value in values))
    Console().print(table)
    if "paired" in result:
        print(json.dumps(result["paired"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
