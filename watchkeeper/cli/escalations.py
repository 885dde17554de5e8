"""``watchkeeper escalations``: who is called, and who said that they are on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.records import Json, mistakes, print_json, print_table, when

if TYPE_CHECKING:
    from datetime import datetime

    from watchkeeper.runtime.escalation_rules import EscalationRules

app = typer.Typer(no_args_is_help=True, help="Look at who is called, and say that you are on it.")

File = Annotated[Path | None, typer.Option("--file", help="The rules (default: those in use).")]


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="The rules (default: those in use).", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Check escalation rules: their form, their times and zones, and every name in them."""
    with mistakes():
        from watchkeeper.runtime.settings import load_settings

        settings = load_settings()
        rules = _load(file)
        answer = settings.approval_ttl_seconds
        late = {
            name: seconds
            for name, plan in rules.policies.items()
            if (seconds := plan.length.total_seconds()) > answer
        }
        if as_json:
            print_json({"ok": True, "rules": rules.model_dump(mode="json"), "later_than_questions": late})
            return
        typer.echo(
            f"{len(rules.policies)} policies, {len(rules.rotations)} rotations, {len(rules.people)} people: "
            "all is well"
        )
        for name, seconds in late.items():
            typer.echo(
                f"note: policy {name!r} takes {seconds:.0f} s to its end, but questions expire after "
                f"{answer:.0f} s (approval_ttl_seconds): its last levels are not called about them"
            )


@app.command()
def who(
    policy: Annotated[
        str | None, typer.Argument(help="Only this policy (default: all).", show_default=False)
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="When, such as 2026-12-24T09:00+01:00; now.")
    ] = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Say who would be called, level by level, if somebody were called now."""
    with mistakes():
        from watchkeeper.runtime.clock import utc_now
        from watchkeeper.runtime.oncall import first_level, on_call, people_of
        from watchkeeper.runtime.times import write_duration

        rules = _load(file)
        moment = utc_now() if at is None else _moment(at)
        names = [policy] if policy is not None else [*rules.policies] or [rules.default]
        plans = [(name, rules.policy(name)) for name in names]
        shifts = {name: on_call(rotation, moment) for name, rotation in rules.rotations.items()}
        if as_json:
            print_json(
                {
                    "at": moment.isoformat(),
                    "policies": {
                        name: {
                            "first_level": first_level(plan, moment),
                            "levels": [list(people_of(rules, level, moment)) for level in plan.levels],
                        }
                        for name, plan in plans
                    },
                    "rotations": {
                        name: {
                            "member": shift.member,
                            "since": shift.since.isoformat(),
                            "until": shift.until.isoformat(),
                            "override": shift.override,
                        }
                        for name, shift in shifts.items()
                    },
                }
            )
            return
        print_table(
            ("POLICY", "LEVEL", "FIRST", "WAIT", "CALLED"),
            [
                (
                    name,
                    str(number),
                    "yes" if number == first_level(plan, moment) else "",
                    (write_duration(level.wait) if level.wait else "-")
                    + (f" x{level.repeat + 1}" if level.repeat else ""),
                    ", ".join(people_of(rules, level, moment)),
                )
                for name, plan in plans
                for number, level in enumerate(plan.levels, start=1)
            ],
            empty="no policy",
        )
        if shifts:
            typer.echo("")
            print_table(
                ("ROTATION", "ON CALL", "SINCE (UTC)", "UNTIL (UTC)", "WHY"),
                [
                    (
                        name,
                        shift.member,
                        when(shift.since),
                        when(shift.until),
                        "override" if shift.override else "turn",
                    )
                    for name, shift in shifts.items()
                ],
                empty="no rotation",
            )


def _load(file: Path | None) -> EscalationRules:
    from watchkeeper.runtime.escalation_rules import EscalationRules
    from watchkeeper.runtime.settings import load_settings

    path = file or load_settings().escalation_path
    return EscalationRules.load(path) if path else EscalationRules()


def _moment(text: str) -> datetime:
    from watchkeeper.runtime.errors import ConfigurationError
    from watchkeeper.runtime.times import parse_moment

    try:
        moment = parse_moment(text)
        if moment.tzinfo is None:
            raise ValueError("it needs an offset, such as 2026-12-24T09:00+01:00, or Z for UTC")
        if not 1970 < moment.year < 2200:
            raise ValueError("a year from 1971 to 2199 is expected")
    except ValueError as error:
        raise ConfigurationError(f"--at {text!r}: {error}") from error
    return moment
