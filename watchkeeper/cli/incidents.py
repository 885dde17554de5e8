"""``watchkeeper incidents``: what happened, and where the work on it stands."""

from __future__ import annotations

from typing import Annotated

import typer

from watchkeeper.cli.identity import AskToken, permitted_person
from watchkeeper.cli.moments import given
from watchkeeper.cli.records import (
    Json,
    count_of,
    day,
    opened,
    plain,
    print_json,
    print_pairs,
    print_table,
    upper,
    when,
)

app = typer.Typer(no_args_is_help=True, help="Look at incidents.")

_NAMED = 20
"""Ids in one line; the rest is counted."""


@app.command("list")
def list_(
    live: Annotated[bool, typer.Option("--live", help="Only those with work left to do.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the newest first.")] = 50,
    as_json: Json = False,
) -> None:
    """List incidents, the newest first."""
    with opened() as (_, store):
        from watchkeeper.runtime.alerts import DEMO_LABEL
        from watchkeeper.runtime.incidents import Incidents

        found = Incidents(store).list(live=True if live else None, limit=limit)
        if as_json:
            print_json(found)
            return
        print_table(
            ("ID", "STATUS", "SEVERITY", "OPENED (UTC)", "HOST", "SERVICE", "TITLE"),
            [
                (
                    incident.id,
                    incident.status.value,
                    incident.severity.value,
                    day(incident.opened_at),
                    incident.alert.host,
                    incident.alert.service or "-",
                    incident.alert.title + (" (demo)" if DEMO_LABEL in incident.alert.labels else ""),
                )
                for incident in found
            ],
            empty="no incidents",
        )


@app.command()
def show(
    incident_id: Annotated[
        str, typer.Argument(metavar="INCIDENT", callback=upper, help="For example INC-7K3Q.")
    ],
    as_json: Json = False,
) -> None:
    """Show an incident with its evidence, steps and events."""
    with opened() as (_, store):
        from watchkeeper.runtime.incidents import Incidents
        from watchkeeper.runtime.steps import Steps
        from watchkeeper.runtime.wording import describe_event

        incidents = Incidents(store)
        incident = incidents.get(incident_id)
        evidence = incidents.evidence(incident_id)
        events = incidents.events(incident_id)
        steps = Steps(store).list(incident_id)
        if as_json:
            print_json(
                {
                    "incident": incident.model_dump(mode="json"),
                    "evidence": [item.model_dump(mode="json") for item in evidence],
                    "steps": [step.model_dump(mode="json") for step in steps],
                    "events": [event.model_dump(mode="json") for event in events],
                }
            )
            return
        print_pairs(
            [
                ("incident", incident.id),
                ("title", incident.alert.title),
                ("status", incident.status.value),
                ("severity", incident.severity.value),
                ("host", incident.alert.host),
                ("service", incident.alert.service or ""),
                ("labels", ", ".join(f"{name}={value}" for name, value in incident.alert.labels.items())),
                ("alerts", str(incident.alert_count)),
                ("opened", f"{when(incident.opened_at)} UTC"),
                ("ended", f"{when(incident.ended_at)} UTC" if incident.ended_at else ""),
                ("summary", incident.summary),
            ]
        )
        if evidence:
            typer.echo("\nEvidence")
        for item in evidence:
            typer.echo(
                f"  {item.id}  {item.fact} on {item.host}" + (f": {plain(item.error)}" if item.error else "")
            )
            for finding in item.findings:
                typer.echo(f"      {finding.severity.value}: {plain(finding.text)}")
        if steps:
            typer.echo("\nSteps")
        for step in steps:
            typer.echo(
                f"  {step.id}  {step.action} on {step.host}: {step.status.value}  {plain(step.detail)}"
            )
        typer.echo("\nEvents")
        for event in events:
            if said := " ".join(plain(describe_event(event)).split()):
                typer.echo(f"  {event.seq:>4}  {when(event.at)}  {said}")


@app.command()
def prune(
    before: Annotated[
        str, typer.Option(metavar="MOMENT", help="Those that ended before then: 2026-01-01 or 365d.")
    ],
    *,
    with_reviews: Annotated[
        bool, typer.Option("--with-reviews", help="Also where decisions were reviewed: export those first.")
    ] = False,
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Remove ended incidents from the store; reports and the audit log stay, and live ones always."""
    with opened() as (settings, store):
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.retention import prune_incidents
        from watchkeeper.runtime.roles import Permission

        limit, what = given(before), "remove incidents"
        person = permitted_person(settings.home, Permission.PRUNE, what, ask_token=ask_token)
        gone = prune_incidents(
            store,
            AuditLog(settings.home),
            home=settings.home,
            before=limit,
            by=person.name,
            limits=settings.limits,
            with_reviews=with_reviews,
        )
        if as_json:
            print_json(gone)
            return
        removed = ", ".join(f"{table} {count}" for table, count in gone.rows_of.items())
        typer.echo(
            f"{count_of(len(gone.incidents), 'incident')} removed, {count_of(gone.rows, 'row')}"
            + (f": {removed}" if removed else "")
        )
        for why, names in (
            ("an effect is in doubt", gone.kept_in_doubt),
            ("limits, breakers or loops may still count their actions", gone.kept_for_limits),
            ("people are still called about it (see `watchkeeper escalations list`)", gone.kept_for_calls),
            ("it has not ended", gone.kept_live),
            (f"it did not end before {when(limit)} UTC", gone.kept_younger),
        ):
            if names:
                more = f" and {len(names) - _NAMED} more (all with --json)" if len(names) > _NAMED else ""
                typer.echo(f"kept, since {why}: {', '.join(names[:_NAMED])}{more}")
