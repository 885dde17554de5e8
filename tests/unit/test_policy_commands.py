"""Commands about a policy: what it does not speak of, whether cases hold, and why it says what it says."""

import json
import re
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from watchkeeper.cli import policy
from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.changes import effect_key
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.policy_coverage import Covered, coverage
from watchkeeper.runtime.steps import Step
from watchkeeper.tools.action import ActionPlan, Outcome, Reversibility

RULES = """version: 1
windows:
  maintenance: {zone: Europe/Berlin, weekly: [{days: [sat], from: 22:00, to: "04:00"}]}
rules:
  - {name: services, match: {tools: [service.*], hosts: {role: web}}, decision: ask, tier: 2, quorum: 2}
  - name: nights
    match: {tools: [disk.*], windows: [maintenance]}
    decision: allow
    limit: {hosts: 1, per: 1h}
  - name: not-the-database
    when: action.name.startsWith("service.") && arguments.service == "db"
    decision: deny
    reason: Ours.
"""
INVENTORY = """hosts:
  - name: web-1
    labels: {role: web}
    services: [{name: api, supervisor: {kind: systemd}}, {name: db, supervisor: {kind: systemd}}]
  - {name: store-1, labels: {role: store}}
"""
SATURDAY = "2026-11-28T23:00:00+01:00"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))
    (tmp_path / "policy.yaml").write_text(RULES)
    (tmp_path / "inventory.yaml").write_text(INVENTORY)
    return tmp_path


