"""What a model may say of an action: values that were read in this incident on this host, and no others."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_args

import llguidance.hf
import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests import tiny
from watchkeeper.agents import Case, Hypothesis
from watchkeeper.agents.causes import CPU_SATURATED, PORT_TAKEN, PROCESS_STOPPED, Cause
from watchkeeper.agents.remediator import Remedial
from watchkeeper.models.grammar import GrammarCompiler, schema_grammar
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.remedies import closed, remedies
from watchkeeper.tools.builtin import builtin_registry
from watchkeeper.tools.errors import ArgumentError
from watchkeeper.tools.evidence import Evidence, digest_json
from watchkeeper.tools.fact import Arguments
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.passages import Trusted
from watchkeeper.tools.registry import AnyAction
from watchkeeper.tools.schema import Vocabulary, argument_schema, open_arguments

GOLDEN = Path(__file__).parents[1] / "golden" / "facts"
REGISTRY = builtin_registry()
UNIT = {"kind": "systemd", "unit": "shop.service"}
VM = HostSpec.model_validate({"name": "vm", "services": [{"name": "shop", "supervisor": UNIT}]})
HEAVY = ["7@1700000000.50", "8@1700000000.50"]
"""The processes of the recorded reading of process.list that use much, but for this program's own."""


def reading(fact: str, case: str, *, host: str = "vm") -> Evidence:
    raw = json.loads((GOLDEN / fact / f"{case}.json").read_text())["raw"]
    tool = REGISTRY.fact(fact)
    result = tool.interpret(raw, tool.parse_arguments({})).model_dump(mode="json")
    return Evidence(
        id="E1",
        fact=fact,
        host=host,
        arguments={},
        result=result,
        provenance=REGISTRY.fact(fact).provenance,
        digest=digest_json(result),
        collected_at=datetime(2026, 1, 1, tzinfo=UTC),
        seconds=0.1,
    )


def offered(cause: Cause, subject: str, *evidence: Evidence) -> dict[str, Remedial]:
    site = SimpleNamespace(registry=REGISTRY, policy=Policy.default(REGISTRY))
    context: Any = SimpleNamespace(site=site, team=SimpleNamespace(may_propose=lambda name: True))
    case = Case(host=VM, service="shop", condition=Trusted("a check"), evidence=evidence)
    return {r.spec.name: r for r in remedies(context, VM, Hypothesis(cause, subject, ()), case)}


def test_a_process_is_chosen_among_those_that_were_seen_here_to_use_much() -> None:
    properties = offered(CPU_SATURATED, "vm", reading("process.list", "heavy"))["process.end"].narrowed[
        "properties"
    ]
    assert list(properties) == ["process"]
    assert properties["process"]["enum"] == HEAVY


def test_no_pair_of_a_number_and_a_start_that_was_never_seen_can_be_said() -> None:
    narrowed = offered(CPU_SATURATED, "vm", reading("process.list", "heavy"))["process.end"].narrowed
    compiler = GrammarCompiler(llguidance.hf.from_tokenizer(tiny.tokenizer()))

    def admits(arguments: dict[str, Any]) -> bool:
        matcher = compiler.matcher(schema_grammar(narrowed))
        text = json.dumps(arguments).encode()
        tokens = [token for byte in text for token in compiler.vocabulary.tokenize_bytes(bytes([byte]))]
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()

    assert all(admits({"process": one}) for one in HEAVY)
    assert not admits({"process": "9@1700000000.50"})  # it idles
    assert not admits({"process": "18761@0.49"})
    assert not admits({"process": "7@1700000001.50"})
    assert not admits({"pid": 7, "start_time": 0.49})


@pytest.mark.parametrize("evidence", [(), (reading("process.list", "heavy", host="other"),)])
def test_no_process_is_ended_where_none_was_seen_on_this_host(evidence: tuple[Evidence, ...]) -> None:
    assert list(offered(CPU_SATURATED, "vm", *evidence)) == ["service.restart"]
    assert list(offered(PORT_TAKEN, "shop", *evidence)) == []


def test_who_holds_a_port_that_a_check_relies_on_can_be_ended() -> None:
    found = offered(PORT_TAKEN, "shop", reading("socket.list", "another-process-holds-the-port"))
    assert PORT_TAKEN.examine(VM, "shop") == (("socket.list", {}),)
    (value,) = found["process.end"].narrowed["properties"]["process"]["enum"]
    pid, _, start = value.partition("@")
    assert float(start) == 1764000000.25 + int(pid)
    assert found["process.end"].about == f"end a process for good: {value}"


def test_who_holds_a_port_is_no_answer_to_who_keeps_the_processors_busy() -> None:
    both = reading("process.list", "heavy"), reading("socket.list", "another-process-holds-the-port")

    def processes(cause: Cause, subject: str) -> list[str]:
        found = offered(cause, subject, *both)["process.end"].narrowed["properties"]["process"]["enum"]
        return list(found)

    assert processes(CPU_SATURATED, "vm") == HEAVY
    (holder,) = processes(PORT_TAKEN, "shop")
    assert holder not in HEAVY


def test_a_choice_never_names_a_host_where_a_process_or_a_service_stands() -> None:
    found = offered(CPU_SATURATED, "vm", reading("process.list", "heavy"))
    assert found["process.end"].about == "end a process for good"
    assert found["service.restart"].about == "restart a service: shop"
    assert offered(PROCESS_STOPPED, "shop")["service.start"].about == "start a stopped service: shop"


class Free(Arguments):
    mode: Literal["gentle", "hard"] = "gentle"
    force: bool = False
    replicas: Annotated[int, Field(ge=1, le=9)] = 1
    note: str = ""
    pid: int = 1


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str


class Needed(Arguments):
    part: Part


def schema_of(arguments: type[Arguments]) -> dict[str, Any]:
    tool: Any = SimpleNamespace(name="x", arguments_type=arguments)
    return argument_schema(tool)


def test_what_may_be_left_out_and_is_free_text_or_a_free_number_cannot_be_said() -> None:
    schema = schema_of(Free)
    assert open_arguments(schema) == ["note", "pid"]
    assert list(closed("x", schema)["properties"]) == ["mode", "force", "replicas"]


def test_an_action_that_needs_free_text_is_not_offered() -> None:
    with pytest.raises(ArgumentError, match="part: nothing to choose from"):
        closed("x", schema_of(Needed))


@pytest.mark.parametrize("action", REGISTRY.actions, ids=lambda action: str(action.name))
def test_every_argument_of_every_action_is_chosen_from_a_closed_set(action: AnyAction) -> None:
    everything = {name: ["1"] for name in get_args(Vocabulary)}
    assert open_arguments(argument_schema(action, everything)) == []


def test_a_process_is_one_value() -> None:
    end = REGISTRY.action("process.end")
    with pytest.raises(ValueError, match="pattern"):
        end.parse_arguments({"process": "18761"})
    parsed = end.parse_arguments({"process": HEAVY[0]})
    assert (parsed.pid, parsed.start_time) == (7, 1700000000.5)
