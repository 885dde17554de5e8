"""``watchkeeper doctor``: what is damaged or wrong here, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from watchkeeper.cli.records import Json, count_of, mistakes, plain, print_json


def doctor(
    home: Annotated[
        Path | None, typer.Option(help="Which home; default: Watchkeeper's.", show_default=False)
    ] = None,
    *,
    models: Annotated[
        bool, typer.Option("--models", help="Hash the files of all installed models, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look the home over and change nothing; ends with code 1 if anything is wrong."""
    with mistakes():
        from watchkeeper.models.home import home_folder
        from watchkeeper.runtime.doctor import examine

        place = (home or home_folder()).expanduser().absolute()
        found = examine(place, models=models)
        wrong = [item for item in found if item.wrong]
        if as_json:
            print_json(
                {"home": str(place), "ok": not wrong, "found": [f.model_dump(mode="json") for f in found]}
            )
        else:
            for item in found:
                typer.echo(f"{item.gravity.value}: {item.area}: {plain(item.place)} {plain(item.what)}")
                if item.advice:
                    typer.echo(f"    {plain(item.advice)}")
            typer.echo(f"{place}: {_judgement(len(wrong), len(found) - len(wrong))}")
        if wrong:
            raise typer.Exit(1)


def _judgement(wrong: int, notes: int) -> str:
    """Sum up what was found."""
    said = count_of(wrong, "thing is wrong", "things are wrong") if wrong else "all is well"
    return f"{said}, {count_of(notes, 'note')}" if notes else said