def run(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(policy.app, arguments)
    assert done.exit_code == code, done.output
    return done


def test_what_is_denied_by_default_only_is_reported(home: Path) -> None:
    shown = run("check").stdout
    assert "3 rules, 0 examples: all is well" in shown
    assert "process.end     web-1" in shown
    assert "service.restart" not in shown
    run("check", "--strict", code=1)
    told = json.loads(run("check", "--strict", "--json", code=1).stdout)
    assert told["ok"] is False
    assert {"action": "process.end", "host": "store-1", "covered": "never", "rules": []} in told[
        "denied_by_default"
    ]
    depends = {(one["action"], one["host"]): one["rules"] for one in told["depends"]}
    assert depends["disk.reclaim", "web-1"] == ["nights"]
    assert depends["service.restart", "store-1"] == ["not-the-database"]
    assert ("service.restart", "web-1") not in depends


def test_a_policy_that_speaks_of_all_is_strict_enough(home: Path) -> None:
    (home / "policy.yaml").write_text("version: 1\nrules:\n  - {name: all, decision: ask}\n")
    assert "0 denied by default only, 0 depending" in run("check", "--strict").stdout


def test_without_an_inventory_only_the_policy_is_checked(home: Path) -> None:
    (home / "inventory.yaml").unlink()
    assert "there is no inventory" in run("check").stdout
    assert json.loads(run("check", "--json").stdout)["decisions"] is None
    assert "inventory.yaml" in run("check", "--strict", code=2).stderr


def test_every_action_has_a_decision_on_every_host() -> None:
    from watchkeeper.runtime.policy import Policy
    from watchkeeper.tools.builtin import builtin_registry
    from watchkeeper.tools.inventory import Inventory

    registry = builtin_registry()
    hosts = Inventory.model_validate({"hosts": [{"name": "a"}, {"name": "b"}]})
    found = coverage(Policy.default(registry), registry, hosts)
    assert len(found) == 2 * len(registry.actions)
    assert {one.covered for one in found} == {Covered.ALWAYS}


def cases(home: Path, text: str) -> str:
    path = home / "cases.yaml"
    path.write_text("cases:\n" + text)
    return str(path)


GOOD = f"""
  - {{name: by day, action: service.restart, host: web-1, arguments: {{service: api}},
      expect: {{decision: ask, tier: 2, quorum: 2, rule: services}}}}
  - {{action: service.restart, host: web-1, arguments: {{service: db}}, expect: deny}}
  - {{name: saturday, action: disk.reclaim, host: store-1, arguments: {{files: [/var/log/a]}}, at: {SATURDAY},
      expect: allow}}
  - {{name: sunday, action: disk.reclaim, host: store-1, arguments: {{files: [/var/log/a]}},
      at: 2026-11-29T12:00:00+01:00, expect: deny}}
  - {{name: too many, action: disk.reclaim, host: store-1, arguments: {{files: [/var/log/a]}}, at: {SATURDAY},
      blast: {{hosts: 2, share: 0.5, actions: 2}}, expect: deny}}
  - {{action: service.restart, host: any, labels: {{role: web}}, arguments: {{service: x}}, expect: ask}}
"""


def test_cases_of_a_users_own_are_verified(home: Path) -> None:
    shown = run("test", cases(home, GOOD)).stdout
    assert "6 cases, 0 failed" in shown
    assert "FAILED" not in shown
    assert "by day" in shown


def test_a_case_that_is_answered_otherwise_fails(home: Path) -> None:
    wrong = GOOD.replace("tier: 2", "tier: 1").replace("labels: {role: web}", "labels: {role: db}")
    shown = run("test", cases(home, wrong), code=1).stdout
    assert "by day; tier is 2 instead of 1" in shown
    assert "decision is deny instead of ask" in shown
    assert "6 cases, 2 failed" in shown
    told = json.loads(run("test", cases(home, wrong), "--json", code=1).stdout)
    assert (told["ok"], told["failed"]) == (False, 2)
    assert [bool(one["differences"]) for one in told["cases"]] == [True, False, False, False, False, True]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  []\n", "at least 1"),
        ("  - {action: service.explode, host: web-1, expect: deny}\n", "line 2: cases.0: .*not registered"),
        ("  - {action: service.stop, host: web-9, arguments: {service: a}, expect: deny}\n", "web-9"),
        ("  - {action: service.stop, host: web-1, arguments: {servis: a}, expect: deny}\n", "service"),
        (
            "  - {action: service.stop, host: web-1, expect: maybe}\n",
            r"cases\.0\.expect\.decision: .*'maybe'",
        ),
        ("  - {action: service.stop, host: web-1}\n", r"cases\.0\.expect: missing"),
        (
            "  - {action: x, host: web-1, at: 2026-11-28T23:00:00, expect: deny}\n",
            r"cases\.0\.at: .*timezone",
        ),
    ],
)
def test_cases_with_a_mistake_are_refused(home: Path, text: str, said: str) -> None:
    refused = run("test", cases(home, text), code=2)
    assert re.search(said, refused.stderr), refused.stderr
    assert "Traceback" not in refused.stderr


