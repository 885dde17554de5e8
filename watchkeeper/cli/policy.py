"""``watchkeeper policy``: check rules, and ask what they say."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from watchkeeper.cli.records import Json, mistakes, plain, print_json, print_pairs, print_table, when

if TYPE_CHECKING:
    from watchkeeper.runtime.blast import BlastRadius
    from watchkeeper.runtime.policy import Policy
    from watchkeeper.runtime.policy_bias import Difference
    from watchkeeper.runtime.policy_coverage import Coverage
    from watchkeeper.runtime.settings import Settings
    from watchkeeper.tools.inventory import Inventory
    from watchkeeper.tools.registry import Registry

app = typer.Typer(no_args_is_help=True, help="Check a policy, and ask what it says.")


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="The policy (default: the one in use).", show_default=False)
    ] = None,
    *,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Fail if an action on a host is denied by default only, or a rule names what is not there.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a policy: its form, its examples, and whether it speaks of every action on every host."""
    with mistakes():
        from watchkeeper.runtime.policy_coverage import Covered, coverage
        from watchkeeper.runtime.policy_doubts import doubts
        from watchkeeper.runtime.policy_people import too_few_people
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.runtime.users import load_users
        from watchkeeper.tools.inventory import Inventory
        from watchkeeper.tools.plugins import load_registry

        settings = load_settings()
        registry = load_registry(settings.tools, settings.log_predictor)
        policy = _load(file, settings, registry)
        covered, inventory = None, None
        if strict or settings.inventory_path.exists():
            inventory = Inventory.load(settings.inventory_path)
            covered = coverage(policy, registry, inventory)
        few = too_few_people(policy, load_users(settings.home), registry, inventory)
        doubtful = doubts(policy, registry, inventory)
        gaps = [one for one in covered or () if one.covered is Covered.NEVER]
        sometimes = [one for one in covered or () if one.covered is Covered.SOMETIMES]
        ok = not (strict and (gaps or doubtful or not covered))
        if as_json:
            print_json(
                {
                    "ok": ok,
                    "digest": policy.digest,
                    "rules": [rule.model_dump(mode="json") for rule in policy.rules],
                    "decisions": None if covered is None else len(covered),
                    "bias": policy.bias.model_dump(mode="json"),
                    "doubts": [one.model_dump(mode="json") for one in doubtful],
                    "denied_by_default": [one.model_dump(mode="json") for one in gaps],
                    "too_few_people": [one.model_dump(mode="json") for one in few],
                    "depends": [one.model_dump(mode="json") for one in sometimes],
                }
            )
        else:
            examples = sum(len(r.examples.match) + len(r.examples.no_match) for r in policy.rules)
            well = "all is well" if ok and not doubtful else "not all is well, see below"
            typer.echo(
                f"{len(policy.rules)} rules, {examples} examples: {well} (digest {policy.digest[:16]})"
            )
            typer.echo(f"bias between groups: {plain(policy.bias.told())}")
            for name, limits in policy.bias.predictors.items():
                typer.echo(f"bias between groups of {plain(name)}: {plain(limits.told())}")
            for one in few:
                there = f"{one.there} have it" if one.there else "nobody has it"
                typer.echo(
                    f"note: rule {one.rule!r} (tier {one.tier}) waits for {one.wanted} users who are "
                    f"{one.role}, and {there}: add them with `watchkeeper users`"
                )
            for doubt in doubtful:
                typer.echo(f"doubt: {plain(doubt.place)}: rule {doubt.rule!r}: {plain(doubt.message)}")
            _tell_coverage(settings, covered, gaps, len(sometimes))
            if strict and not covered:
                typer.echo("--strict fails: the inventory has no host, so nothing was looked at")
            elif not ok:
                typer.echo(
                    f"--strict fails: {len(gaps)} actions on hosts are denied by default only, and "
                    f"{len(doubtful)} parts of rules speak of what is not there: add rules, or correct them"
                )
    if not ok:
        raise typer.Exit(1)


