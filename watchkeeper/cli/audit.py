"""``watchkeeper audit``: what was done, and whether that record is as it was written."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.identity import AskToken, permitted_person
from watchkeeper.cli.moments import given, moment
from watchkeeper.cli.records import Json, count_of, mistakes, plain, print_json, upper, when

if TYPE_CHECKING:
    from watchkeeper.runtime.audit import AuditLog
    from watchkeeper.runtime.audit_records import AuditEntry, AuditProblem, AuditReport

app = typer.Typer(no_args_is_help=True, help="Read, check, export and shorten the audit log.")

_SHOWN = 20
Since = Annotated[
    str | None, typer.Option(metavar="MOMENT", help="From then on: 2026-11-01, 2026-11-01T12:30 or 7d.")
]
Until = Annotated[str | None, typer.Option(metavar="MOMENT", help="Before then.")]


@app.command()
def verify(
    file: Annotated[
        Path | None, typer.Argument(metavar="EXPORT", help="A file of `audit export`: needs no home.")
    ] = None,
    key: Annotated[
        str, typer.Option(metavar="SHA256", help="With EXPORT: the key that must have signed it.")
    ] = "",
    anchors: Annotated[
        Path | None, typer.Option("--anchor", help="Compare it with what was anchored in this folder too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every hash, number and signature; ends with code 1 if anything was changed."""
    with mistakes():
        if file is not None and anchors is not None:
            raise typer.BadParameter("--anchor belongs to the log itself, not to an export")
        if file is not None:
            _verify_export(file, key, as_json)
            return
        if key:
            raise typer.BadParameter("--key belongs to an export: name its file")
        log = _log()
        report = log.verify()
        if anchors is not None:
            report = _compared(log, report, anchors)
        if as_json:
            print_json(report)
        else:
            state = "sound" if report.ok else "CHANGED"
            entries = count_of(report.entries, "entry", "entries")
            dropped = f", {report.pruned} exported and dropped" if report.pruned else ""
            typer.echo(f"{log.path}: {state}, {entries}, {report.signed} signed{dropped}")
            if anchors is not None:
                typer.echo(f"compared with {count_of(report.anchors, 'anchor')} in {anchors}")
            if report.key:
                typer.echo(f"key SHA-256 {report.key} (compare it with your own copy)")
            for note in report.notes:
                typer.echo(f"note: {note}")
            _tell(report.problems)
        if not report.ok:
            raise typer.Exit(1)


@app.command()
def anchor(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of an account that agents do not run as.")
    ],
    as_json: Json = False,
) -> None:
    """Keep the newest checkpoint in a folder that agents cannot write, to compare the log with later."""
    with mistakes():
        from watchkeeper.runtime.audit_anchor import anchor as keep

        kept = keep(_log(), folder)
        if as_json:
            print_json(kept)
            return
        typer.echo(
            f"{folder}: {count_of(kept.count, 'entry', 'entries')} anchored by "
            f"{count_of(kept.checkpoints, 'checkpoint')}" + ("" if kept.fresh else ", nothing new")
        )
        if kept.begun:
            typer.echo(
                f"NO ANCHORS WERE IN {folder}: this is the first, and the log was compared with nothing",
                err=True,
            )
        typer.echo(f"key SHA-256 {kept.key}")