def uncommented(text: str) -> str:
    """Switch on what a file to begin with shows in comments: windows and rules, up to an empty line."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        inside = bool(line) and (inside or line.startswith("# windows:") or "# - name:" in line)
        lines.append(line.replace("# ", "", 1) if inside else line)
    return "\n".join(lines) + "\n"


def test_what_the_file_to_begin_with_shows_in_comments_is_right(home: Path) -> None:
    starter = files("watchkeeper.cli") / "starter" / "policy.yaml"
    (home / "policy.yaml").write_text(uncommented(starter.read_text(encoding="utf-8")))
    told = json.loads(run("check", "--json").stdout)
    assert {rule["name"] for rule in told["rules"]} >= {
        "no-reboots-while-people-work",
        "not-all-at-once",
        "hands-off-databases",
        "restart-on-staging",
    }


def touch(home: Path, host: str, at: datetime) -> None:
    with Journal(home, now=lambda: at) as journal:
        condition = {"kind": "http", "url": f"http://{host}/"}
        incident = journal.open(Alert.model_validate({"title": "t", "host": host, "condition": condition})).id
        step = journal.steps.add(
            Step(
                id=journal.steps.next_id(incident),
                incident_id=incident,
                host=host,
                action="disk.reclaim",
                reversibility=Reversibility.COMPENSABLE,
                plan=ActionPlan(key="k", summary="reclaim"),
                digest="1" * 64,
            )
        )
        journal.ledger.intend(incident_id=incident, step_id=step.id, digest=step.digest)
        journal.ledger.complete(effect_key(step.id, step.digest), ok=True, outcome=Outcome(detail="done"))


def test_explain_tells_windows_and_what_was_touched(home: Path) -> None:
    given = ("explain", "disk.reclaim", "store-1", "--arguments", '{"files": ["/var/log/a"]}')
    night = datetime.fromisoformat(SATURDAY).astimezone(UTC)
    fresh = run(*given, "--at", SATURDAY).stdout
    assert "decision  allow" in fresh
    assert not (home / "watchkeeper.db").exists()
    assert "window maintenance: open" in fresh
    assert "within 1h, with this action: 1 host, 50.0% of the fleet, 1 action" in fresh
    touch(home, "web-1", night - timedelta(minutes=30))
    then = run(*given, "--at", SATURDAY).stdout
    assert "decision  deny" in then
    assert "nights: limited (2 hosts would be touched within 1h, and 1 may be: allow became deny)" in then
    assert "decision  allow" in run(*given, "--at", "2026-11-28T22:15:00+01:00").stdout
    sunday = json.loads(run(*given, "--at", "2026-11-29T12:00Z", "--json").stdout)
    assert (sunday["decision"], sunday["rule"], sunday["windows"]) == ("deny", "-", {"maintenance": False})
    assert "2026-11-29 11:00:00 UTC" in run(*given, "--at", "2026-11-29T12:00+01:00").stdout


@pytest.mark.parametrize(("at", "said"), [("soon", "is not a moment"), ("2026-11-29T12:00", "has no offset")])
def test_a_moment_that_is_none_is_refused(home: Path, at: str, said: str) -> None:
    given = ("explain", "service.stop", "web-1", "--arguments", '{"service": "api"}', "--at", at)
    assert said in run(*given, code=2).stderr


def test_explain_tells_how_many_people_must_say_yes(home: Path) -> None:
    shown = run("explain", "service.stop", "web-1", "--arguments", '{"service": "api"}').stdout
    assert "tier      2" in shown
    assert "people    2" in shown


def test_limits_of_bias_are_checked_and_explained(home: Path) -> None:
    limits = "bias: {equalized_odds: 0.3, predictors: {desk: {undecided: refuse}}}\n"
    (home / "policy.yaml").write_text(f"version: 1\n{limits}rules: [{{name: all, decision: allow}}]\n")
    (home / "config.yaml").write_text('tools: ["watchkeeper.tools.versions.tools:predictor_tools"]\n')
    shown = run("check").stdout
    assert "bias between groups: equalized odds 0.3, 0.95 sure; what is undecided goes on" in shown
    assert "bias between groups of desk: equalized odds 0.2, 0.95 sure; what is undecided is refused" in shown
    assert json.loads(run("check", "--json").stdout)["bias"]["equalized_odds"] == 0.3

    def explained(name: str, bias: str) -> str:
        arguments = json.dumps({"name": name, "version": 2})
        given = ("explain", "predictor.promote", "web-1", "--arguments", arguments, "--bias", bias, "--json")
        return str(json.loads(run(*given).stdout)["rule"])

    assert explained("desk", '[{"column": "site", "low": 0.1, "high": 0.3}]') == "bias-limits"
    assert explained("logs", '[{"column": "site", "low": 0.1, "high": 0.3}]') == "all"
    assert explained("logs", '[{"column": "site", "low": 0.4, "high": 0.5}]') == "bias-limits"
    wrong = run(
        "explain", "service.stop", "web-1", "--arguments", '{"service": "api"}', "--bias", "[{}]", code=2
    )
    assert "--bias holds no differences between groups: 0: column: Field required" in wrong.stderr


def test_the_policy_to_begin_with_says_how_differently_groups_may_be_treated(home: Path) -> None:
    for package, name in (
        ("watchkeeper.cli", "starter/policy.yaml"),
        ("watchkeeper.runtime", "default_policy.yaml"),
    ):
        (home / "policy.yaml").write_text((files(package) / name).read_text())
        assert "bias between groups: equalized odds 0.2" in run("check").stdout


DOUBTFUL = """version: 1
rules:
  - {name: rest, match: {tools: ["disk.*", "config.*", "job.*", "process.*", service.start]}, decision: ask}
  - name: webs
    match:
      tools: [service.restart]
      hosts:
        rle: web
    decision: ask
  - {name: stores, match: {tools: [service.stop], hosts: {role: stor}}, decision: ask}
  - {name: both, match: {hosts: {role: web, rack: "7"}}, decision: deny}
  - name: db
    match: {tools: [service.*]}
    when: has(arguments.servce) && arguments["servce"] == "db"
    decision: deny
