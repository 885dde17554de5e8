"""Who is at this terminal: a token from the environment or typed here, never from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from watchkeeper.runtime.people import Person
    from watchkeeper.runtime.roles import Permission

AskToken = Annotated[
    bool,
    typer.Option("--token", help="Ask for your token here (else WATCHKEEPER_TOKEN, else your account)."),
]


def given_token(*, ask: bool) -> str | None:
    """Return the token of who is at this terminal; None where their account says who they are.

    Args:
        ask: Whether to ask for it here, unseen.
    """
    from watchkeeper.runtime.people import token_from_environment

    if ask:
        typed: str = typer.prompt("token", hide_input=True, err=True)
        return typed.strip()
    return token_from_environment()


def permitted_person(home: Path, permission: Permission, what: str, *, ask_token: bool = False) -> Person:
    """Return who is at this terminal, where they may do something; a refusal is written into the audit log.

    Args:
        home: Folder of Watchkeeper's state.
        permission: What is needed, where there is a users file.
        what: What they are about to do, for the message: ``"lift a stop"``.
        ask_token: Whether to ask for their token here.

    Raises:
        IdentityError: If they may not, or it is not known who they are.
    """
    from watchkeeper.runtime.audit import AuditLog
    from watchkeeper.runtime.authority import authorize
    from watchkeeper.runtime.people import People

    return authorize(People(home), AuditLog(home), permission, what, token=given_token(ask=ask_token))
