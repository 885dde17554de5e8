"""`watchkeeper stop`: halt everything, until it is lifted."""

from __future__ import annotations

from typing import Annotated

import typer

from watchkeeper.cli.identity import AskToken
from watchkeeper.cli.records import Json


def stop(
    reason: Annotated[str, typer.Option("--reason", help="Why; everybody who is refused is told.")] = "",
    lift: Annotated[bool, typer.Option("--lift", help="Let work go on.")] = False,
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Halt everything within a second, in all processes of this store, until `--lift`.

    No action is begun any more; one that is under way is brought to its end and recorded. Whatever ran can be
    gone on with. Everybody may stop; where there are users, `--lift` takes a role.
    """
    from watchkeeper.cli.identity import given_token, permitted_person
    from watchkeeper.cli.records import opened, print_json, when
    from watchkeeper.runtime.audit import AuditLog
    from watchkeeper.runtime.errors import IdentityError
    from watchkeeper.runtime.halt import Halts
    from watchkeeper.runtime.people import People, current_person
    from watchkeeper.runtime.roles import Permission

    with opened() as (settings, store):
        halts = Halts(store, AuditLog(settings.home))
        if lift:
            asked = Permission.LIFT, "lift a stop"
            person = permitted_person(settings.home, *asked, ask_token=ask_token).name
        else:
            try:
                person = People(settings.home).at_terminal(token=given_token(ask=ask_token)).name
            except IdentityError:
                # Nobody is asked who they are before everything may be stopped.
                person = current_person()
        halt = halts.lift(by=person, reason=reason) if lift else halts.stop(by=person, reason=reason)
    if as_json:
        print_json({} if halt is None else halt.model_dump(mode="json"))
    elif halt is None:
        typer.echo("nothing was stopped")
    elif lift:
        typer.echo(f"lifted what {halt.by} stopped at {when(halt.at)} UTC; work may go on")
    else:
        typer.echo(f"everything is stopped by {halt.by} since {when(halt.at)} UTC; go on with --lift")
