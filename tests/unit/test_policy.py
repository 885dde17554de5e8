"""A policy denies what it does not know, and is checked when it is loaded."""

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from watchkeeper.runtime.errors import PolicyError
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.policy_types import PolicyRequest, Verdict
from watchkeeper.tools.action import (
    Action,
    ActionPlan,
    Outcome,
    ProbeAnswer,
    Reversibility,
    Verification,
)
from watchkeeper.tools.fact import Arguments, Fact, Raw, Result
from watchkeeper.tools.findings import Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.registry import Registry

MONDAY_NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Note(Arguments):
    service: str = "api"


class Restart(Action[Note]):
    """Writes a file on the target, so that what a policy is asked about is real."""

    name = "service.restart"
    summary = "restart a service"
    reversibility = Reversibility.REVERSIBLE
    arguments_type = Note

    def plan(self, target: Target, arguments: Note, *, key: str) -> ActionPlan:
        return ActionPlan(key=key, summary=f"restart {arguments.service}", diff="~ restart")

    def apply(self, target: Target, plan: ActionPlan) -> Outcome:
        (target.state / plan.key).touch()
        return Outcome(detail="restarted")

    def verify(self, target: Target, plan: ActionPlan) -> Verification:
        return Verification(ok=(target.state / plan.key).exists(), detail="file")

    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:
        return ProbeAnswer.DONE if (target.state / plan.key).exists() else ProbeAnswer.NOT_DONE


class Kill(Restart):
    name = "process.end"
    summary = "end a process"
    reversibility = Reversibility.IRREVERSIBLE


class Uptime(Fact[Note, Result]):
    name = "host.uptime"
    summary = "how long it is up"
    arguments_type = Note
    result_type = Result

    def collect(self, target: Target, arguments: Note) -> Raw:
        return {"seconds": 1}

    def interpret(self, raw: Raw, arguments: Note) -> Result:
        return Result()


REGISTRY = Registry([Restart(), Kill(), Uptime()])


def policy(tmp_path: Path, rules: str) -> Policy:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nrules:\n" + rules)
    return Policy.load(path, REGISTRY)


def request(**changes: object) -> PolicyRequest:
    values: dict[str, object] = {
        "action": "service.restart",
        "reversibility": "reversible",
        "arguments": {"service": "api"},
        "host": "web-1",
        "labels": {"environment": "production", "role": "web"},
        "requester": "watchkeeper",
        "now": MONDAY_NOON,
        "diff_lines": 3,
    }
    return PolicyRequest.model_validate(values | changes)


HOST = HostSpec(name="web-1", labels={"environment": "production", "role": "web"})


def test_what_no_rule_speaks_of_is_denied(tmp_path: Path) -> None:
    decision = policy(tmp_path, "  []").decide(request())
    assert (decision.decision, decision.rule) == (Verdict.DENY, "-")
    assert "'service.restart' on host 'web-1'" in decision.reason


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (("allow",), "allow"),
        (("allow", "ask"), "ask"),
        (("ask", "allow"), "ask"),
        (("deny", "ask", "allow"), "deny"),
        (("allow", "ask", "deny"), "deny"),
    ],
)
def test_deny_beats_ask_beats_allow(tmp_path: Path, present: tuple[str, ...], expected: str) -> None:
    rules = "".join(f"  - {{name: {verdict}-it, decision: {verdict}}}\n" for verdict in present)
    decision = policy(tmp_path, rules).decide(request())
    assert (decision.decision, decision.rule) == (expected, f"{expected}-it")
    assert [t.outcome for t in decision.trace] == ["matched"] * len(present)


def test_the_highest_tier_that_asks_counts(tmp_path: Path) -> None:
    decision = policy(
        tmp_path,
        "  - {name: low, decision: ask}\n  - {name: high, decision: ask, tier: 3, reason: Because.}\n",
    ).decide(request())
    assert (decision.rule, decision.tier, decision.reason) == ("high", 3, "Because.")


