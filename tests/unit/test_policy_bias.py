"""How differently groups may be treated is the policy's to say, of what was measured once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from watchkeeper.runtime.approvals import action_digest
from watchkeeper.runtime.errors import ConfigurationError, PolicyError
from watchkeeper.runtime.lifecycle_rules import LifecycleRules, kept_request
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.policy_bias import BiasLimits, BiasRules, Difference, MeasuredBias
from watchkeeper.runtime.policy_cases import Cases
from watchkeeper.runtime.policy_types import PolicyDecision, PolicyRequest
from watchkeeper.tools.inventory import Inventory
from watchkeeper.tools.predictors.bias import BiasPolicy, Rate, Verdict, bias_test
from watchkeeper.tools.registry import Registry
from watchkeeper.tools.versions.tools import predictor_tools

REGISTRY = Registry(predictor_tools())
ALLOW = "rules:\n  - {name: all, decision: allow}\n"


def policy(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "policy.yaml"
    path.write_text(f"version: 1\n{text}")
    return Policy.load(path, REGISTRY)


def measured(low: float, high: float, **values: Any) -> MeasuredBias:
    given: dict[str, Any] = {"predictor": "desk", "columns": ("site",), "confidence": 0.95} | values
    one = Difference(column="site", label="x", between=("north", "south"), low=low, high=high)
    return MeasuredBias(differences=(one,), **given)


def decide(rules: Policy, bias: MeasuredBias | None) -> PolicyDecision:
    return rules.decide(
        PolicyRequest(
            action="predictor.promote",
            reversibility=REGISTRY.action("predictor.promote").reversibility,
            arguments={"name": "desk", "version": 2},
            host="house",
            bias=bias,
        )
    )


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.0, 0.2, Verdict.WITHIN), (0.1, 0.3, Verdict.UNDECIDED), (0.21, 0.5, Verdict.BEYOND)],
)
def test_a_difference_is_judged_by_what_it_is_at_least_and_at_most(
    low: float, high: float, verdict: Verdict
) -> None:
    answer = BiasLimits(equalized_odds=0.2).judge(measured(low, high))
    assert (answer.verdict, answer.refused) == (verdict, verdict is Verdict.BEYOND)
    strict = BiasLimits(equalized_odds=0.2, undecided="refuse").judge(measured(low, high))
    assert strict.refused is (verdict is not Verdict.WITHIN)


def test_it_is_judged_as_the_test_that_measured_it_judges() -> None:
    truth = ["yes", "no"] * 300
    given = [one if number % 4 else "no" for number, one in enumerate(truth)]
    groups = ["x" if number % 4 in {0, 1} else "y" for number in range(600)]
    for limit in (0.1, 0.5, 0.93, 0.99, 1.0):
        limits = BiasLimits(equalized_odds=limit, demographic_parity=limit)
        reports = bias_test(truth, given, {"team": groups}, limits)
        assert limits.judge(MeasuredBias.of("desk", reports, limits, ())).verdict is reports[0].verdict


def test_what_was_measured_holds_no_limit_and_nothing_unseen_is_acquitted() -> None:
    truth, groups = ["yes", "no"] * 200 + ["no"] * 200, ["x", "x", "y", "y"] * 100 + ["z"] * 200
    reports = bias_test(truth, truth, {"g": groups}, BiasPolicy())
    kept = MeasuredBias.of("desk", reports, BiasPolicy(), ())
    highs = {one.rate: one.high for one in kept.differences}
    assert highs[Rate.TRUE_POSITIVE] == 1  # z has no row that should be "yes"
    assert highs[Rate.FALSE_POSITIVE] < 0.1
    alone = ["yes"] * 100 + ["no"] * 100
    reports = bias_test(alone, alone, {"g": ["x"] * 100 + ["y"] * 100}, BiasPolicy())
    assert {
        (one.rate, one.low, one.high) for one in MeasuredBias.of("d", reports, BiasPolicy(), ()).differences
    } >= {
        (Rate.TRUE_POSITIVE, 0, 1),
        (Rate.FALSE_POSITIVE, 0, 1),
    }


def test_the_policy_denies_what_rules_allow(tmp_path: Path) -> None:
    rules = policy(tmp_path, ALLOW)
    assert decide(rules, None).decision == "allow"
    assert decide(rules, measured(0.0, 0.1)).decision == "allow"
    said = decide(rules, measured(0.25, 0.4))
    assert (said.decision, said.rule) == ("deny", "bias-limits")
    assert "between north and south by 0.250 at least, and 0.2 may be" in said.reason
    wider = policy(tmp_path, f"bias: {{equalized_odds: 0.3}}\n{ALLOW}")
    assert decide(wider, measured(0.25, 0.4)).decision == "allow"
    assert wider.digest != rules.digest


def test_a_predictor_may_have_limits_of_its_own(tmp_path: Path) -> None:
    text = f"bias: {{equalized_odds: 0.3, predictors: {{desk: {{equalized_odds: 0.1}}}}}}\n{ALLOW}"
    rules = policy(tmp_path, text)
    assert decide(rules, measured(0.25, 0.4)).decision == "deny"
    assert decide(rules, measured(0.25, 0.4, predictor="other")).decision == "allow"


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("{confidence: 0.99}", "with confidence 0.95, and the policy wants 0.99"),
        ("{positive: [x]}", "by the labels all, and the policy wants x"),
        ("{columns: [language]}", "not tested for bias by language"),
    ],
)
def test_what_was_measured_otherwise_than_the_policy_wants_is_tested_anew(
    tmp_path: Path, limits: str, said: str
) -> None:
    answer = decide(policy(tmp_path, f"bias: {limits}\n{ALLOW}"), measured(0.0, 0.01))
    assert answer.decision == "deny"
    assert said in answer.reason


def test_rules_look_at_what_was_measured(tmp_path: Path) -> None:
    rules = policy(
        tmp_path,
        """rules:
  - {name: all, decision: allow}
  - name: two-people-where-nobody-knows
    when: bias.verdict == "undecided"
    decision: ask
    quorum: 2
  - name: languages
    match: {tools: [predictor.*]}
    when: bias.differences.exists(d, d.column == "language" && d.low > 0.05)
    decision: deny
    examples:
      match: [{action: predictor.promote, bias: [{column: language, low: 0.06, high: 0.1}]}]
      no_match: [{action: predictor.promote, bias: [{column: site, low: 0.06, high: 0.1}]}]
  - {name: untested, when: '!bias.tested', decision: ask, tier: 2}