@app.command("test")
def try_cases(
    file: Annotated[Path, typer.Argument(help="Cases: actions, and what must be answered to them.")],
    policy_file: Annotated[
        Path | None, typer.Option("--file", help="The policy (default: the one in use).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask a policy about a table of cases of your own; ends with code 1 if one is answered otherwise."""
    with mistakes():
        from watchkeeper.runtime.policy_cases import Cases
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.tools.inventory import Inventory
        from watchkeeper.tools.plugins import load_registry

        settings = load_settings()
        registry = load_registry(settings.tools, settings.log_predictor)
        policy = _load(policy_file, settings, registry)
        verified = Cases(file).verify(policy, registry, Inventory.load(settings.inventory_path))
        failed = sum(bool(one.differences) for one in verified)
        if as_json:
            print_json(
                {
                    "ok": not failed,
                    "failed": failed,
                    "cases": [one.model_dump(mode="json") for one in verified],
                }
            )
        else:
            print_table(
                ("result", "decision", "tier", "rule", "case"),
                [
                    (
                        "FAILED" if one.differences else "ok",
                        one.decision.decision.value,
                        str(one.decision.tier) if one.decision.decision.value == "ask" else "-",
                        one.decision.rule,
                        one.case.title + "".join(f"; {difference}" for difference in one.differences),
                    )
                    for one in verified
                ],
                empty="no cases",
            )
            typer.echo(f"{len(verified)} cases, {failed} failed")
    if failed:
        raise typer.Exit(1)


@app.command()
def explain(
    action: Annotated[str, typer.Argument(help="Registered name, e.g. service.restart.")],
    host: Annotated[str, typer.Argument(help="A host of the inventory.")],
    arguments: Annotated[str, typer.Option(help="Arguments of the action, as JSON.")] = "{}",
    file: Annotated[Path | None, typer.Option("--file", help="The policy (default: the one in use).")] = None,
    severity: Annotated[
        Literal["normal", "warning", "critical"], typer.Option(help="Severity of the incident.")
    ] = "critical",
    actions_taken: Annotated[int, typer.Option(min=0, help="Actions taken for it before.")] = 0,
    diff_lines: Annotated[int, typer.Option(min=0, help="Lines of the plan's diff.")] = 1,
    at: Annotated[
        str | None, typer.Option(help="When, e.g. 2026-11-28T23:00+01:00 (default: now).", show_default=False)
    ] = None,
    requester: Annotated[
        str | None, typer.Option(help="Who wants it (default: you).", show_default=False)
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option(help="A role of who wants it; may be repeated.", show_default=False)
    ] = None,
    bias: Annotated[
        str,
        typer.Option(
            help='Differences between groups, as JSON: [{"column": "site", "low": 0.3, "high": 0.4}].'
        ),
    ] = "[]",
    as_json: Json = False,
) -> None:
    """Ask what a policy says about one action, and why: rules, windows, and what was touched lately."""
    with mistakes():
        from watchkeeper.runtime.errors import ConfigurationError
        from watchkeeper.runtime.people import current_person
        from watchkeeper.runtime.policy_bias import MeasuredBias
        from watchkeeper.runtime.policy_types import PolicyRequest
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.tools.errors import ArgumentError
        from watchkeeper.tools.findings import Severity
        from watchkeeper.tools.inventory import Inventory
        from watchkeeper.tools.plugins import load_registry
        from watchkeeper.tools.registry import parse
        from watchkeeper.tools.text import counted

        settings = load_settings()
        registry = load_registry(settings.tools, settings.log_predictor)
        tool = registry.action(action)
        inventory = Inventory.load(settings.inventory_path)
        spec = inventory.host(host)
        try:
            parsed = parse(tool, _parse_json(arguments))
        except ArgumentError as error:
            needed = [name for name, one in tool.arguments_type.model_fields.items() if one.is_required()]
            written = ", ".join(f'"{name}": ...' for name in needed)
            raise ConfigurationError(f"{error}: write it as --arguments '{{{written}}}'") from error
        given = parsed.model_dump(mode="json")
        policy, moment = _load(file, settings, registry), _moment(at)
        decision = policy.decide(
            PolicyRequest(
                action=tool.name,
                version=tool.version,
                reversibility=tool.reversibility,
                arguments=given,
                host=spec.name,
                labels=spec.labels,
                requester=requester or current_person(),
                requester_roles=tuple(role or ()),
                now=moment,
                diff_lines=diff_lines,
                severity=Severity(severity),
                actions_taken=actions_taken,
                blast=_touched(settings, inventory, policy, moment),
                bias=MeasuredBias.given(_parse_bias(bias), given),
            )
        )
        if as_json:
            print_json(decision)
            return
        asks = decision.decision.value == "ask"
        print_pairs(
            [
                ("decision", decision.decision.value),
                ("tier", str(decision.tier) if asks else ""),
                ("people", str(decision.quorum) if asks else ""),
                ("rule", decision.rule),
                ("reason", decision.reason),
                ("at", f"{when(moment)} UTC"),
            ]
        )
        for said in decision.trace:
            typer.echo(f"  {said.rule}: {said.outcome}" + (f" ({plain(said.detail)})" if said.detail else ""))
        for name, is_open in decision.windows.items():
            typer.echo(f"  window {name}: {'open' if is_open else 'closed'}")
        for span, reach in decision.blast.items():
            typer.echo(
                f"  within {span}, with this action: {counted(reach.hosts, 'host')}, "
                f"{reach.share:.1%} of the fleet, {counted(reach.actions, 'action')}"
            )


def _tell_coverage(
    settings: Settings, covered: tuple[Coverage, ...] | None, gaps: list[Coverage], depends: int
) -> None:
    if covered is None:
        typer.echo(f"there is no inventory at {str(settings.inventory_path)!r}: nothing is said about hosts")
        return
    if gaps:
        typer.echo("denied by default only, since no rule speaks of them:")
        print_table(("action", "host"), [(one.action, one.host) for one in gaps], empty="")
    typer.echo(
        f"{len(covered)} actions on hosts: {len(gaps)} denied by default only, {depends} depending on "
        "arguments or the moment"
    )


def _moment(text: str | None) -> datetime:
    from watchkeeper.runtime.clock import utc_now
    from watchkeeper.runtime.errors import ConfigurationError

    if text is None:
        return utc_now()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"--at {text!r} is not a moment: write it as 2026-11-28T23:00+01:00"
        ) from error
    if moment.tzinfo is None:
        raise ConfigurationError(f"--at {text!r} has no offset: write it as {text}+01:00, or {text}Z for UTC")
    return moment.astimezone(UTC)


def _touched(settings: Settings, inventory: Inventory, policy: Policy, moment: datetime) -> BlastRadius:
    """Read what effects touched before a moment; a store that is not there is not made."""
    from watchkeeper.runtime.approvals import Approvals
    from watchkeeper.runtime.blast import BlastRadius
    from watchkeeper.runtime.ledger import Ledger
    from watchkeeper.runtime.store import Store

    fleet = {spec.name: spec.labels for spec in inventory}
    place = settings.store_place
    if policy.looks_back is None or (isinstance(place, Path) and not place.exists()):
        return BlastRadius(fleet=fleet)
    with Store(place) as store:
        touches = Ledger(store, Approvals(store)).touches(moment - policy.looks_back)
    return BlastRadius(touches=tuple(touch for touch in touches if touch.at <= moment), fleet=fleet)


def _parse_json(text: str) -> dict[str, Any]:
    from watchkeeper.runtime.errors import ConfigurationError

    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"--arguments is not JSON: {error} (got {text!r:.80})") from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"--arguments must be a JSON object (got {text!r:.80})")
    return value


def _parse_bias(text: str) -> tuple[Difference, ...]:
    from pydantic import TypeAdapter, ValidationError

    from watchkeeper.runtime.errors import ConfigurationError
    from watchkeeper.runtime.policy_bias import Difference

    try:
        return TypeAdapter(tuple[Difference, ...]).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise ConfigurationError(
            f"--bias holds no differences between groups: {where}{first['msg']} (got {text!r:.80})"
        ) from error


def _load(file: Path | None, settings: Settings, registry: Registry) -> Policy:
    from watchkeeper.runtime.policy import Policy

    path = file or settings.policy_path
    return Policy.load(path, registry) if path else Policy.default(registry)