"""


def test_what_rules_speak_of_and_is_not_there_is_named_with_its_line(home: Path) -> None:
    (home / "policy.yaml").write_text(DOUBTFUL)
    (home / "inventory.yaml").write_text(INVENTORY.replace("{role: store}", '{role: store, rack: "7"}'))
    file = str(home / "policy.yaml")
    for strict in ((), ("--strict",)):
        shown = run("check", *strict, code=1 if strict else 0).stdout
        assert "all is well" not in shown.replace("not all is well", "")
        assert f"'{file}' line 8: rules.1.match.hosts.rle: rule 'webs'" in shown
        assert "no host has a label 'rle' (is 'role' meant?)" in shown
        assert "line 10: rules.2.match.hosts.role: rule 'stores': no host's label 'role' fits 'stor'" in shown
        assert "(is 'store' meant?)" in shown
        assert "rule 'both': each of these labels is there, but no host has all of them" in shown
        assert "line 14: rules.4.when: rule 'db': it reads arguments.servce, which none of its" in shown
        assert "(is 'service' meant?)" in shown
        assert ("--strict fails: " in shown) is bool(strict)
    told = json.loads(run("check", "--strict", "--json", code=1).stdout)
    assert [one["rule"] for one in told["doubts"]] == ["webs", "stores", "both", "db"]


def test_strict_says_why_it_fails(home: Path) -> None:
    (home / "policy.yaml").write_text(DOUBTFUL.split("  - {name: stores")[0].replace("rle", "role"))
    shown = run("check", "--strict", code=1).stdout
    assert "all is well" not in shown.replace("not all is well", "")
    assert "denied by default only, since no rule speaks of them:" in shown
    assert re.search(r"service.restart +store-1", shown)
    assert "--strict fails: 3 actions on hosts are denied by default only, and 0 parts of rules" in shown


def test_strict_does_not_pass_on_nothing(home: Path) -> None:
    (home / "inventory.yaml").write_text("hosts: []\n")
    assert "the inventory has no host" in run("check", "--strict", code=1).stdout
    assert run("check").exit_code == 0


def test_the_example_of_the_docs_does_what_the_docs_say(home: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    (home / "policy.yaml").write_text(next(block for block in blocks if block.startswith("version: 1")))
    (home / "cases.yaml").write_text(next(block for block in blocks if block.startswith("cases:")))
    (home / "inventory.yaml").write_text("hosts: [{name: web-1, labels: {environment: production}}]\n")
    assert "all is well" in run("check", "--strict").stdout
    assert "7 cases, 0 failed" in run("test", str(home / "cases.yaml")).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "{}",
            "service.start: service: missing; it takes service (see `watchkeeper tools show service.start`)",
        ),
        ('{"servce": "api"}', "servce: there is no such argument (is 'service' meant?); it takes service"),
    ],
)
def test_explain_says_which_arguments_there_are(home: Path, arguments: str, said: str) -> None:
    stderr = run("explain", "service.start", "web-1", "--arguments", arguments, code=2).stderr
    assert said in stderr
    assert """write it as --arguments '{"service": ...}'""" in stderr
