"""What holds of every policy: the stricter rule wins, whatever the order, and errors and silence deny."""

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_policy import HOST, REGISTRY, Kill, Restart, request
from watchkeeper.runtime.blast import BlastRadius, Touch
from watchkeeper.runtime.conditions import CelCondition, ConditionError
from watchkeeper.runtime.errors import PolicyError
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.policy_rules import Rules
from watchkeeper.runtime.policy_types import PolicyDecision, PolicyRequest, Verdict

RANK = {Verdict.ALLOW: 0, Verdict.ASK: 1, Verdict.DENY: 2}
WINDOWS = {"night": {"zone": "Europe/Berlin", "weekly": [{"from": "22:00", "to": "06:00"}]}}
CONDITIONS = (
    None,
    "arguments.service == 'api'",
    "arguments.service in ['db', 'api']",
    "arguments.pid > 1",
    "host.labels.role == 'web' || in_window('night')",
    "!in_window('night') && diff_lines < 5",
    "'operator' in requester_roles",
    "blast_1h.hosts > 1",
    "blast.share < 0.6 && requester != 'bob'",
    "action.reversibility == 'irreversible'",
    "incident.actions_taken / (diff_lines - 3) > 0",
)


def _rule(values: tuple[Any, ...]) -> dict[str, Any]:
    name, decision, tier, quorum, when, tools, windows, limited = values
    rule: dict[str, Any] = {"name": name, "decision": decision, "tier": tier, "quorum": quorum, "when": when}
    rule["match"] = {"tools": [tools], "windows": windows}
    if limited and decision != "deny":
        rule["limit"] = {"hosts": 1, "per": "1h", "beyond": "deny"}
    return rule


RULE = st.tuples(
    st.text("abcdefgh", min_size=1, max_size=6),
    st.sampled_from(["allow", "ask", "deny"]),
    st.integers(1, 3),
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from(CONDITIONS),
    st.sampled_from(["*", "service.*", "process.*"]),
    st.sampled_from([[], ["night"]]),
    st.booleans(),
).map(_rule)
RULES = st.lists(RULE, max_size=5, unique_by=lambda rule: rule["name"])
REQUEST = st.builds(
    lambda action, service, hour, lines, roles, touched: request(
        action=action,
        reversibility="irreversible" if action == "process.end" else "reversible",
        arguments={"service": service},
        now=datetime(2026, 11, 23, hour, tzinfo=UTC),
        diff_lines=lines,
        requester_roles=roles,
        blast=BlastRadius(
            touches=tuple(
                Touch(host=host, at=datetime(2026, 11, 23, hour, tzinfo=UTC) - timedelta(minutes=1))
                for host in touched
            ),
            fleet={"web-1": {}, "web-2": {}},
        ),
    ),
    st.sampled_from(["service.restart", "process.end"]),
    st.sampled_from(["api", "db"]),
    st.integers(0, 23),
    st.sampled_from([1, 3, 9]),
    st.sampled_from([[], ["operator"]]),
    st.sampled_from([[], ["web-1"], ["web-2"]]),
)


def policy(rules: list[dict[str, Any]]) -> Policy:
    return Policy(Rules.model_validate({"version": 1, "windows": WINDOWS, "rules": rules}), REGISTRY)


def strictness(decision: PolicyDecision) -> tuple[int, int, int]:
    asks = decision.decision is Verdict.ASK
    return (RANK[decision.decision], decision.tier if asks else 0, decision.quorum if asks else 0)


@settings(max_examples=150, deadline=None)
@given(rules=RULES, asked=REQUEST)
def test_the_strictest_rule_that_holds_wins_and_silence_denies(
    rules: list[dict[str, Any]], asked: PolicyRequest
) -> None:
    decided = policy(rules).decide(asked)
    alone = [policy([rule]).decide(asked) for rule in rules]
    holding = [one for one in alone if any(t.outcome == "matched" for t in one.trace)]
    if any(t.outcome == "error" for one in alone for t in one.trace) or not holding:
        assert decided.decision is Verdict.DENY
        return
    assert RANK[decided.decision] == max(RANK[one.decision] for one in holding)
    if decided.decision is Verdict.ASK and asked.action != "process.end":
        asking = [one for one in holding if one.decision is Verdict.ASK]
        assert decided.tier == max(one.tier for one in asking)
        assert decided.quorum == max(one.quorum for one in asking)


@settings(max_examples=150, deadline=None)
@given(rules=RULES, asked=REQUEST, seed=st.randoms(use_true_random=False))
def test_the_order_of_rules_does_not_matter(
    rules: list[dict[str, Any]], asked: PolicyRequest, seed: Any
) -> None:
    shuffled = list(rules)
    seed.shuffle(shuffled)
    one, other = policy(rules).decide(asked), policy(shuffled).decide(asked)
    assert strictness(one) == strictness(other)
    assert (one.rule, one.reason) == (other.rule, other.reason)


@settings(max_examples=150, deadline=None)
@given(rules=RULES, further=RULE, asked=REQUEST)
def test_a_further_rule_that_denies_makes_nothing_more_allowed(
    rules: list[dict[str, Any]], further: dict[str, Any], asked: PolicyRequest
) -> None:
    denying = {name: value for name, value in further.items() if name != "limit"}
    more = [*rules, denying | {"name": "zzzz-further", "decision": "deny"}]
    assert strictness(policy(more).decide(asked)) >= strictness(policy(rules).decide(asked))


