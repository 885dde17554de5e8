"""`watchkeeper predictors drift` and `label`: whether predictors still do as well as when they were made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.identity import AskToken, permitted_person
from watchkeeper.cli.records import Json, mistakes, plain, print_json, print_table, when

if TYPE_CHECKING:
    from watchkeeper.runtime.settings import Settings
    from watchkeeper.tools.predictors.recording import Predictions
    from watchkeeper.tools.predictors.watching import Change, DriftReport

DRIFTED = 1
"""Exit code where a predictor is not as it was."""

_LOOKED_AT = 100
"""Newest predictions that say which columns hold texts, whatever a file of rows looks like."""

Name = Annotated[str, typer.Argument(metavar="NAME", help="The predictor.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `watchkeeper predictors`."""
    app.command()(drift)
    app.command()(label)


def drift(
    name: Name,
    which: Annotated[str, typer.Option("--version", help="A number, an alias or a digest.")] = "champion",
    last: Annotated[int, typer.Option(min=1, help="Newest predictions that are looked at.")] = 5000,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="ROWS", help="Rows to compare with; default: the first that it was asked."),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the answers that labels are held against.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="How far a number may be off.")] = 0.0,
    stream: Annotated[
        bool, typer.Option("--stream", help="Also tell where streams of answers changed (ADWIN).")
    ] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw drift over time (PNG).")] = None,
    alert_host: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Submit an alert for this host when a sign comes up."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare how a version does with how it did at first; exit code 1 where it is not as it was."""
    with mistakes():
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.tools.predictors.recording import ANSWERING
        from watchkeeper.tools.predictors.rows import RowsFile
        from watchkeeper.tools.predictors.watching import changes, look, parted
        from watchkeeper.tools.versions import Versions

        settings = load_settings()
        version = Versions(settings.home, create=False).get(name, which)
        say_unwatched_streams()
        kept = predictions_of(settings)
        try:
            asked = kept.list(name, version=version.number, last=_LOOKED_AT)
            texts = {column for one in asked for column, value in one.asked.items() if isinstance(value, str)}
            report = look(
                kept,
                version,
                last=last,
                reference=list(RowsFile.inspect(reference, text=sorted(texts)).read()) if reference else (),
                column=column,
                tolerance=tolerance,
            )
            first, newest = kept.ends(name, version.number, last=last)
            counts = kept.minutes(name, version=version.number, roles=ANSWERING, last=last) if plot else ()
        finally:
            kept.close()
        changed: tuple[Change, ...] = ()
        if stream:
            from watchkeeper.tools.predictors.drift import Adwin

            changed = changes(newest, Adwin, column=column or version.record.notes.label_column or None)
        if plot is not None:
            from watchkeeper.models.plots import write_plot
            from watchkeeper.tools.predictors.drift_plot import draw_drift, drift_lines, served_lines

            before, recent = parted(first, newest)
            window = max(1, len(newest) // 10)
            lines = drift_lines([*before, *recent], reference=len(before), window=window)
            times = served_lines([*before, *recent], counts, window=window)
            write_plot(plot, draw_drift(f"{name} version {version.number}", lines, times))
        incidents = submitted(settings, report, alert_host) if alert_host else ()
    if as_json:
        print_json(
            {
                **report.model_dump(mode="json"),
                "changes": [change.model_dump(mode="json") for change in changed],
                "incident": incidents[0] if incidents else None,
                "incidents": list(incidents),
            }
        )
    else:
        _tell(report)
        for change in changed:
            typer.echo(f"{change.stream} changed at {when(change.at)} UTC (prediction {change.prediction})")
        if incidents:
            typer.echo(f"submitted {', '.join(incidents)}")
    if report.signals:
        raise typer.Exit(DRIFTED)


def label(
    name: Name,
    source: Annotated[
        Path, typer.Argument(metavar="LABELS", help="A .csv or .jsonl file with the columns id and label.")
    ],
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Say what was right, by the ids of predictions; how often a version agrees is told by 'drift'."""
    with mistakes():
        from datetime import UTC, datetime

        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.roles import Permission
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.tools.errors import DataError
        from watchkeeper.tools.predictors.rows import RowsFile

        settings = load_settings()
        what = f"label predictions of {name}"
        person = permitted_person(settings.home, Permission.RUN, what, ask_token=ask_token).name
        labels = {}
        for number, row in enumerate(RowsFile.inspect(source, text=["id"]).read(), start=1):
            if not isinstance(row.get("id"), str) or "label" not in row:
                raise DataError(f"{str(source)!r} row {number}: it takes an id (a text) and a label")
            if row["label"] is None or row["label"] == "":
                raise DataError(
                    f"{str(source)!r} row {number}: the label is empty; leave out what nobody knows yet"
                )
            labels[str(row["id"])] = row["label"]
        kept = predictions_of(settings)
        unknown = kept.label(name, labels, datetime.now(UTC))
        kept.close()
        labelled = len(labels) - len(unknown)
        AuditLog(settings.home).append(
            "predictions-labelled", {"predictor": name, "labels": labelled, "by": person}
        )
    if as_json:
        print_json({"labelled": labelled, "unknown": list(unknown)})
        return
    typer.echo(f"{labelled} predictions of {name} have labels now")
    if unknown:
        shown = ", ".join(plain(one) for one in unknown[:5])
        typer.echo(f"no prediction is kept of {len(unknown)} ids: {shown}", err=True)


def predictions_of(settings: Settings) -> Predictions:
    """Open what was asked and answered."""
    from watchkeeper.tools.predictors.recording import FILE, Predictions
    from watchkeeper.tools.versions.versions import FOLDER

    return Predictions(settings.home / FOLDER / FILE)


def say_unwatched_streams() -> None:
    """Say where streams of labelled answers are not watched, since river is not installed."""
    from watchkeeper.tools.predictors.drift import streams_are_watched

    if not streams_are_watched():
        typer.echo(
            "streams of labelled answers are not watched (the rest is): pip install 'watchkeeper[drift]'",
            err=True,
        )


def submitted(settings: Settings, report: DriftReport, host: str) -> tuple[str, ...]:
    """Submit alerts of the signs that are new in an episode; return their incidents."""
    from watchkeeper.runtime.clock import utc_now
    from watchkeeper.runtime.drift_alerts import DriftEpisodes
    from watchkeeper.runtime.incident_jobs import submit
    from watchkeeper.runtime.journal import Journal
    from watchkeeper.runtime.people import token_from_environment
    from watchkeeper.runtime.roles import Permission
    from watchkeeper.tools.inventory import Inventory
    from watchkeeper.tools.plugins import load_registry

    episodes = DriftEpisodes(settings.home)
    alerts = episodes.alerts(report, host=host)
    incidents: tuple[str, ...] = ()
    if alerts:
        inventory, registry = Inventory.load(settings.inventory_path), load_registry(settings.tools)
        for alert in alerts:
            alert.check(inventory, registry)
        with Journal(settings.home, store=settings.store_place, solo=settings.solo) as journal:
            person = journal.people.at_terminal(token=token_from_environment())
            person.check(Permission.RUN, "have an incident handled")
            incidents = tuple(submit(journal, alert, by=person.name).id for alert in alerts)
    episodes.told(report, utc_now())
    return incidents


def _tell(report: DriftReport) -> None:
    typer.echo(
        f"{report.predictor} version {report.version}: {report.rows} predictions, {when(report.since)} to "
        f"{when(report.until)} UTC, compared with {report.reference_rows} rows\n"
    )
    rows = [
        (what, column, f"{one.psi:.4f}", f"{one.limit:.4f}", "shifted" if one.shifted else "as before")
        for what, columns in (("asked", report.columns), ("answered", report.answers))
        for column, one in columns.items()
    ]
    print_table(("WHAT", "COLUMN", "INDEX", "LIMIT", "SAYS"), rows, empty="too few predictions to say more")
    quality = report.quality
    if quality is not None:
        before = "not known" if quality.held_out is None else f"{quality.held_out:.1%}"
        typer.echo(
            f"\nlabels: {quality.labels}; right {quality.share:.1%} (95 % interval {quality.low:.1%} to "
            f"{quality.high:.1%}); on held-out data: {before}"
        )
    fall = report.fall
    if fall is not None:
        typer.echo(
            f"their stream changed at {when(fall.at)} UTC: right {fall.share:.1%} since, "
            f"{fall.before:.1%} before"
        )
    latency, failures = report.latency, report.failures
    if latency is not None:
        typer.echo(
            f"\n95 % of answers take up to {latency.now:.3g} s; at first: {latency.before:.3g} s "
            f"({latency.slow} of the newest {latency.batches} batches took too long)"
        )
    if failures is not None and failures.failed + failures.first_failed:
        first = f"{failures.first_failed} of {failures.first_rows}" if failures.first_rows else "not known"
        typer.echo(f"\nit failed at {failures.failed} of the newest {failures.rows} rows; at first: {first}")
    if report.signals:
        typer.echo(f"\nnot as it was: {plain(', '.join(report.signals))}")
