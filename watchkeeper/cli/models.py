"""`watchkeeper models`: the language models on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchkeeper.cli import models_adapters, models_bench, models_calibrate, models_serve, models_tune
from watchkeeper.cli.output import (
    INTERRUPTED,
    fail,
    human_bytes,
    print_json,
    progress_view,
    stderr_console,
)
from watchkeeper.cli.records import print_pairs, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from watchkeeper.models.catalog import CatalogEntry

app = typer.Typer(
    no_args_is_help=True, help="List, pull, measure, calibrate, tune and serve language models."
)
models_serve.register(app)
app.command()(models_calibrate.calibrate)
app.command()(models_tune.tune)
app.command()(models_bench.bench)
app.add_typer(models_adapters.app, name="adapters")

Id = Annotated[
    str,
    typer.Argument(metavar="ID", help="Id of the catalog, a folder, or owner/name@commit of the Hub."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the models of the catalog, and what is installed."""
    from watchkeeper.models.catalog import CATALOG

    rows = [_describe(entry) for entry in CATALOG]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("ID", "INSTALLED", "ON DISK", "DOWNLOAD", "GOOD FOR"),
        [
            (
                entry.id,
                "yes" if row["installed"] else "no",
                human_bytes(row["bytes_on_disk"]) if row["bytes_on_disk"] else "",
                human_bytes(entry.file.size) if entry.file else "",
                entry.description,
            )
            for entry, row in zip(CATALOG, rows, strict=True)
        ],
        empty="no models",
    )


@app.command()
def info(model_id: Id, as_json: Json = False) -> None:
    """Show one model: where it comes from, what its publisher signed, where it lies."""
    from watchkeeper.models.catalog import find_model

    described = _describe(find_model(model_id))
    if as_json:
        print_json(described)
        return
    size, disk = described["size"], described["bytes_on_disk"]
    print_pairs(
        [
            ("id", described["id"]),
            ("good for", described["description"]),
            ("family", described["family"] or ""),
            ("licence", described["licence"] or ""),
            ("parameters", f"{described['parameters']:,}" if described["parameters"] else ""),
            ("context", f"{described['context_length']:,} tokens" if described["context_length"] else ""),
            ("weights", f"{described['file']}, {human_bytes(size)}" if size else ""),
            ("SHA-256", described["sha256"] or ""),
            ("from", "\n".join(described["sources"])),
            ("installed", "yes" if described["installed"] else "no: watchkeeper models pull " + model_id),
            ("folder", described["folder"]),
            ("on disk", human_bytes(disk) if disk else ""),
        ]
    )


@app.command()
def pull(
    model_id: Id,
    folder: Annotated[
        Path | None, typer.Option("--from", metavar="FOLDER", help="Look in this folder first.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch a model, check it, and make it ready to load; can be interrupted and continued."""
    console = stderr_console()
    _pull(model_id, folder, console)
    from watchkeeper.models.catalog import find_model

    entry = find_model(model_id)
    if as_json:
        print_json(_describe(entry))
    else:
        typer.echo(f"{entry.id} is ready in {_folder(entry)}", err=True)


@app.command()
def verify(model_id: Id, as_json: Json = False) -> None:
    """Hash every file of an installed model and compare with what was installed."""
    from watchkeeper.models.catalog import find_model
    from watchkeeper.models.store import verify_installed

    entry = find_model(model_id)
    with progress_view(stderr_console()) as report:
        installed = verify_installed(entry, progress=report)
    if as_json:
        print_json({"id": entry.id, "ok": True, "sha256": installed.digest, "folder": str(installed.folder)})
    else:
        typer.echo(f"{entry.id} is whole; its published weights have SHA-256 {installed.digest}")


@app.command()
def remove(model_id: Id, as_json: Json = False) -> None:
    """Remove a model from this machine, with anything an unfinished pull left."""
    from watchkeeper.models.pulling import remove as remove_model

    freed = remove_model(model_id)
    if as_json:
        print_json({"id": model_id, "freed_bytes": freed})
    else:
        typer.echo(f"removed {model_id}: {human_bytes(freed)} freed")


def ensure_pulled(model_id: str | None, console: Console) -> None:
    """Pull a model unless it is on this machine, or an endpoint serves it.

    Args:
        model_id: Its id; the default model where ``None``.
        console: Where progress is shown.

    Raises:
        ModelError: If it is unknown, or cannot be had.
    """
    from watchkeeper.models.catalog import DEFAULT_MODEL, find_model
    from watchkeeper.models.endpoint import is_endpoint
    from watchkeeper.models.store import is_installed

    chosen = model_id or DEFAULT_MODEL
    if is_endpoint(chosen):
        return
    entry = find_model(chosen)
    if is_installed(entry):
        return
    said = f"the model {chosen} is not in {_folder(entry).parent} yet and is pulled once"
    console.print(said, highlight=False, markup=False)
    _pull(chosen, None, console)


def _pull(model_id: str, folder: Path | None, console: Console) -> None:
    from watchkeeper.models.pulling import pull as pull_model

    try:
        with progress_view(console) as report:
            pull_model(model_id, folder=folder, progress=report)
    except KeyboardInterrupt:
        fail(
            f"stopped; what was fetched is kept: 'watchkeeper models pull {model_id}' continues", INTERRUPTED
        )


def _folder(entry: CatalogEntry) -> Path:
    from watchkeeper.models.store import model_folder

    return entry.folder if entry.folder is not None else model_folder(entry)


def _describe(entry: CatalogEntry) -> dict[str, Any]:
    from watchkeeper.models.store import is_installed

    folder = _folder(entry)
    installed = is_installed(entry)
    sources = []
    if entry.hub:
        sources.append(f"hub {entry.hub.repository}@{entry.hub.revision}")
    if entry.index_parts:
        first, last = entry.index_parts[0], entry.index_parts[-1]
        names = first.package if first == last else f"{first.package} to {last.package}"
        pieces = "" if first == last else " (pieces of the same file)"
        sources.append(f"package index: {names} {first.version}{pieces}")
    return {
        "id": entry.id,
        "description": entry.description,
        "family": entry.family,
        "licence": entry.licence,
        "parameters": entry.parameters,
        "context_length": entry.context_length,
        "file": entry.file.name if entry.file else None,
        "size": entry.file.size if entry.file else None,
        "sha256": entry.file.sha256 if entry.file else None,
        "sources": sources,
        "installed": installed,
        "folder": str(folder),
        "bytes_on_disk": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    }
