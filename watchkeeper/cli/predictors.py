"""``watchkeeper predictors``: versions of trained models that are not language models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchkeeper.cli import (
    predictors_changes,
    predictors_drift,
    predictors_retrain,
    predictors_serve,
    predictors_watch,
)
from watchkeeper.cli.identity import AskToken, permitted_person
from watchkeeper.cli.records import Json, mistakes, print_json, print_pairs, print_table, when

if TYPE_CHECKING:
    from watchkeeper.runtime.lifecycle_scoring import Find
    from watchkeeper.tools.versions import Version, Versions
    from watchkeeper.tools.versions.records import JobRecord

app = typer.Typer(
    no_args_is_help=True, help="Look at versions of predictors, promote, serve and watch them, and ask them."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The predictor.")]
Which = Annotated[
    str,
    typer.Argument(metavar="VERSION", help="A number, an alias, or the beginning of a digest."),
]


def opened_versions(*, create: bool = False) -> Versions:
    """Open the versions of this user's home."""
    from watchkeeper.runtime.settings import load_settings
    from watchkeeper.tools.versions import Versions

    return Versions(load_settings().home, create=create)


@app.command("list")
def list_(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One predictor; default: all.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the versions of predictors, with what answers and how good each is on held-out data."""
    with mistakes():
        versions = opened_versions()
        names = versions.names() if name is None else (name,)
        looked_over = [versions.look_over(each) for each in names]
    found = [version for each, _ in looked_over for version in each]
    wrong = [one for _, each in looked_over for one in each]
    if as_json:
        print_json({"versions": [_described(version) for version in found], "damaged": wrong})
    elif found or not wrong:
        _print_versions(found)
    for one in wrong:
        typer.echo(f"damaged: {one}", err=True)
    if wrong:
        raise typer.Exit(1)


def _print_versions(found: Sequence[Version]) -> None:
    rows = [
        (
            version.name,
            str(version.number),
            ", ".join(version.aliases) or "-",
            _quality(version),
            when(version.record.registered_at),
            version.digest[:12],
            version.record.manifest.kind,
        )
        for version in found
    ]
    columns = ("PREDICTOR", "VERSION", "ALIASES", "QUALITY", "REGISTERED (UTC)", "DIGEST", "KIND")
    print_table(columns, rows, empty="no predictor is registered; see 'watchkeeper predictors register'")


@app.command()
def show(name: Name, which: Which = "champion", as_json: Json = False) -> None:
    """Show one version, its lineage, and every move of the predictor's aliases."""
    with mistakes():
        versions = opened_versions()
        version = versions.get(name, which)
        moves = versions.history(name)
    if as_json:
        print_json(
            {
                **_described(version),
                "record": version.record.model_dump(mode="json"),
                "history": [move.model_dump(mode="json") for move in moves],
            }
        )
        return
    record, job = version.record, version.record.job
    print_pairs(
        [
            ("predictor", version.name),
            ("version", str(version.number)),
            ("aliases", ", ".join(version.aliases)),
            ("digest", version.digest),
            ("kind", record.manifest.kind),
            ("trainer", record.manifest.trainer),
            ("quality", _quality(version)),
            ("learned from", f"{record.manifest.rows} rows, SHA-256 {record.manifest.data_sha256}"),
            ("parameters", ", ".join(f"{k}={v}" for k, v in record.manifest.parameters.items())),
            ("registered", f"{when(record.registered_at)} UTC"),
            ("job", job.id if job else ""),
            ("folder", str(version.folder)),
        ]
    )
    if moves:
        typer.echo("")
        print_table(
            ("MOVE", "AT (UTC)", "ALIAS", "FROM", "TO", "BY", "STATE", "REASON"),
            [
                (
                    str(move.number),
                    when(move.at),
                    move.alias,
                    str(move.before or "-"),
                    str(move.after or "-"),
                    move.by,
                    move.state.value,
                    move.reason or "-",
                )
                for move in moves
            ],
            empty="",
        )


@app.command()
def card(
    name: Name,
    which: Which = "champion",
    html: Annotated[bool, typer.Option("--html", help="Print the page, not the text.")] = False,
    path: Annotated[bool, typer.Option("--path", help="Print where the two files are.")] = False,
    as_json: Json = False,
) -> None:
    """Print the card of a version: data, quality by group, limits, explanations, lineage and energy."""
    with mistakes():
        from watchkeeper.tools.versions.cards import write_card

        markdown, page = write_card(opened_versions().get(name, which))
    if as_json:
        print_json({"markdown": str(markdown), "html": str(page), "text": markdown.read_text("utf-8")})
    elif path:
        typer.echo(f"{markdown}\n{page}")
    else:
        typer.echo((page if html else markdown).read_text("utf-8"), nl=False)


@app.command()
def register(
    name: Name,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A finished training job, or a folder with a predictor.")
    ],
    held_out: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Data that it did not learn from, to say how good it is."),
    ] = None,
    purpose: Annotated[str, typer.Option(help="What it is for; stands on its card.")] = "",
    limit: Annotated[
        list[str] | None, typer.Option(help="What it is not for; may be given several times.")
    ] = None,
    explanations: Annotated[str, typer.Option(help="How its answers are explained.")] = "",
    label_column: Annotated[
        str, typer.Option(help="Column of its answers that later labels are held against.")
    ] = "",
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Keep a predictor as a version; the same files are the same version. Nothing answers with it yet."""
    with mistakes():
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.roles import Permission
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.tools.predictors import read_manifest
        from watchkeeper.tools.versions import Notes
        from watchkeeper.tools.versions.compare import score

        home = load_settings().home
        person = permitted_person(
            home, Permission.RUN, f"register a version of {name}", ask_token=ask_token
        ).name
        folder, job = _source(source)
        read_manifest(folder)
        evaluation = score(folder, held_out, _finder(job)) if held_out is not None else None
        notes = Notes(
            purpose=purpose,
            limits=tuple(limit or ()),
            explanations=explanations,
            label_column=label_column,
        )
        version = opened_versions(create=True).register(name, folder, evaluation, job, notes)
        AuditLog(home).append(
            "predictor-registered",
            {"predictor": name, "version": version.number, "digest": version.digest, "by": person},
        )
    if as_json:
        print_json(_described(version))
        return
    typer.echo(f"version {version.number} of {name} ({version.digest[:12]}): {_quality(version)}")


@app.command()
def compare(
    name: Name,
    challenger: Annotated[
        str, typer.Argument(metavar="VERSION", help="The version that is to be better.")
    ] = "challenger",
    held_out: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Score both on these; default: as they were when registered."),
    ] = None,
    champion: Annotated[str, typer.Option(help="The version to be beaten.")] = "champion",
    as_json: Json = False,
) -> None:
    """Say whether a version is better than the champion, worse, or whether that is undecided."""
    with mistakes():
        from watchkeeper.tools.errors import VersionError
        from watchkeeper.tools.versions.compare import compare as compared
        from watchkeeper.tools.versions.compare import compare_on

        versions = opened_versions()
        before, after = versions.get(name, champion), versions.get(name, challenger)
        for version in (before, after):
            versions.check(version)
        if held_out is not None:
            found = compare_on(held_out, before.folder, after.folder, find=_finder(after.record.job))
        elif before.record.evaluation is None or after.record.evaluation is None:
            raise VersionError(f"versions of {name!r} were not evaluated: name data with --held-out")
        else:
            found = compared(before.record.evaluation, after.record.evaluation)
    if as_json:
        print_json(found)
        return
    print_table(
        ("METRIC", f"VERSION {before.number}", f"VERSION {after.number}"),
        [
            (metric, f"{found.champion[metric]:.4g}", f"{found.challenger[metric]:.4g}")
            for metric in found.champion
            if metric in found.challenger
        ],
        empty="no metric",
    )
    typer.echo(f"\nversion {after.number} is {found.verdict.value}: {found.reason}")


@app.command()
def predict(
    name: Name,
    source: Annotated[Path, typer.Argument(metavar="ROWS", help="A .csv or .jsonl file.")],
    target: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where answers go, .csv or .jsonl.")
    ],
    which: Annotated[str, typer.Option("--version", help="A number, an alias or a digest.")] = "champion",
    part: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows that are answered together.")] = 1000,
    text: Annotated[
        list[str] | None,
        typer.Option(help="Column of a CSV file that holds texts, whatever they look like; repeatable."),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget what a run that was cut off has answered.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Answer a file of rows; a run that was cut off goes on, and no row is answered twice or lost."""
    from watchkeeper.cli.output import progress_view, stderr_console

    with mistakes():
        from watchkeeper.tools.predictors.batch import predict_file

        version, predictor = opened_versions().open(name, which)
        label = f"answering with version {version.number} of {name}"
        with progress_view(stderr_console()) as report:
            done = predict_file(
                predictor,
                source,
                target,
                version=f"{name} version {version.number}",
                digest=version.digest,
                part_rows=part,
                text=text or (),
                restart=restart,
                progress=lambda at, of: report(f"{label}: {at} of {of} rows", at, of),
            )
    if as_json:
        print_json({**done.model_dump(mode="json"), "predictor": name, "version": version.number})
        return
    resumed = f", {done.resumed} of them by an earlier run" if done.resumed else ""
    typer.echo(f"{target}: {done.rows} rows answered by version {version.number} of {name}{resumed}")


