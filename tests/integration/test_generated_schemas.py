"""Whatever a tool's schema is like, a call that ends is valid, and one that runs out of its budget is closed.

`WATCHKEEPER_SCHEMAS` says how many schemas are tried; a thousand take minutes with a real model.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from llguidance import LLTokenizer

from tests import tiny
from tests.tool_schemas import Generator
from watchkeeper.models.closing import Closer
from watchkeeper.models.enforceable import unenforceable
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.errors import BudgetExceededError
from watchkeeper.models.grammar import GrammarCompiler, schema_grammar
from watchkeeper.models.interface import Engine, GenerationRequest, ToolSpec, system, user
from watchkeeper.models.loading import load
from watchkeeper.models.replies import parse_json

SMALL = "smollm2-135m-instruct"
COUNT = int(os.environ.get("WATCHKEEPER_SCHEMAS", "30"))
TOGETHER = 8
BYTES = LLTokenizer("byte")
COMPILER = GrammarCompiler(BYTES)
CLOSER = Closer(BYTES)
QUOTE = ord('"')


@pytest.fixture(scope="module")
def tiny_engine() -> Iterator[Engine]:
    engine = LocalEngine(tiny.hosted())
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def small_engine() -> Iterator[Engine]:
    engine = LocalEngine(load(SMALL))
    yield engine
    engine.close()


def outcome(engine: Engine, seed: int, budgets: tuple[int, ...]) -> str:
    """Ask for a call of a generated tool; say how it ended, and what is wrong with it."""
    generator, rng = Generator(seed), random.Random(seed)
    schema = generator.tool()
    Draft202012Validator.check_schema(schema)
    if (refused := unenforceable(schema)) is not None:
        return f"seed {seed}: refused: {refused}"
    request = GenerationRequest(
        (system("You operate servers."), user(generator.question())),
        (ToolSpec("tool.under_test", "does what it is asked", schema),),
        tool_choice="required",
        max_tokens=rng.choice(budgets),
        temperature=rng.choice((0.0, 1.0)),
        seed=seed,
    )
    try:
        answer = engine.generate(request)
    except BudgetExceededError:
        return "not closed"
    (call,) = answer.tool_calls
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    for error in validator.iter_errors(dict(call.arguments)):
        return f"seed {seed}: invalid: {error.message} at {error.json_path}"
    return "ended" if answer.finish_reason == "stop" else "closed"


def outcomes(engine: Engine, count: int, budgets: tuple[int, ...]) -> Counter[str]:
    with ThreadPoolExecutor(TOGETHER) as pool:
        return Counter(pool.map(lambda seed: outcome(engine, seed, budgets), range(count)))


def test_schemas_of_all_kinds_are_among_the_generated_ones() -> None:
    text = str([Generator(seed).tool() for seed in range(COUNT)])
    for keyword in ("anyOf", "$ref", "enum", "const", "minItems", "maximum", "exclusiveMinimum", "größe"):
        assert f"'{keyword}'" in text
    for keyword in ("pattern", "format", "prefixItems", "additionalProperties", "multipleOf", "maxLength"):
        assert f"'{keyword}'" in text


def walk(seed: int) -> str:
    """Write a value of a generated schema by chance alone, and end it where the budget is spent."""
    rng = random.Random(seed)
    schema = Generator(seed).tool()
    grammar = schema_grammar(schema)
    matcher = COMPILER.matcher(grammar)
    written: list[int] = []
    budget = rng.choice((1, 5, 20, 60, 200, 600))
    while not matcher.is_stopped() and len(written) < budget:
        mask = matcher.compute_bitmask()
        allowed = [byte for byte in range(255) if mask[byte // 8] >> (byte % 8) & 1]
        if not allowed:
            break
        # A quotation mark ends a text, so that a walk by chance ends too.
        byte = QUOTE if QUOTE in allowed and rng.random() < 0.3 else rng.choice(allowed)
        assert matcher.consume_token(byte)
        written.append(byte)
    ends_alone = matcher.is_accepting()
    end = CLOSER.close(matcher, limit=2_000, grammar=grammar)
    if end is None:
        return "not closed"
    value = parse_json(BYTES.decode_bytes([*written, *end]).decode())
    for error in Draft202012Validator(schema, format_checker=FormatChecker()).iter_errors(value):
        return f"seed {seed}: invalid: {error.message} at {error.json_path}"
    return "ended" if ends_alone else "closed"


def test_every_value_written_by_chance_can_be_ended_and_is_valid() -> None:
    found = Counter(walk(seed) for seed in range(4 * COUNT))
    assert found.keys() <= {"ended", "closed", "not closed"}, found
    assert found["closed"] > COUNT
    assert found["not closed"] <= COUNT / 50, found


def test_every_call_of_a_model_without_sense_is_valid(tiny_engine: Engine) -> None:
    """A byte a token, and random weights: what is said is noise that only the grammar holds together."""
    found = outcomes(tiny_engine, COUNT // 2, (1, 40, 120))
    assert found.keys() <= {"ended", "closed", "not closed"}, found
    assert found["closed"] > COUNT / 20
    assert found["not closed"] <= COUNT / 50, found


@pytest.mark.model
@pytest.mark.timeout(3600)
def test_every_call_of_a_small_model_is_valid(small_engine: Engine) -> None:
    found = outcomes(small_engine, COUNT, (1, 30, 80, 160))
    print(dict(found))
    assert found.keys() <= {"ended", "closed", "not closed"}, found
    assert found["ended"] > COUNT / 10
    assert found["closed"] > COUNT / 10
    assert found["not closed"] <= COUNT / 50, found
