"""`watchkeeper init`: files to begin with."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import stat
from pathlib import Path
from typing import Annotated

import typer

from watchkeeper.cli.records import Json, print_json

FILES = ("inventory.yaml", "policy.yaml", "config.yaml", "escalation.yaml")

_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def init(
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: Json = False,
) -> None:
    """Write an inventory, a policy, a configuration and escalation rules; files that are there are kept."""
    from watchkeeper.models.home import home_folder

    home = home_folder()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    opened = _close(home)
    written: list[str] = []
    kept: list[str] = []
    for name in FILES:
        path = home / name
        (written if _write(path, starter(name), force=force) else kept).append(str(path))
    if as_json:
        print_json({"home": str(home), "written": written, "kept": kept, "closed": bool(opened)})
        return
    if opened:
        typer.echo(f"closed {home} to others (its mode was {opened})")
    for line in written:
        typer.echo(f"wrote {line}")
    for line in kept:
        typer.echo(f"kept {line} (--force replaces it)")
    typer.echo(f"next: describe your services in {home / FILES[0]},")
    typer.echo("then `watchkeeper doctor` and `watchkeeper policy check`")


def _close(home: Path) -> str:
    """Take a home of one's own from others' reach; the mode it had, where that let them.

    A folder that holds something else is left as it is: `watchkeeper doctor` says what is open.
    """
    there = home.stat()
    known = {*FILES, "models", "audit", "keys", "watchkeeper.db"}
    inside = {path.name for path in home.iterdir()}
    if not there.st_mode & 0o077 or there.st_uid != os.geteuid() or (inside and not inside & known):
        return ""
    with contextlib.suppress(OSError):
        home.chmod(stat.S_IMODE(there.st_mode) & ~0o077)
    return "" if home.stat().st_mode & 0o077 else f"{there.st_mode & 0o777:o}"


def starter(name: str) -> str:
    """Return the text of a file to begin with; the inventory names this machine."""
    from importlib.resources import files

    text = (files("watchkeeper.cli") / "starter" / name).read_text(encoding="utf-8")
    node = platform.node()
    return text.replace("this-host", node) if _HOST_NAME.fullmatch(node) else text


def _write(path: Path, text: str, *, force: bool) -> bool:
    """Write a file whole or not at all; whether it was written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if force:
            temporary.replace(path)
            return True
        try:
            # Unlike a rename, a link never takes the place of a file that somebody made a moment ago.
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        return True
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
