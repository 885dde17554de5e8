"""``watchkeeper reclaimed``: older content of logs that was moved away to free disk space."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.identity import AskToken, permitted_person
from watchkeeper.cli.records import Json, count_of, mistakes, print_json, print_table, upper, when

if TYPE_CHECKING:
    from watchkeeper.runtime.journal import Journal
    from watchkeeper.runtime.site import Site

app = typer.Typer(
    no_args_is_help=True, help="Look at what was moved away to free disk space, and let it go for good."
)

Inventory = Annotated[Path | None, typer.Option(help="The hosts (YAML).")]


@app.command("list")
def list_(inventory: Inventory = None, as_json: Json = False) -> None:
    """List what `disk.reclaim` moved away and nobody has let go, the oldest first."""
    from watchkeeper.runtime.reclaimed import list_reclaimed
    from watchkeeper.tools.text import size_text

    with _opened(inventory) as (site, journal):
        found = list_reclaimed(site, journal)
    if as_json:
        print_json(found)
        return
    print_table(
        ("STEP", "SINCE (UTC)", "SIZE", "LOGS", "FOLDER", "STAYS BECAUSE"),
        [
            (
                one.step,
                when(one.since),
                size_text(one.size),
                ", ".join(one.files) or "-",
                str(one.folder),
                one.kept or "-",
            )
            for one in found
        ],
        empty="nothing that was moved away is left",
    )


@app.command()
def release(
    step: Annotated[str, typer.Argument(metavar="STEP", callback=upper, help="The step that moved it away.")],
    inventory: Inventory = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit log.")] = "",
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Remove for good what a step moved away: it cannot be taken back any more."""
    from watchkeeper.models.home import home_folder
    from watchkeeper.runtime.reclaimed import release_reclaimed
    from watchkeeper.runtime.roles import Permission
    from watchkeeper.tools.text import size_text

    with mistakes():
        person = permitted_person(
            home_folder(), Permission.PRUNE, f"remove what {step} moved away", ask_token=ask_token
        ).name
    with _opened(inventory) as (site, journal):
        gone = release_reclaimed(site, journal, step, by=person, reason=reason)
    if as_json:
        print_json(gone)
        return
    logs = count_of(len(gone.files), "log")
    typer.echo(f"{step}: the older content of {logs} ({size_text(gone.size)}) is gone, by {person}")


@contextmanager
def _opened(inventory: Path | None) -> Iterator[tuple[Site, Journal]]:
    from watchkeeper.runtime.journal import Journal
    from watchkeeper.runtime.settings import load_settings
    from watchkeeper.runtime.site import load_site

    with mistakes():
        settings = load_settings(inventory=inventory)
        with Journal(settings.home, store=settings.store_place, solo=settings.solo) as journal:
            yield load_site(settings), journal