def _source(source: str) -> tuple[Path, Any]:
    """Return the folder of a predictor, and the record of the job that made it."""
    if Path(source).is_dir():
        return Path(source), None
    from watchkeeper.cli.records import opened
    from watchkeeper.runtime.audit import AuditLog
    from watchkeeper.runtime.job_lineage import job_record
    from watchkeeper.runtime.training import TrainingJobs
    from watchkeeper.tools.errors import ArtefactError

    with opened() as (settings, store):
        jobs = TrainingJobs(store, settings.home, AuditLog(settings.home))
        job = jobs.find(source.upper())
        if job is None:
            raise ArtefactError(f"{source!r} is neither a folder nor a training job")
        folder = jobs.folder(job.id)
        return folder.artefacts, job_record(job, folder, cpu_watts=settings.cpu_watts)


def _finder(job: JobRecord | None) -> Find:
    """Return what finds trainers, those of the job's own modules too."""
    from watchkeeper.runtime.job_lineage import spec_of
    from watchkeeper.runtime.lifecycle_scoring import finder_of
    from watchkeeper.tools.training import trainer_of

    spec = spec_of(job)
    return trainer_of if spec is None else finder_of(spec)


def _described(version: Version) -> dict[str, Any]:
    evaluation = version.record.evaluation
    return {
        "predictor": version.name,
        "version": version.number,
        "aliases": list(version.aliases),
        "digest": version.digest,
        "kind": version.record.manifest.kind,
        "primary": evaluation.primary if evaluation else None,
        "quality": version.quality,
        "metrics": evaluation.metrics if evaluation else {},
        "registered_at": version.record.registered_at.isoformat(),
        "folder": str(version.folder),
    }


def _quality(version: Version) -> str:
    evaluation = version.record.evaluation
    if evaluation is None or version.quality is None:
        return "not evaluated"
    return f"{evaluation.primary} {version.quality:.4g} ({evaluation.rows} rows)"


predictors_changes.register(app)
predictors_serve.register(app)
predictors_drift.register(app)
predictors_retrain.register(app)
predictors_watch.register(app)
