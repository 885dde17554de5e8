"""What a policy denies at every moment cannot even be said, and is denied if it is said all the same."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import llguidance.hf
import pytest

from tests import tiny
from tests.lamp import ALERT, Lamp, folder_in_memory, orchestrator, prefers
from tests.unit.test_policy import Restart, request
from watchkeeper.models.grammar import GrammarCompiler, schema_grammar
from watchkeeper.models.interface import GenerationRequest, ToolSpec, user
from watchkeeper.models.scripted import ScriptedEngine, ScriptError
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.policy_types import Verdict
from watchkeeper.runtime.remedies import sayable
from watchkeeper.tools.errors import ArgumentError
from watchkeeper.tools.fact import Arguments
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.registry import Registry
from watchkeeper.tools.schema import argument_schema, known

HOST = HostSpec(name="web-1", labels={"role": "web"})
VOCABULARY = {"service": ["api", "db", "shop"], "log": ["/var/log/api", "/var/log/db"], "pid": ["1", "7"]}


class Everything(Arguments):
    service: Annotated[str, known("service")]
    mode: Literal["gentle", "hard"] = "gentle"
    force: bool = False
    pid: Annotated[int | None, known("pid")] = None
    logs: Annotated[tuple[str, ...], known("log")] = ()
    note: str = ""


class Mend(Restart):
    name = "service.mend"
    arguments_type = Everything  # type: ignore[assignment]


def rules(tmp_path: Path, *texts: str, asked: str = "") -> Policy:
    lines = [f"  - {{name: asked, decision: ask{asked}}}"]
    lines += [f"  - {{name: d{n}, decision: deny, {text}}}" for n, text in enumerate(texts)]
    path = tmp_path / "policy.yaml"
    path.write_text(
        "version: 1\nwindows: {w: {weekly: [{from: '01:00', to: '02:00'}]}}\nrules:\n" + "\n".join(lines)
    )
    return Policy.load(path, Registry([Mend()]))


def schema(policy: Policy) -> dict[str, Any]:
    return sayable(policy, Mend(), HOST, VOCABULARY)


@pytest.mark.parametrize(
    ("when", "service"),
    [
        ("arguments.service == 'db'", ["api", "shop"]),
        ('arguments["service"] in ["db", "shop"]', ["api"]),
        ("arguments.service != 'api' && host.labels.role == 'web'", ["api"]),
        ("arguments.service != 'api' && host.labels.role == 'db'", ["api", "db", "shop"]),
        ("action.name == 'service.mend' && arguments.service.startsWith('d')", ["api", "shop"]),
        ("arguments.service == 'db' || arguments.force", ["api", "shop"]),
        ("arguments.service == 'db' && arguments.force", ["api", "db", "shop"]),
        ("arguments.service == 'db' && now.getHours() < 7", ["api", "db", "shop"]),
        ("arguments.service == 'db' && in_window('w')", ["api", "db", "shop"]),
        ("arguments.service == 'db' && requester == 'ann'", ["api", "db", "shop"]),
        ("has(arguments.force) && arguments.service == 'db'", ["api", "db", "shop"]),
        ("!('force' in arguments) || arguments.service == 'db'", ["api", "db", "shop"]),
        ("size(arguments) < 3", ["api", "db", "shop"]),
        ("arguments == {'service': 'db'}", ["api", "db", "shop"]),
        ("arguments.service.size() / (arguments.service == 'db' ? 0 : 1) > 9", ["api", "shop"]),
        ("arguments.sevice == 'db'", ["api", "db", "shop"]),
    ],
)
def test_a_value_that_is_certainly_denied_leaves_the_enum(
    tmp_path: Path, when: str, service: list[str]
) -> None:
    policy = rules(tmp_path, f"when: {json.dumps(when)}")
    assert schema(policy)["properties"]["service"]["enum"] == service


@pytest.mark.parametrize(
    ("when", "logs"),
    [
        ("arguments.logs.exists(l, l.endsWith('db'))", ["/var/log/api"]),
        ("'/var/log/db' in arguments.logs", ["/var/log/api"]),
        ("host.labels['role'] == 'web' && ('/var/log/db' in arguments.logs)", ["/var/log/api"]),
        ("arguments.logs.exists(l, l == '/var/log/db') || arguments.force", ["/var/log/api"]),
        ("!arguments.logs.exists(l, l.endsWith('api'))", ["/var/log/api", "/var/log/db"]),
        ("arguments.logs.all(l, l.endsWith('db'))", ["/var/log/api", "/var/log/db"]),
        ("arguments.logs.exists_one(l, l.endsWith('db'))", ["/var/log/api", "/var/log/db"]),
        ("size(arguments.logs) == 1 && '/var/log/db' in arguments.logs", ["/var/log/api", "/var/log/db"]),
        ("('/var/log/db' in arguments.logs) == (size(arguments.logs) == 1)", ["/var/log/api", "/var/log/db"]),
        ("arguments.logs == ['/var/log/db']", ["/var/log/api", "/var/log/db"]),
        ("arguments.logs[0] == '/var/log/db'", ["/var/log/api", "/var/log/db"]),
        ("['a'].exists(x, '/var/log/db' in arguments.logs)", ["/var/log/api", "/var/log/db"]),
        ("('/var/log/db' in arguments.logs ? 1 : 2) == 1", ["/var/log/api", "/var/log/db"]),
    ],
)
def test_a_value_leaves_a_list_if_every_list_that_holds_it_is_denied(
    tmp_path: Path, when: str, logs: list[str]
) -> None:
    policy = rules(tmp_path, f"when: {json.dumps(when)}")
    narrowed = schema(policy)["properties"]["logs"]["items"]["enum"]
    assert narrowed == logs
    # What left must be denied in every list; here in those that can be tried.
    for value in set(VOCABULARY["log"]) - set(narrowed):
        for others in ([], ["/var/log/api"], ["/var/log/db"], ["/elsewhere", "/var/log/api"]):
            arguments = {"service": "api", "logs": [*others, value], "force": False}
            asked = request(action="service.mend", arguments=arguments, labels=HOST.labels)
            assert policy.decide(asked).decision is Verdict.DENY


def test_a_stand_in_is_judged_by_what_it_stands_for(tmp_path: Path) -> None:
    policy = rules(tmp_path, "when: \"'/var/log/db' in arguments.logs || arguments.service == 'db'\"")
    told = {"service": ["api", "S1"], "log": ["/var/log/api", "L1"]}
    narrowed = sayable(policy, Mend(), HOST, told, stands_for={"S1": "db", "L1": "/var/log/db"})
    assert narrowed["properties"]["service"]["enum"] == ["api"]
    assert narrowed["properties"]["logs"]["items"]["enum"] == ["/var/log/api"]


def test_numbers_literals_and_flags_are_narrowed_alike(tmp_path: Path) -> None:
    policy = rules(
        tmp_path, "when: arguments.pid == 1", "when: arguments.mode == 'hard'", "when: arguments.force"
    )
    narrowed = schema(policy)
    assert narrowed["properties"]["pid"]["enum"] == [7]
    assert narrowed["properties"]["mode"]["enum"] == ["gentle"]
    assert narrowed["properties"]["force"]["enum"] == [False]
    assert narrowed["required"] == ["service"]


def test_an_argument_must_be_given_where_its_default_is_denied(tmp_path: Path) -> None:
    narrowed = schema(rules(tmp_path, "when: arguments.mode == 'gentle'", "when: '!arguments.force'"))
    assert narrowed["required"] == ["service", "mode", "force"]
    assert narrowed["properties"]["mode"]["enum"] == ["hard"]


def test_values_that_no_rule_could_allow_leave_it_too(tmp_path: Path) -> None:
    policy = rules(tmp_path, asked=", when: \"arguments.service == 'api' && arguments.note != 'x'\"")
    assert schema(policy)["properties"]["service"]["enum"] == ["api"]


@pytest.mark.parametrize("when", ["arguments.service != ''", "arguments.mode in ['gentle', 'hard']"])
def test_with_all_values_gone_the_action_goes(tmp_path: Path, when: str) -> None:
    with pytest.raises(ArgumentError, match="the policy denies every value"):
        schema(rules(tmp_path, f"when: {json.dumps(when)}"))


def test_what_is_denied_whatever_the_arguments_are_goes_as_a_whole(tmp_path: Path) -> None:
    assert not rules(tmp_path, "when: true || arguments.force").allows_ever(Mend(), HOST)


def test_what_is_still_sayable_keeps_its_schema_to_the_byte(tmp_path: Path) -> None:
    assert schema(rules(tmp_path)) == argument_schema(Mend(), VOCABULARY)


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(llguidance.hf.from_tokenizer(tiny.tokenizer()))


def test_no_grammar_admits_what_left_the_schema(tmp_path: Path, compiler: GrammarCompiler) -> None:
    narrowed = schema(rules(tmp_path, "when: arguments.service == 'db'", "when: arguments.force"))

    def admits(arguments: dict[str, Any]) -> bool:
        matcher = compiler.matcher(schema_grammar(narrowed))
        text = json.dumps(arguments).encode()
        tokens = [token for byte in text for token in compiler.vocabulary.tokenize_bytes(bytes([byte]))]
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()

    assert admits({"service": "api"})
    assert admits({"service": "shop", "force": False})
    assert not admits({"service": "db"})
    assert not admits({"service": "api", "force": True})


def test_no_engine_says_what_left_the_schema(tmp_path: Path) -> None:
    policy = rules(tmp_path, "when: arguments.service == 'db'")
    spec = ToolSpec(name="service.mend", description="mend", parameters=argument_schema(Mend()))
    asked = GenerationRequest(
        messages=(user("Mend the database."),),
        tools=(spec,),
        tool_choice="service.mend",
        call_schemas={"service.mend": schema(policy)},
    )
    said = ScriptedEngine(generate={"Mend": {"service": "api"}}).generate(asked)
    assert said.tool_calls[0].arguments["service"] == "api"
    with pytest.raises(ScriptError):
        ScriptedEngine(generate={"Mend": {"service": "db"}}).generate(asked)
    spoken = request(action="service.mend", arguments={"service": "db"}, labels=HOST.labels)
    assert policy.decide(spoken).decision is Verdict.DENY


DENY = """version: 1
rules:
  - {name: asked, decision: allow}
  - {name: not-so, when: "action.name == 'switch.set' && arguments.position in POSITIONS", decision: deny}
"""


@pytest.mark.parametrize(
    ("positions", "offered"), [("['off']", [["on"]]), ("['on']", [["off"]]), ("['on', 'off']", [])]
)
def test_an_incident_is_handled_without_the_words_for_what_is_denied(
    positions: str, offered: list[list[str]]
) -> None:
    with folder_in_memory() as root:
        lamp = Lamp.dark(root, switch="off")
        engine = prefers("switch", generate={"switch.set": None})
        rules = DENY.replace("POSITIONS", positions)
        with orchestrator(root / "home", lamp, engine, rules=rules) as watch:
            list(watch.run(ALERT))
        schemas = [
            asked.call_schemas["switch.set"]["properties"]["position"]["enum"]
            for asked in engine.requests
            if isinstance(asked, GenerationRequest) and "switch.set" in asked.call_schemas
        ]
        assert schemas[:1] == offered
        assert lamp.shines() is (positions == "['off']")