@pytest.mark.parametrize(
    ("when", "changes", "expected"),
    [
        ("arguments.service == 'api'", {}, True),
        ("arguments.service == 'api'", {"arguments": {"service": "db"}}, False),
        ("host.labels.environment == 'production' && host.name.startsWith('web-')", {}, True),
        ("'role' in host.labels && host.labels.role in ['db', 'cache']", {}, False),
        ("now.getDayOfWeek() in [0, 6] || now.getHours() < 7", {}, False),
        ("now.getDayOfWeek() in [0, 6]", {"now": datetime(2026, 11, 22, tzinfo=UTC)}, True),
        ("diff_lines <= 40", {}, True),
        ("incident.actions_taken < 2", {"actions_taken": 2}, False),
        ("incident.severity == 'warning'", {"severity": Severity.WARNING}, True),
        ("requester == 'watchkeeper'", {}, True),
        ("action.reversibility == 'reversible' && action.version == 1", {}, True),
        ("['a', 'b'].exists(x, x == 'b')", {}, True),
    ],
)
def test_conditions_speak_of_the_action_the_host_and_the_moment(
    tmp_path: Path, when: str, changes: dict[str, object], expected: bool
) -> None:
    decided = policy(tmp_path, f'  - {{name: r, decision: allow, when: "{when}"}}\n').decide(
        request(**changes)
    )
    assert decided.decision is (Verdict.ALLOW if expected else Verdict.DENY)


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("host.labels.owner == 'me'", "no such key"),
        ("arguments.pid > 0", "no such key"),
        ("diff_lines / incident.actions_taken > 1", "zero"),
        ("arguments.service + 1 == 2", "Unsupported operation"),
        ("arguments.service", "answers 'api' instead of true or false"),
        ("arguments.service.matches('[')", "regex"),
        ("nonsense(arguments.service)", "nonsense"),
    ],
)
def test_a_rule_that_cannot_be_evaluated_denies_whatever_else_allows(
    tmp_path: Path, when: str, said: str
) -> None:
    rules = f'  - {{name: fine, decision: allow}}\n  - {{name: broken, decision: deny, when: "{when}"}}\n'
    decision = policy(tmp_path, rules).decide(request())
    assert (decision.decision, decision.rule) == (Verdict.DENY, "broken")
    assert said in decision.reason
    assert "\n" not in decision.reason


def test_a_broken_rule_about_something_else_does_not_matter(tmp_path: Path) -> None:
    rules = (
        "  - {name: fine, decision: allow}\n"
        "  - {name: broken, match: {tools: [process.*]}, decision: deny, when: arguments.pid > 0}\n"
    )
    assert policy(tmp_path, rules).decide(request()).decision is Verdict.ALLOW


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("{environment: production}", True),
        ("{environment: prod*, role: web}", True),
        ("{environment: production, role: db}", False),
        ("{owner: '*'}", False),
    ],
)
def test_rules_are_about_hosts_by_their_labels(tmp_path: Path, hosts: str, expected: bool) -> None:
    decided = policy(tmp_path, f"  - {{name: r, match: {{hosts: {hosts}}}, decision: allow}}\n").decide(
        request()
    )
    assert (decided.decision is Verdict.ALLOW) == expected


@pytest.mark.parametrize(
    ("rule", "tier"), [("decision: allow", 2), ("decision: ask", 2), ("decision: ask, tier: 3", 3)]
)
def test_what_cannot_be_undone_needs_a_higher_tier_whatever_the_rule_says(
    tmp_path: Path, rule: str, tier: int
) -> None:
    loaded = policy(tmp_path, f"  - {{name: r, {rule}}}\n")
    decision = loaded.decide(request(action="process.end", reversibility="irreversible"))
    assert (decision.decision, decision.tier) == (Verdict.ASK, tier)
    raised = [t for t in decision.trace if t.outcome == "raised"]
    assert bool(raised) == (tier == 2)
    assert all("irreversible" in t.detail for t in raised)


def test_denied_stays_denied_for_what_cannot_be_undone(tmp_path: Path) -> None:
    loaded = policy(tmp_path, "  - {name: r, decision: deny}\n")
    assert loaded.decide(request(action="process.end", reversibility="irreversible")).decision is Verdict.DENY


def test_the_policy_that_comes_along_asks_about_everything() -> None:
    loaded = Policy.default(REGISTRY)
    low = loaded.decide(request())
    high = loaded.decide(request(action="process.end", reversibility="irreversible"))
    assert (low.decision, low.tier) == (Verdict.ASK, 1)
    assert (high.decision, high.tier) == (Verdict.ASK, 2)
    assert Policy.default(Registry()).digest == loaded.digest


