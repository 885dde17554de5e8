"""``watchkeeper policy``: check rules, and ask what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from watchkeeper.cli.records import Json, mistakes, plain, print_json, print_pairs

if TYPE_CHECKING:
    from watchkeeper.runtime.policy import Policy
    from watchkeeper.runtime.settings import Settings
    from watchkeeper.tools.registry import Registry

app = typer.Typer(no_args_is_help=True, help="Check a policy, and ask what it says.")


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="The policy (default: the one in use).", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a policy: its form, its conditions, its patterns and its examples."""
    with mistakes():
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.tools.builtin import builtin_registry

        policy = _load(file, load_settings(), builtin_registry())
        if as_json:
            print_json(
                {
                    "ok": True,
                    "digest": policy.digest,
                    "rules": [rule.model_dump(mode="json") for rule in policy.rules],
                }
            )
            return
        examples = sum(len(r.examples.match) + len(r.examples.no_match) for r in policy.rules)
        typer.echo(
            f"{len(policy.rules)} rules, {examples} examples: all is well (digest {policy.digest[:16]})"
        )


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
    as_json: Json = False,
) -> None:
    """Ask what a policy says about one action now, and why."""
    with mistakes():
        from watchkeeper.runtime.people import current_person
        from watchkeeper.runtime.policy_types import PolicyRequest
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.tools.builtin import builtin_registry
        from watchkeeper.tools.findings import Severity
        from watchkeeper.tools.inventory import Inventory
        from watchkeeper.tools.registry import parse

        settings, registry = load_settings(), builtin_registry()
        tool = registry.action(action)
        spec = Inventory.load(settings.inventory_path).host(host)
        parsed = parse(tool, _parse_json(arguments))
        decision = _load(file, settings, registry).decide(
            PolicyRequest(
                action=tool.name,
                version=tool.version,
                reversibility=tool.reversibility,
                arguments=parsed.model_dump(mode="json"),
                host=spec.name,
                labels=spec.labels,
                requester=current_person(),
                diff_lines=diff_lines,
                severity=Severity(severity),
                actions_taken=actions_taken,
            )
        )
        if as_json:
            print_json(decision)
            return
        print_pairs(
            [
                ("decision", decision.decision.value),
                ("tier", str(decision.tier) if decision.decision.value == "ask" else ""),
                ("rule", decision.rule),
                ("reason", decision.reason),
            ]
        )
        for said in decision.trace:
            typer.echo(f"  {said.rule}: {said.outcome}" + (f" ({plain(said.detail)})" if said.detail else ""))


def _parse_json(text: str) -> dict[str, Any]:
    from watchkeeper.runtime.errors import ConfigurationError

    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"--arguments is not JSON: {error} (got {text!r:.80})") from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"--arguments must be a JSON object (got {text!r:.80})")
    return value


def _load(file: Path | None, settings: Settings, registry: Registry) -> Policy:
    from watchkeeper.runtime.policy import Policy

    path = file or settings.policy_path
    return Policy.load(path, registry) if path else Policy.default(registry)
