"""``watchkeeper audit``: what was done, and whether that record is as it was written."""

from __future__ import annotations

from typing import Annotated

import typer

from watchkeeper.cli.records import Json, mistakes, plain, print_json, when

app = typer.Typer(no_args_is_help=True, help="Check and read the audit log.")


@app.command()
def verify(as_json: Json = False) -> None:
    """Check every hash, number and signature; ends with code 1 if anything was changed."""
    with mistakes():
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.settings import load_settings

        log = AuditLog(load_settings().home)
        report = log.verify()
        if as_json:
            print_json(report)
        else:
            state = "sound" if report.ok else "CHANGED"
            typer.echo(f"{log.path}: {state}, {report.entries} entries, {report.signed} signed")
            if report.key:
                typer.echo(f"key SHA-256 {report.key} (compare it with your own copy)")
            for note in report.notes:
                typer.echo(f"note: {note}")
            for problem in report.problems:
                typer.echo(f"problem: {problem.file} line {problem.line}: {problem.what}", err=True)
        if not report.ok:
            raise typer.Exit(1)


@app.command()
def show(
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="The last so many entries.")] = 20,
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind.")] = None,
    as_json: Json = False,
) -> None:
    """Show the last entries."""
    with mistakes():
        from collections import deque

        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.settings import load_settings

        log = AuditLog(load_settings().home)
        found = deque((entry for entry in log.entries() if kind in {None, entry.kind}), maxlen=last)
        if as_json:
            print_json(tuple(found))
            return
        if not found:
            typer.echo("no entries")
        for entry in found:
            values = entry.data if isinstance(entry.data, dict) else {"data": entry.data}
            text = ", ".join(f"{name}={value}" for name, value in values.items() if value not in ("", None))
            typer.echo(
                f"{entry.seq:>6}  {when(entry.at)}  {entry.kind}  {plain(' '.join(text.split()))[:300]}"
            )