@settings(max_examples=150, deadline=None)
@given(rules=RULES, asked=REQUEST)
def test_what_is_unsayable_is_denied_at_every_moment(
    rules: list[dict[str, Any]], asked: PolicyRequest
) -> None:
    loaded = policy(rules)
    action = Kill() if asked.action == "process.end" else Restart()
    for arguments in ({}, {"service": asked.arguments["service"]}):
        if not loaded.allows_ever(action, HOST, arguments):
            assert loaded.decide(asked).decision is Verdict.DENY


@settings(max_examples=100, deadline=None)
@given(asked=REQUEST)
def test_without_rules_everything_is_denied(asked: PolicyRequest) -> None:
    assert policy([]).decide(asked).decision is Verdict.DENY


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("arguments.pid == 1", "no such key"),
        ("host.labels['owner'] == 'x'", "no such key"),
        ("arguments.service > 1", "overload"),
        ("arguments.service + 1 == 2", "Unsupported operation"),
        ("!arguments.service", "answers|overload|operation"),
        ("9223372036854775807 + diff_lines > 0", "overflow"),
        ("uint(0) - uint(diff_lines) > uint(1)", "overflow"),
        ("int(1e300) > diff_lines", "overflow"),
        ("int('99999999999999999999') > diff_lines", "number too large"),
        ("diff_lines / 0 > 1", "zero"),
        ("diff_lines % 0 > 1", "zero"),
        ("[1][diff_lines] == 1", "out of bounds"),
        ("timestamp('9999-12-31T23:59:59Z') + duration('48h') > now", "overflow"),
        ("timestamp('soon') > now", "timestamp"),
        ("arguments.service.matches('[')", "regex"),
        ("arguments.service.matches('a{1000}{1000}')", "not a valid regex"),
        ("nonsense(arguments.service)", "nonsense"),
        ("diff_lines", "instead of true or false"),
        ("arguments", "instead of true or false"),
        ("null", "instead of true or false"),
    ],
)
def test_every_kind_of_error_denies_whatever_else_allows(when: str, said: str) -> None:
    for decision in ("allow", "ask", "deny"):
        loaded = policy(
            [
                {"name": "fine", "decision": "allow"},
                {"name": "broken", "decision": decision, "when": when},
            ]
        )
        decided = loaded.decide(request())
        assert (decided.decision, decided.rule) == (Verdict.DENY, "broken")
        errors = [t.detail for t in decided.trace if t.outcome == "error"]
        assert len(errors) == 1
        assert re.search(said, errors[0], flags=re.IGNORECASE), errors[0]


def nested(depth: int, over: str) -> str:
    condition = "true"
    for number in range(depth):
        condition = f"{over}.all(x{number}, {condition})"
    return condition


@pytest.mark.parametrize("depth", [5, 8, 20])
def test_loops_that_would_take_long_are_refused_when_they_are_loaded(depth: int) -> None:
    started = time.monotonic()
    with pytest.raises(PolicyError, match="take too long"):
        policy([{"name": "slow", "decision": "allow", "when": nested(depth, "[1,2,3,4,5,6,7,8,9]")}])
    assert time.monotonic() - started < 5


def test_loops_over_what_is_large_deny_at_once() -> None:
    loaded = policy(
        [
            {"name": "fine", "decision": "allow"},
            {"name": "slow", "decision": "allow", "when": nested(2, "arguments.files")},
        ]
    )
    few = loaded.decide(request(arguments={"files": ["a"] * 100}))
    assert few.decision is Verdict.ALLOW
    started = time.monotonic()
    many = loaded.decide(request(arguments={"files": ["a"] * 20_000}))
    assert time.monotonic() - started < 5
    assert (many.decision, many.rule) == (Verdict.DENY, "slow")
    assert "take too long" in many.reason


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("true || " * 600 + "true", "4000 are the most"),
        ("(" * 200 + "true" + ")" * 200, "is not a CEL expression"),
        ("[1].exists(now, now == 1)", "calls an element 'now'"),
        ("[1].exists(blast_2h, blast_2h == 1)", "calls an element 'blast_2h'"),
    ],
)
def test_conditions_that_hide_or_overdo_something_are_refused(when: str, said: str) -> None:
    with pytest.raises(ConditionError, match=said):
        CelCondition(when)


@pytest.mark.parametrize(
    ("source", "depth"),
    [
        ("true", 0),
        ("'.all(x, .all(y, ' == arguments.service", 0),
        ("// .all(x, true)\ntrue", 0),
        ("[1].all(x, x > 0) && [2].all(y, y > 0)", 1),
        ("[1].map(x, [x].filter(y, y > 1)).exists(z, z == [])", 2),
        ('r"\\".size() > 0 && [1].all(x, [1].all(y, true))', 2),
    ],
)
def test_the_depth_of_loops_is_read_from_the_text(source: str, depth: int) -> None:
    assert CelCondition(source).text.depth() == depth
