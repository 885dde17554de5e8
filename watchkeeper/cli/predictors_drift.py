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

DRIFTED = 3
"""Exit code where a predictor is not as it was."""

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
        typer.Option(metavar="HOST", help="Submit an alert for this host when an episode begins."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare what a version is asked and answers with what it was; exit code 3 where it is not as it was."""
    with mistakes():
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.tools.predictors.rows import RowsFile
        from watchkeeper.tools.predictors.watching import changes, look, parted
        from watchkeeper.tools.versions import Versions

        settings = load_settings()
        version = Versions(settings.home, create=False).get(name, which)
        say_unwatched_streams()
        kept = predictions_of(settings)
        try:
            report = look(
                kept,
                version,
                last=last,
                reference=list(RowsFile.inspect(reference).read()) if reference else (),
                column=column,
                tolerance=tolerance,
            )
            first, newest = kept.ends(name, version.number, last=last)
        finally:
            kept.close()
        changed: tuple[Change, ...] = ()
        if stream:
            from watchkeeper.tools.predictors.drift import Adwin

            changed = changes(newest, Adwin, column=column or version.record.notes.label_column or None)
        if plot is not None:
            from watchkeeper.models.plots import write_plot
            from watchkeeper.tools.predictors.drift_plot import draw_drift, drift_lines

            before, recent = parted(first, newest)
            lines = drift_lines([*before, *recent], reference=len(before), window=max(1, len(newest) // 10))
            write_plot(plot, draw_drift(f"{name} version {version.number}", lines))
        incident = submitted(settings, report, alert_host) if alert_host else ""
    if as_json:
        print_json(
            {
                **report.model_dump(mode="json"),
                "changes": [change.model_dump(mode="json") for change in changed],
                "incident": incident or None,
            }
        )
    else:
        _tell(report)
        for change in changed:
            typer.echo(f"{change.stream} changed at {when(change.at)} UTC (prediction {change.prediction})")
        if incident:
            typer.echo(f"submitted {incident}")
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


def submitted(settings: Settings, report: DriftReport, host: str) -> str:
    """Submit an alert where an episode begins; return its incident."""
    from watchkeeper.runtime.clock import utc_now
    from watchkeeper.runtime.drift_alerts import DriftEpisodes
    from watchkeeper.runtime.incident_jobs import submit
    from watchkeeper.runtime.journal import Journal
    from watchkeeper.runtime.people import token_from_environment
    from watchkeeper.runtime.roles import Permission
    from watchkeeper.tools.inventory import Inventory
    from watchkeeper.tools.plugins import load_registry

    episodes = DriftEpisodes(settings.home)
    alert = episodes.alert(report, host=host)
    incident = ""
    if alert is not None:
        alert.check(Inventory.load(settings.inventory_path), load_registry(settings.tools))
        with Journal(settings.home, store=settings.store_place, solo=settings.solo) as journal:
            person = journal.people.at_terminal(token=token_from_environment())
            person.check(Permission.RUN, "have an incident handled")
            incident = submit(journal, alert, by=person.name).id
    episodes.told(report, utc_now())
    return incident


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
    if report.signals:
        typer.echo(f"\nnot as it was: {plain(', '.join(report.signals))}")
