"""A schema that no grammar can enforce is refused before a model is asked, with its place and the reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from watchkeeper import ActionPlan, Outcome, ProbeAnswer, Result, Target, Verification, action, fact
from watchkeeper.models.enforceable import check_enforceable, unenforceable
from watchkeeper.models.errors import GrammarError
from watchkeeper.models.schemas import fault
from watchkeeper.tools.builtin import builtin_registry
from watchkeeper.tools.errors import UnenforceableError
from watchkeeper.tools.fact import Arguments, Fact, Raw
from watchkeeper.tools.registry import Registry
from watchkeeper.tools.schema import argument_schema

ENDLESS = {
    "$defs": {"n": {"type": "object", "properties": {"x": {"$ref": "#/$defs/n"}}, "required": ["x"]}},
    "$ref": "#/$defs/n",
}
TREE = {
    "$defs": {
        "n": {"type": "object", "properties": {"x": {"type": "array", "items": {"$ref": "#/$defs/n"}}}}
    },
    "$ref": "#/$defs/n",
}


def within(part: dict[str, Any]) -> dict[str, Any]:
    inner = {"type": "object", "properties": {"fine": {"type": "integer"}, "odd": part}, "required": ["odd"]}
    return {"type": "object", "properties": {"list": {"type": "array", "items": inner, "minItems": 1}}}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"if": {"type": "string"}, "then": {"minLength": 1}}, "Unimplemented"),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "contains": {"type": "integer"}}, "contains"),
        ({"type": "object", "propertyNames": {"maxLength": 3}}, "propertyNames"),
        ({"type": "string", "pattern": "^(?=a)b"}, "look-around"),
        ({"type": "string", "format": "json-pointer"}, "json-pointer"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "greater than maximum"),
        ({"type": "string", "enum": ["a"], "minLength": 4}, "length"),
        ({"enum": []}, "empty"),
        ({"type": "strnig"}, "strnig"),
        ({"$ref": "#/$defs/gone"}, "gone"),
        ({"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 3}]}, "oneOf"),
        # What the grammar would pass over in silence.
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, "must be a number"),
        ({"type": "array", "items": [{"type": "integer"}]}, "prefixItems"),
        ({"type": "integer", "divisibleBy": 2}, "multipleOf"),
        (
            {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 3},
            "minProperties",
        ),
        ({"enum": [object()]}, "not JSON"),
    ],
)
def test_the_refusal_names_the_reason(schema: dict[str, Any], reason: str) -> None:
    found = unenforceable(schema)
    assert found is not None
    assert reason in found.reason
    assert "x-guidance" not in found.reason
    with pytest.raises(GrammarError, match=r"^tool 'a\.b': the schema cannot be enforced .*\$: "):
        check_enforceable(schema, "tool 'a.b'")


@pytest.mark.parametrize(
    "part",
    [{"not": {}}, {"type": "integer", "divisibleBy": 2}, {"type": "integer", "minimum": 5, "maximum": 3}],
)
def test_the_refusal_names_the_innermost_place(part: dict[str, Any]) -> None:
    found = unenforceable(within(part) | {"required": ["list"]})
    assert found is not None
    assert found.place == "$.properties.list.items.properties.odd"


def test_a_schema_that_only_an_endless_value_satisfies_is_refused() -> None:
    found = unenforceable(ENDLESS)
    assert found is not None
    assert "itself" in found.reason
    assert unenforceable({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}) is not None


@pytest.mark.parametrize(
    "schema",
    [
        TREE,
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[0-9a-f]{128}$"}}},
        {"type": "string", "minLength": 500},
        {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1},
        {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        {"oneOf": [{"type": "integer"}, {"type": "string"}]},
        {"type": "string", "format": "path"},
        {},
    ],
)
def test_what_can_be_enforced_is_not_refused(schema: dict[str, Any]) -> None:
    assert unenforceable(schema) is None


class Depth(Result):
    jobs: int = 0


class Node(BaseModel):
    below: list[Node] = []


class Kept(BaseModel):
    kind: Literal["kept"]
    days: int = Field(ge=1, le=30)


class Dropped(BaseModel):
    kind: Literal["dropped"]


UNENFORCEABLE: list[tuple[Any, str]] = [
    (set[int], "uniqueItems"),
    (Annotated[str, Field(json_schema_extra={"not": {"const": "x"}})], "not"),
    (Annotated[int, Field(ge=5, le=3)], "greater than maximum"),
    (Node, "itself"),
    (Callable[[], None], "no JSON schema"),
]


def define_fact(annotation: Any) -> Any:
    def read(target: Target, odd: Any) -> Depth:
        return Depth()

    read.__annotations__ |= {"odd": annotation, "return": Depth, "target": Target}
    return fact("queue.depth", summary="how many jobs wait")(read)


@pytest.mark.parametrize(("annotation", "reason"), UNENFORCEABLE)
def test_a_fact_whose_arguments_cannot_be_enforced_is_refused_when_it_is_defined(
    annotation: Any, reason: str
) -> None:
    with pytest.raises(UnenforceableError, match=rf"^tool 'queue\.depth' is refused.*odd.*{reason}"):
        define_fact(annotation)


@pytest.mark.parametrize(("annotation", "reason"), UNENFORCEABLE)
def test_an_action_whose_arguments_cannot_be_enforced_is_refused_when_it_is_defined(
    annotation: Any, reason: str
) -> None:
    class Methods:
        def plan(self, target: Target, key: str, odd: Any) -> ActionPlan:
            raise NotImplementedError

        def apply(self, target: Target, plan: ActionPlan) -> Outcome:
            raise NotImplementedError

        def verify(self, target: Target, plan: ActionPlan) -> Verification:
            raise NotImplementedError

        def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:
            raise NotImplementedError

    Methods.plan.__annotations__ |= {"odd": annotation, "target": Target, "return": ActionPlan}
    with pytest.raises(UnenforceableError, match=rf"^tool 'queue\.drain' is refused.*odd.*{reason}"):
        action("queue.drain", summary="drain it", reversibility="irreversible")(Methods)


def test_a_class_of_a_fact_is_refused_when_it_is_registered_and_nothing_is_kept_of_it() -> None:
    class Odd(Arguments):
        queues: set[str]

    class OddFact(Fact[Odd, Depth]):
        name = "queue.odd"
        summary = "an odd one"
        arguments_type = Odd
        result_type = Depth

        def collect(self, target: Target, arguments: Odd) -> Raw:
            return {}

        def interpret(self, raw: Raw, arguments: Odd) -> Depth:
            return Depth()

    registry = Registry()
    with pytest.raises(UnenforceableError, match=r"tool 'queue\.odd'.*argument queues: .*uniqueItems"):
        registry.add(OddFact())
    assert registry.facts == ()


def test_every_built_in_tool_can_be_enforced() -> None:
    registry = builtin_registry()
    for tool in (*registry.facts, *registry.actions):
        assert unenforceable(argument_schema(tool)) is None, tool.name


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (dict[str, int], {"a": 1}, {"a": "x"}),
        (tuple[int, str], [1, "a"], ["a", 1]),
        (Kept | Dropped, {"kind": "kept", "days": 3}, {"kind": "kept", "days": 31}),
        (
            Annotated[Kept | Dropped, Field(discriminator="kind")],
            {"kind": "dropped"},
            {"kind": "dropped", "days": 3},
        ),
        (Annotated[int, Field(multiple_of=5)], 15, 16),
        (Path, "/var/log", 7),
    ],
)
def test_what_a_model_sees_of_an_argument_constrains_it_like_its_annotation(
    annotation: Any, good: Any, bad: Any
) -> None:
    schema = argument_schema(define_fact(annotation))
    assert fault({"odd": good}, schema) is None
    assert fault({"odd": bad}, schema) is not None


def test_a_tool_is_judged_without_torch() -> None:
    judge = "from watchkeeper.tools.builtin import builtin_registry; builtin_registry(); import sys; "
    judge += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", judge], check=False).returncode == 0
