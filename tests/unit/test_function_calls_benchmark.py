"""The benchmark of function calls reads answers leniently and judges them strictly."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from watchkeeper.models.interface import ToolSpec

PATH = Path(__file__).parents[2] / "benchmarks/function_calls.py"
TOOL = ToolSpec(
    "area.of",
    "area of a rectangle",
    {
        "type": "object",
        "properties": {
            "width": {"type": "number"},
            "height": {"type": "integer"},
            "unit": {"type": "string"},
            "sides": {"type": "array", "items": {"type": "integer"}},
            "who": {"type": "object"},
        },
        "required": ["width", "height"],
    },
)
ACCEPTED = {
    "width": [2.0],
    "height": [3],
    "unit": ["square metres", ""],
    "sides": [[1, 2], ""],
    "who": [{"name": ["Ann", "A."], "city": ["Rome", ""]}, ""],
}


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("function_calls", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their own module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "area.of", "arguments": {"width": 2, "height": 3}}\n</tool_call>',
        'Sure:\n```json\n{\n  "name": "area.of",\n  "parameters": {"width": 2, "height": 3}\n}\n```',
        '{"area.of": {"width": 2, "height": 3}}',
        'I think {this} helps: {"width": 2, "height": 3}',
        "Call `area.of(2, height=3)`.",
        "```python\nprint(area.of(width=2,\n  height=3))\n```",
    ],
)
def test_a_call_is_found_however_it_is_written(bench: ModuleType, text: str) -> None:
    call = bench.lenient(text, TOOL)
    assert (call.name, dict(call.arguments)) == ("area.of", {"width": 2, "height": 3})


def test_where_there_is_no_call_none_is_found(bench: ModuleType) -> None:
    for text in ("It is 6.", "{broken", "area.of(width=", '{"volume": 3}'):
        assert bench.lenient(text, TOOL) is None


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"width": 2, "height": 3}, True),
        ({"width": 2.0, "height": 3, "unit": "Square-Metres"}, True),
        ({"width": 2, "height": 3, "sides": [1, 2], "who": {"name": "ann"}}, True),
        ({"width": 2}, False),
        ({"width": 2, "height": 3.0}, False),
        ({"width": 2, "height": True}, False),
        ({"width": 2, "height": 4}, False),
        ({"width": 2, "height": 3, "sides": [2, 1]}, False),
        ({"width": 2, "height": 3, "who": {"name": "Bob"}}, False),
        ({"width": 2, "height": 3, "who": {"city": "Rome"}}, False),
        ({"width": 2, "height": 3, "colour": "red"}, False),
    ],
)
def test_a_call_is_right_where_every_argument_is_among_the_accepted(
    bench: ModuleType, arguments: dict[str, Any], right: bool
) -> None:
    question = bench.Question("q", "?", TOOL, ACCEPTED)
    assert bench.matches(bench.Call("area.of", arguments), question) == right
    assert not bench.matches(bench.Call("area", arguments), question)


def test_a_required_argument_that_may_not_be_left_out_is_missed(bench: ModuleType) -> None:
    question = bench.Question("q", "?", TOOL, ACCEPTED | {"unit": ["metres"]})
    assert not bench.matches(bench.Call("area.of", {"width": 2, "height": 3}), question)


def test_the_interval_of_a_difference_is_that_of_the_pairs(bench: ModuleType) -> None:
    found = bench.paired([True] * 90 + [False] * 10, [True] * 80 + [False] * 20)
    assert found["difference"] == 0.1
    low, high = found["interval_95"]
    assert 0.02 < low < 0.1 < high < 0.2
    assert (found["only_first_right"], found["only_second_right"]) == (10, 0)


def test_types_of_the_data_set_become_those_of_json(bench: ModuleType) -> None:
    written = {
        "type": "dict",
        "properties": {"a": {"type": "float"}, "b": {"type": "tuple"}, "c": {"type": "any"}},
    }
    properties = bench.json_schema(written)["properties"]
    assert properties == {"a": {"type": "number"}, "b": {"type": "array"}, "c": {}}
