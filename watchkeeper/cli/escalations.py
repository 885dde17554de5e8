"""``watchkeeper escalations``: who is called, and who said that they are on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchkeeper.cli.identity import AskToken, permitted_person
from watchkeeper.cli.records import (
    Json,
    count_of,
    day,
    mistakes,
    opened,
    print_json,
    print_pairs,
    print_table,
    upper,
    when,
)

if TYPE_CHECKING:
    from datetime import datetime

    from watchkeeper.runtime.escalation import Escalations
    from watchkeeper.runtime.escalation_rules import EscalationRules
    from watchkeeper.runtime.escalation_states import Escalation

app = typer.Typer(no_args_is_help=True, help="Look at who is called, and say that you are on it.")

Id = Annotated[str, typer.Argument(metavar="ESCALATION", callback=upper, help="For example ESC-7K3QW.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the timeline and the audit log.")]
File = Annotated[Path | None, typer.Option("--file", help="The rules (default: those in use).")]


_NOBODY_CALLS = "no process makes the call; `watchkeeper serve`, or a run, does, and it must keep running"


@app.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    incident: Annotated[str | None, typer.Option(callback=upper, help="Only those of this incident.")] = None,
    as_json: Json = False,
) -> None:
    """List the escalations that wait for somebody, or that somebody is on."""
    with _escalations() as escalations:
        found = escalations.list(live=None if all_ else True, incident_id=incident, limit=1000)
        now = escalations.now()
        if as_json:
            print_json({"escalations": [_summary(one) | {"overdue": one.is_overdue(now)} for one in found]})
            return
        print_table(
            ("ID", "STATUS", "INCIDENT", "LEVEL", "CALLED", "NEXT CALL (UTC)", "ABOUT"),
            [
                (
                    one.id,
                    one.status.value,
                    one.incident_id,
                    str(one.level),
                    one.acknowledged_by or ", ".join(one.called),
                    _next_call(one, now),
                    one.subject,
                )
                for one in found
            ],
            empty="no escalations" if all_ else "nobody is waited for",
        )
        if any(one.is_overdue(now) for one in found):
            typer.echo(f"overdue: {_NOBODY_CALLS}", err=True)


@app.command()
def show(escalation_id: Id, as_json: Json = False) -> None:
    """Show an escalation: whom it called, and what came of each notification."""
    with _escalations() as escalations:
        one = escalations.get(escalation_id)
        notifications = escalations.outbox.list(escalation_id)
        overdue = one.is_overdue(escalations.now())
        if as_json:
            told = [notification.model_dump(mode="json") for notification in notifications]
            print_json({**one.model_dump(mode="json"), "overdue": overdue, "notifications": told})
            return
        print_pairs(
            [
                ("escalation", one.id),
                ("about", one.subject),
                ("incident", one.incident_id),
                ("question", one.approval_id),
                ("status", one.status.value),
                ("policy", one.policy),
                ("level", f"{one.level} of {len(one.levels)}, call {one.step}"),
                ("called", ", ".join(one.called)),
                ("begun", f"{when(one.started_at)} UTC"),
                (
                    "next call",
                    f"{when(one.due_at)} UTC" + (f", OVERDUE: {_NOBODY_CALLS}" if overdue else "")
                    if one.due_at and not one.held_since
                    else "",
                ),
                ("expires", f"{when(one.ends_at)} UTC" if one.ends_at and not one.status.ended else ""),
                (
                    "on it",
                    f"{one.acknowledged_by} since {when(one.acknowledged_at)} UTC"
                    if one.acknowledged_by
                    else "",
                ),
                ("handed on", f"by {one.delegated_by}" if one.delegated_by else ""),
                (
                    "held",
                    f"since a restore at {when(one.held_since)} UTC: watchkeeper escalations release {one.id}"
                    if one.held_since
                    else "",
                ),
                ("ended", f"{when(one.ended_at)} UTC: {one.reason}" if one.ended_at else ""),
            ]
        )
        typer.echo("")
        print_table(
            ("NOTIFICATION", "TO", "BY", "STATUS", "TRIES", "AT (UTC)", "DETAIL"),
            [
                (
                    notification.id,
                    notification.recipient,
                    notification.channel,
                    notification.status.value,
                    str(notification.attempts),
                    when(notification.updated_at),
                    notification.detail,
                )
                for notification in notifications
            ],
            empty="nobody was to be told",
        )


@app.command()
def ack(escalation_id: Id, reason: Reason = "", ask_token: AskToken = False, as_json: Json = False) -> None:
    """Say that you are on it: nobody else is called. A question still wants its answer in time."""
    with _escalations() as escalations:
        by = _person(f"acknowledge {escalation_id}", ask_token=ask_token)
        now = escalations.acknowledge(escalation_id, by=by, reason=reason)
        if as_json:
            print_json(_summary(now))
            return
        ends = f"; its question expires at {when(now.ends_at)} UTC" if now.ends_at else ""
        typer.echo(f"{now.id}: {now.acknowledged_by} is on it{ends}")


@app.command()
def delegate(
    escalation_id: Id,
    to: Annotated[str, typer.Option("--to", metavar="PERSON", help="Who is called instead.")],
    reason: Reason = "",
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Hand a call to another person, who has the level's whole time."""
    with _escalations() as escalations:
        by = _person(f"hand on {escalation_id}", ask_token=ask_token)
        now = escalations.delegate(escalation_id, by=by, to=to, reason=reason)
        if as_json:
            print_json(_summary(now))
            return
        due = f"; the next call is due at {when(now.due_at)} UTC" if now.due_at else ""
        typer.echo(f"{now.id}: {to} is called next{due}; `watchkeeper serve`, or a run, sends what waits")