@app.command()
def show(
    last: Annotated[
        int | None,
        typer.Option(
            "--last", "-n", min=1, help="The last so many entries (20, where nothing is asked for)."
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    incident: Annotated[
        str | None, typer.Option(metavar="INCIDENT", callback=upper, help="Only what is about it.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind.")] = None,
    as_json: Json = False,
) -> None:
    """Show entries in words, page by page on a terminal."""
    with mistakes():
        start, end = moment(since), moment(until)
        asked = any(value is not None for value in (since, until, incident, kind))
        limit = last or (None if asked else _SHOWN)
        log = _log()
        entries = (
            entry
            for entry in log.entries()
            if kind in {None, entry.kind}
            and (start is None or entry.at >= start)
            and (end is None or entry.at < end)
            and (incident is None or _is_about(entry, incident))
        )
        found = deque(entries, maxlen=limit)
        if not found:
            _say_what_is_not_there(log, incident, kind)
        if as_json:
            print_json(tuple(found))
            return
        _page(_line(entry) for entry in found)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Written whole or not at all.")],
    since: Since = None,
    until: Until = None,
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Write entries as JSON lines with a signed manifest; `audit verify FILE` checks it anywhere."""
    with mistakes():
        from watchkeeper.runtime.audit_export import export_log
        from watchkeeper.runtime.roles import Permission

        home, start, end = _home(), moment(since), moment(until)
        what = "export the audit log"
        person = permitted_person(home, Permission.EXPORT_AUDIT, what, ask_token=ask_token)
        log = _log()
        manifest = export_log(log, file, by=person.name, since=start, until=end)
        log.append(
            "audit-exported",
            {
                "by": person.name,
                "known_by": person.proof.value,
                "first": manifest.first,
                "last": manifest.last,
                "sha256": manifest.sha256,
            },
        )
        if as_json:
            print_json(manifest)
            return
        typer.echo(f"{file}: entries {manifest.first} to {manifest.last}, signed with key {manifest.key}")


@app.command()
def prune(
    before: Annotated[
        str, typer.Option(metavar="MOMENT", help="Entries before then are dropped: 2026-01-01 or 365d.")
    ],
    file: Annotated[Path, typer.Option("--export", metavar="FILE", help="Where they are exported to first.")],
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Export old entries and drop them; the log stays verifiable, and says who dropped what."""
    with mistakes():
        from watchkeeper.runtime.audit_prune import prune_log
        from watchkeeper.runtime.roles import Permission

        limit = given(before)
        what = "drop entries of the audit log"
        person = permitted_person(_home(), Permission.PRUNE, what, ask_token=ask_token)
        told = prune_log(_log(), before=limit, export=file, by=person.name)
        if as_json:
            print_json(told)
            return
        typer.echo(f"entries 1 to {told.count} are dropped; {file} holds them (SHA-256 {told.export})")


def _home() -> Path:
    from watchkeeper.runtime.settings import load_settings

    return load_settings().home


def _log() -> AuditLog:
    from watchkeeper.runtime.audit import AuditLog

    return AuditLog(_home())


def _compared(log: AuditLog, report: AuditReport, folder: Path) -> AuditReport:
    """Compare a log with the anchors of a folder, and add what is found to its report."""
    from watchkeeper.runtime.audit_anchor import check_anchors, count_anchors, restored_since

    count = count_anchors(folder)
    problems = (*report.problems, *check_anchors(log, folder))
    why = restored_since(log, folder, problems) if problems else ""
    notes = (*report.notes, why) if why else report.notes
    found = {"ok": not problems, "anchors": count, "problems": problems, "notes": notes}
    return report.model_copy(update=found)


def _verify_export(file: Path, key: str, as_json: bool) -> None:
    from watchkeeper.runtime.audit_export import verify_export

    report = verify_export(file, key=key)
    if as_json:
        print_json(report)
    else:
        manifest = report.manifest
        held = f", entries {manifest.first} to {manifest.last}" if manifest else ""
        typer.echo(f"{file}: {'sound' if report.ok else 'CHANGED'}{held}")
        if manifest:
            typer.echo(f"key SHA-256 {manifest.key} (compare it with your own copy)")
        _tell(report.problems)
    if not report.ok:
        raise typer.Exit(1)


def _tell(problems: Iterable[AuditProblem]) -> None:
    for problem in problems:
        typer.echo(f"problem: {problem.file} line {problem.line}: {problem.what}", err=True)


def _is_about(entry: AuditEntry, incident: str) -> bool:
    data = entry.data if isinstance(entry.data, dict) else {}
    incidents = data.get("incidents")
    return data.get("incident_id") == incident or (isinstance(incidents, list) and incident in incidents)


def _say_what_is_not_there(log: AuditLog, incident: str | None, kind: str | None) -> None:
    """Note a kind or an incident of which the whole log has no entry: a slip of the pen, perhaps."""
    kinds = sorted({entry.kind for entry in log.entries()})
    if kind is not None and kind not in kinds:
        near = get_close_matches(kind, kinds, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(kinds) or 'none yet'}"
        typer.echo(f"note: no entry of this log is of kind {kind!r}: {hint}", err=True)
    if incident is not None and not any(_is_about(entry, incident) for entry in log.entries()):
        said = "other machines keep logs of their own, and what was pruned is in its export"
        typer.echo(f"note: no entry of this log is about {incident!r} ({said})", err=True)


def _page(lines: Iterator[str]) -> None:
    """Print lines, or put them through a pager where a terminal has no room for them."""
    shown = list(lines) or ["no entries"]
    if sys.stdout.isatty():
        from watchkeeper.cli.output import stdout_console

        if len(shown) > stdout_console().height:
            import click

            click.echo_via_pager("\n".join(shown) + "\n")
            return
    for line in shown:
        typer.echo(line)


def _line(entry: AuditEntry) -> str:
    return f"{entry.seq:>6}  {when(entry.at)}  {entry.kind}  {plain(' '.join(_words(entry).split()))[:300]}"


def _words(entry: AuditEntry) -> str:
    """Say what an entry tells: an event in its own words, anything else by its values."""
    from pydantic import ValidationError

    from watchkeeper.runtime.events import EVENT
    from watchkeeper.runtime.wording import describe_event

    values = entry.data if isinstance(entry.data, dict) else {"data": entry.data}
    try:
        event = EVENT.validate_python({**values, "kind": entry.kind})
    except ValidationError:
        pass
    else:
        if said := describe_event(event):
            return f"{event.incident_id} {said}"
    return ", ".join(f"{name}={value}" for name, value in values.items() if value not in ("", None))