""",
    )
    assert decide(rules, measured(0.0, 0.1)).decision == "allow"
    assert (decide(rules, measured(0.1, 0.4)).quorum, decide(rules, None).tier) == (2, 2)
    one = Difference(column="language", low=0.06, high=0.1)
    assert decide(rules, MeasuredBias(predictor="desk", differences=(one,))).rule == "languages"


def test_cases_may_say_what_was_measured(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yaml"
    cases.write_text(
        """cases:
  - {action: predictor.promote, host: house, arguments: {name: desk, version: 2}, expect: allow}
  - action: predictor.promote
    host: house
    arguments: {name: desk, version: 2}
    bias: [{column: site, low: 0.3, high: 0.5}]
    expect: {decision: deny, rule: bias-limits}
"""
    )
    hosts = Inventory.model_validate({"hosts": [{"name": "house"}]})
    text = f"bias: {{predictors: {{desk: {{equalized_odds: 0.25}}}}, equalized_odds: 1}}\n{ALLOW}"
    assert [one.differences for one in Cases(cases).verify(policy(tmp_path, text), REGISTRY, hosts)] == [
        (),
        (),
    ]


def test_a_wrong_limit_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"policy\.yaml.*2.*bias\.equalized_odds"):
        policy(tmp_path, f"bias: {{equalized_odds: 2}}\n{ALLOW}")


def test_an_approval_is_bound_to_what_was_measured() -> None:
    def bound(bias: MeasuredBias | None) -> str:
        return action_digest(
            tool="predictor.promote",
            version=1,
            arguments={},
            host="house",
            preconditions={},
            policy_digest="p",
            bias=None if bias is None else bias.bound(),
        )

    assert len({bound(None), bound(measured(0.1, 0.2)), bound(measured(0.1, 0.3))}) == 3


@pytest.mark.parametrize("moved", ["limits: {equalized_odds: 0.1}", "undecided: refuse"])
def test_limits_in_the_lifecycle_are_refused_and_it_is_said_where_they_went(
    tmp_path: Path, moved: str
) -> None:
    path = tmp_path / "lifecycle.yaml"
    rules = f"    host: a\n    job: j\n    held_out: h\n    bias: {{columns: [site], {moved}}}\n"
    path.write_text(f"predictors:\n  desk:\n{rules}")
    with pytest.raises(ConfigurationError, match=rf"lifecycle\.yaml.*6.*{moved.split(':')[0]}.*policy\.yaml"):
        LifecycleRules.load(path)


def test_a_retraining_that_was_kept_with_limits_goes_on() -> None:
    values = {
        "predictor": "desk",
        "host": "house",
        "job": {"name": "desk", "trainer": "text-classifier", "data": "/d"},
        "held_out": "/h",
        "bias": {"columns": ["site"], "limits": {"equalized_odds": 0.1}, "undecided": "go-on"},
    }
    assert kept_request(values).bias.columns == ("site",)


def test_limits_are_told_in_a_line() -> None:
    assert BiasRules(columns=("site",)).told() == (
        "equalized odds 0.2, by site, 0.95 sure; what is undecided goes on"
    )
