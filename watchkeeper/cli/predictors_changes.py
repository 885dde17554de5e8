"""`watchkeeper predictors promote` and `rollback`: which version answers, by a person's word."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.identity import AskToken, permitted_person
from watchkeeper.cli.output import fail
from watchkeeper.cli.records import Json, opened, plain, print_json

if TYPE_CHECKING:
    from pydantic import JsonValue

    from watchkeeper.tools.versions import Move

Name = Annotated[str, typer.Argument(metavar="NAME", help="The predictor.")]
Alias = Annotated[str, typer.Option(help="The alias that is moved.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in its history and the audit log.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `watchkeeper predictors`."""
    app.command()(promote)
    app.command()(rollback)


def promote(
    name: Name,
    which: Annotated[str, typer.Argument(metavar="VERSION", help="A number, an alias or a digest.")],
    alias: Alias = "champion",
    reason: Reason = "",
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Let an alias name a version: the champion answers, the challenger is to show that it is better.

    It shows how the metrics differ and asks at this terminal. Programs have agents do it, as the action
    predictor.promote, which goes through the policy.
    """
    with opened() as (settings, store):
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.halt import Halts
        from watchkeeper.runtime.roles import Permission
        from watchkeeper.tools.versions import Versions
        from watchkeeper.tools.versions.promotion import promotion_diff
        from watchkeeper.tools.versions.records import check_alias

        _check_reason(reason)
        what = f"promote a version of {name}"
        person = permitted_person(settings.home, Permission.PROMOTE, what, ask_token=ask_token).name
        audit = AuditLog(settings.home)
        Halts(store, audit).check()
        versions = Versions(settings.home, create=False)
        version = versions.get(name, which)
        versions.check(version)
        before = versions.aliases(name).get(check_alias(alias))
        if before == version.number:
            if as_json:
                print_json({"moved": False, "predictor": name, "alias": alias, "version": version.number})
            else:
                typer.echo(f"version {version.number} of {name} is its {alias} already")
            return
        typer.echo(plain(promotion_diff(versions, version, before, alias=alias)), err=True)
        _confirm(f"Let {alias} of {name} name version {version.number}?")
        Halts(store, audit).check()
        entry: dict[str, JsonValue] = {
            "predictor": name,
            "alias": alias,
            "before": before,
            "after": version.number,
            "digest": version.digest,
            "by": person,
            "reason": reason,
        }
        audit.append("predictor-promoting", entry)
        move = versions.promote(
            name,
            version.number,
            alias=alias,
            by=person,
            reason=reason,
            expected=before,
        )
        audit.append("predictor-promoted", {**entry, "move": move.number})
    _tell(move, as_json=as_json)


def rollback(
    name: Name,
    alias: Alias = "champion",
    reason: Reason = "",
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Take the last move of an alias back: it names again exactly what it named before."""
    with opened() as (settings, store):
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.halt import Halts
        from watchkeeper.runtime.roles import Permission
        from watchkeeper.tools.errors import VersionError
        from watchkeeper.tools.versions import Versions

        _check_reason(reason)
        what = f"take back a promotion of {name}"
        person = permitted_person(settings.home, Permission.PROMOTE, what, ask_token=ask_token).name
        audit = AuditLog(settings.home)
        Halts(store, audit).check()
        versions = Versions(settings.home, create=False)
        last = versions.last_move(name, alias)
        if last is None:
            raise VersionError(f"no move of {alias!r} of {name!r} is left to be taken back")
        target = "no version" if last.before is None else f"version {last.before}"
        typer.echo(
            f"move {last.number}: {alias} of {name} went from {target} to version {last.after}, by "
            f"{plain(last.by)} on {last.at:%Y-%m-%d %H:%M:%S} UTC",
            err=True,
        )
        _confirm(f"Let {alias} of {name} name {target} again?")
        Halts(store, audit).check()
        entry: dict[str, JsonValue] = {
            "predictor": name,
            "alias": alias,
            "undoes": last.number,
            "before": last.after,
            "after": last.before,
            "by": person,
            "reason": reason,
        }
        audit.append("predictor-restoring", entry)
        move = versions.restore(last, by=person, reason=reason)
        audit.append("predictor-restored", {**entry, "move": move.number})
    _tell(move, as_json=as_json)


def _check_reason(reason: str) -> None:
    """Refuse a reason that its history would not take, before anything is asked or written."""
    from watchkeeper.tools.versions.records import MOST_REASON

    if len(reason) > MOST_REASON:
        fail(f"--reason has {len(reason)} characters: at most {MOST_REASON} are kept")


def _confirm(question: str) -> None:
    """Ask whoever is at this terminal; nothing else may say yes here."""
    if not _at_terminal():
        fail(
            "which version answers takes a yes of a person at a terminal; programs have it done as the "
            "action predictor.promote, which goes through the policy"
        )
    typer.confirm(question, abort=True, err=True)


def _at_terminal() -> bool:
    return sys.stdin.isatty()


def _tell(move: Move, *, as_json: bool) -> None:
    if as_json:
        print_json(move)
        return
    before, after = (
        "no version" if number is None else f"version {number}" for number in (move.before, move.after)
    )
    typer.echo(f"{move.alias} of {move.name} named {before} and names {after} (move {move.number})")