@app.command()
def release(escalation_id: Id, ask_token: AskToken = False, as_json: Json = False) -> None:
    """Send what a restore from a backup held, and go on calling people: say so where they were not told."""
    with opened() as (settings, store):
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.restoring_calls import release_calls
        from watchkeeper.runtime.roles import Permission

        what = f"release {escalation_id}"
        person = permitted_person(settings.home, Permission.RELEASE, what, ask_token=ask_token)
        now = release_calls(store, AuditLog(settings.home), escalation_id, by=person, at=store.now())
        if as_json:
            print_json(_summary(now))
            return
        typer.echo(f"{now.id}: released; `watchkeeper serve`, or a run, sends what waits")


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="The rules (default: those in use).", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Check escalation rules: their form, their times and zones, and every name in them."""
    with mistakes():
        from watchkeeper.runtime.escalation_users import roles_of_nobody
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.runtime.users import load_users

        settings = load_settings()
        rules, users = _load(file), load_users(settings.home)
        nobody = roles_of_nobody(rules, users)
        answer = settings.approval_ttl_seconds
        late = {
            name: seconds
            for name, plan in rules.policies.items()
            if (seconds := plan.length.total_seconds()) > answer
        }
        if as_json:
            print_json(
                {
                    "ok": True,
                    "rules": rules.model_dump(mode="json"),
                    "later_than_questions": late,
                    "roles_of_nobody": [list(one) for one in nobody],
                }
            )
            return
        held = (
            count_of(len(rules.policies), "policy", "policies"),
            count_of(len(rules.rotations), "rotation"),
            count_of(len(rules.people), "person", "people"),
        )
        typer.echo(f"{', '.join(held)}: all is well")
        for name, number, role in nobody:
            typer.echo(
                f"note: policy {name!r} level {number}: no user has the role {role!r}"
                + ("" if users else " (there is no users file)")
                + ": where nobody else is named, everyone at the terminal is called; see `watchkeeper users`"
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
        from watchkeeper.runtime.escalation_users import with_users
        from watchkeeper.runtime.oncall import first_level, on_call, people_of
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.runtime.times import write_duration
        from watchkeeper.runtime.users import load_users

        rules = with_users(_load(file), load_users(load_settings().home))
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


@contextmanager
def _escalations() -> Iterator[Escalations]:
    with opened() as (settings, store):
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.escalation import Escalations

        yield Escalations(store, AuditLog(settings.home))


def _person(what: str, *, ask_token: bool) -> str:
    """The name of whoever sits here, as far as it is proved, where they may do this."""
    from watchkeeper.runtime.roles import Permission
    from watchkeeper.runtime.settings import load_settings

    home = load_settings().home
    return permitted_person(home, Permission.ACKNOWLEDGE, what, ask_token=ask_token).name


def _next_call(escalation: Escalation, now: datetime) -> str:
    """When the next call is due, for a table."""
    if escalation.held_since:
        return "held"
    if escalation.due_at is None:
        return "-"
    return day(escalation.due_at) + (" overdue" if escalation.is_overdue(now) else "")


def _summary(escalation: Escalation) -> dict[str, Any]:
    """An escalation without the rules it goes by."""
    return escalation.model_dump(mode="json", exclude={"rules"})


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
