"""Who is at this terminal: a token from the environment or typed here, never from the command line."""

from __future__ import annotations

import typer


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