def test_the_digest_changes_with_the_rules_and_not_with_comments(tmp_path: Path) -> None:
    one = policy(tmp_path, "  - {name: r, decision: ask}\n")
    same = policy(tmp_path, "  # why\n  - name: r\n    decision: ask\n")
    other = policy(tmp_path, "  - {name: r, decision: allow}\n")
    assert one.digest == same.digest != other.digest
    assert one.decide(request()).policy_digest == one.digest


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("  []", False),
        ("  - {name: r, decision: ask}\n", True),
        ("  - {name: r, decision: ask}\n  - {name: d, decision: deny}\n", False),
        ("  - {name: r, decision: ask}\n  - {name: d, decision: deny, when: now.getHours() < 7}\n", True),
        ("  - {name: r, decision: ask, when: now.getHours() < 7}\n", True),
        ("  - {name: r, decision: ask, when: host.name == 'db-1'}\n", False),
        ("  - {name: r, decision: ask}\n  - {name: d, decision: deny, when: host.name == 'web-1'}\n", False),
        (
            "  - {name: r, decision: ask}\n  - {name: d, decision: deny, when: host.labels.owner == 'x'}\n",
            False,
        ),
        ("  - {name: r, decision: ask, match: {tools: [process.*]}}\n", False),
        ("  - {name: r, decision: ask, match: {hosts: {role: db}}}\n", False),
        ("  - {name: r, decision: ask}\n  - {name: d, decision: deny, match: {hosts: {role: db}}}\n", True),
    ],
)
def test_only_what_is_denied_at_every_moment_is_unsayable(tmp_path: Path, rules: str, expected: bool) -> None:
    assert policy(tmp_path, rules).allows_ever(Restart(), HOST) is expected


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("  - {name: r, decision: [", r"line \d+: not valid YAML"),
        ("  - {name: r, decision: maybe}\n", r"line 3: rules\.0\.decision: .*'maybe'"),
        ("  - {name: r, decision: ask, tire: 2}\n", r"line 3: rules\.0\.tire: unknown key"),
        ("  - {name: r, decision: ask, tier: 4}\n", r"rules\.0\.tier: .*4"),
        ("  - name: r\n    decision: ask\n    decision: allow\n", "line 5: key 'decision' is written twice"),
        ("  - {decision: ask}\n", r"line 3: rules\.0\.name: missing"),
        ("  - {name: r, decision: ask}\n  - {name: r, decision: deny}\n", "rule 'r' is defined twice"),
        (
            "  - name: r\n    decision: ask\n    when: 'a b'\n",
            r"line 5: rules\.0\.when: rule 'r': 'a b' is not",
        ),
        ("  - {name: r, decision: ask, when: hots.name == 'x'}\n", "'hots', which is not there"),
        (
            "  - name: r\n    match: {tools: [servise.*]}\n    decision: ask\n",
            r"line 4.*'servise\.\*' matches no",
        ),
        ("  - {name: r, match: {tools: [host.uptime]}, decision: ask}\n", "names facts only"),
        (
            "  - {name: r, decision: ask, when: 'false', examples: {match: [{action: service.restart}]}}\n",
            r"examples\.match\.0: rule 'r': must match its example of 'service.restart', but does not",
        ),
        (
            "  - {name: r, decision: ask, examples: {no_match: [{action: service.restart}]}}\n",
            "must not match its example of 'service.restart', but does",
        ),
        (
            "  - {name: r, decision: ask, examples: {match: [{action: none.such}]}}\n",
            "'none.such' is not registered",
        ),
        (
            "  - {name: r, decision: ask, when: arguments.a>1, examples: {match: [{action: process.end}]}}\n",
            "its example cannot be evaluated: .*arguments",
        ),
    ],
)
def test_a_policy_with_a_mistake_is_not_loaded(tmp_path: Path, rules: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said) as caught:
        policy(tmp_path, rules)
    assert repr(str(tmp_path / "policy.yaml")) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "version: missing"),
        ("version: 2\n", "version: .*2"),
        ("- a\n", "keys with values are expected"),
        ("\x00", "not valid YAML"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{c}: &{c} [" + ", ".join([f"*{p}"] * 9) + "]\n" for p, c in pairwise("abcdefgh")),
            "too large",
        ),
        ("a: &a [*a]\n", "nested too deeply"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(content)
    with pytest.raises(PolicyError, match=said):
        Policy.load(path, REGISTRY)


def test_examples_that_fit_are_accepted(tmp_path: Path) -> None:
    loaded = policy(
        tmp_path,
        """  - name: nights
    match: {tools: ["service.*"], hosts: {environment: production}}
    when: now.getHours() >= 22 || now.getHours() < 6
    decision: deny
    reason: Nobody is awake.
    examples:
      match:
        - {action: service.restart, host: {labels: {environment: production}}, now: 2026-11-23T23:00:00Z}
      no_match:
        - {action: service.restart, host: {labels: {environment: production}}, now: 2026-11-23T12:00:00Z}
        - {action: service.restart, host: {labels: {environment: test}}, now: 2026-11-23T23:00:00Z}
""",
    )
    assert [rule.name for rule in loaded.rules] == ["nights"]
