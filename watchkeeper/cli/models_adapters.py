"""`watchkeeper models adapters`: what was trained for this site, beside the model it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchkeeper.cli.output import human_bytes, print_json
from watchkeeper.cli.records import mistakes, print_table

if TYPE_CHECKING:
    from pydantic import JsonValue

    from watchkeeper.models.adapter_files import Adapter
    from watchkeeper.models.catalog import CatalogEntry

app = typer.Typer(no_args_is_help=True, help="List, add and remove LoRA adapters of a model.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="What requests call the adapter.")]
Model = Annotated[
    str | None, typer.Option("--model", metavar="ID", help="The model; the default one if left out.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command("list")
def list_adapters(model: Model = None, as_json: Json = False) -> None:
    """List the adapters of a model."""
    from watchkeeper.models.adapter_store import check_adapter, installed_adapters

    entry = _entry(model)
    found = [
        _describe(entry, check_adapter(entry, name, folder), folder)
        for name, folder in installed_adapters(entry).items()
    ]
    if as_json:
        print_json(found)
        return
    print_table(
        ("NAME", "LAYERS", "RANK", "MEMORY", "SHA-256"),
        [
            (row["name"], str(row["layers"]), str(row["rank"]), human_bytes(row["bytes"]), row["sha256"][:12])
            for row in found
        ],
        empty=f"{entry.id} has no adapters",
    )


@app.command()
def add(
    name: Name,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="What peft's save_pretrained wrote, as safetensors.")
    ],
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Check an adapter against its model and keep a copy of it."""
    from watchkeeper.models.adapter_store import adapters_folder, add_adapter

    entry = _entry(model)
    with _by(f"add adapter {name!r} to {entry.id}") as tell:
        added = add_adapter(entry, name, folder)
        tell("adapter-added", model=entry.id, adapter=name, sha256=added.digest)
    described = _describe(entry, added, adapters_folder(entry) / name)
    if as_json:
        print_json(described)
    else:
        typer.echo(
            f"added {name} to {entry.id}: {described['layers']} layers, rank {described['rank']}, "
            f"{human_bytes(described['bytes'])}"
        )


@app.command()
def remove(name: Name, model: Model = None, as_json: Json = False) -> None:
    """Remove an adapter from this machine."""
    from watchkeeper.models.adapter_store import remove_adapter

    entry = _entry(model)
    with _by(f"remove adapter {name!r} from {entry.id}") as tell:
        gone = remove_adapter(entry, name)
        tell("adapter-removed", model=entry.id, adapter=name)
    if as_json:
        print_json({"name": name, "model": entry.id, "folder": str(gone)})
    else:
        typer.echo(f"removed {name} from {entry.id}")


def _entry(model: str | None) -> CatalogEntry:
    from watchkeeper.models.catalog import DEFAULT_MODEL, find_model

    return find_model(model or DEFAULT_MODEL)


@contextmanager
def _by(what: str) -> Iterator[Callable[..., None]]:
    """Refuse it to who may not; yields what writes into the audit log that they did it."""
    from watchkeeper.cli.identity import permitted_person
    from watchkeeper.models.home import home_folder
    from watchkeeper.runtime.audit import AuditLog
    from watchkeeper.runtime.roles import Permission

    with mistakes():
        person = permitted_person(home_folder(), Permission.PROMOTE, what)

        def tell(kind: str, **data: JsonValue) -> None:
            who: dict[str, JsonValue] = {"by": person.name, "known_by": person.proof.value}
            AuditLog(home_folder()).append(kind, who | data)

        yield tell


def _describe(entry: CatalogEntry, adapter: Adapter, folder: Path) -> dict[str, Any]:
    from watchkeeper.models.shipped_adapters import is_shipped

    return {
        "name": adapter.name,
        "model": entry.id,
        "layers": len(adapter.layers),
        "rank": adapter.largest_rank,
        "bytes": adapter.nbytes,
        "sha256": adapter.digest,
        "folder": str(folder),
        "comes_with_watchkeeper": is_shipped(folder),
    }
