"""``watchkeeper users``: who may answer and run what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.records import Json, mistakes, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from watchkeeper.runtime.roles import Role
    from watchkeeper.runtime.users import User, Users

app = typer.Typer(no_args_is_help=True, help="Say who may answer questions and have incidents handled.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="For example alice.")]
Roles = Annotated[
    list[str] | None,
    typer.Option("--role", help="viewer, operator, approver or admin; give it several times for several."),
]
Accounts = Annotated[
    list[str] | None,
    typer.Option("--account", help="A system account that is theirs; may be given several times."),
]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the users, their roles, accounts and numbers of tokens."""
    with mistakes():
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.runtime.users import load_users

        users = load_users(load_settings().home)
    found = users.users if users is not None else ()
    if as_json:
        print_json({"users": [_public(user) for user in found]})
        return
    print_table(
        ("NAME", "ROLES", "TOKENS", "ACCOUNTS"),
        [
            (user.name, ", ".join(user.roles), str(len(user.tokens)), ", ".join(user.accounts))
            for user in found
        ],
        empty="no users file: who answers is told by system accounts",
    )


@app.command()
def add(
    name: Name,
    role: Roles = None,
    account: Accounts = None,
    with_token: Annotated[
        bool, typer.Option("--with-token", help="Make a token for them, too; it is printed once.")
    ] = False,
) -> None:
    """Add a user; with the first one, who must be an admin, roles begin to count."""
    with mistakes():
        from watchkeeper.runtime.clock import utc_now
        from watchkeeper.runtime.tokens import new_token
        from watchkeeper.runtime.users import User

        given = _roles(role, f"say with --role what {name!r} is")
        secret, kept = new_token(utc_now()) if with_token else (None, None)

        def change(users: Users) -> Users:
            _refuse_known(users, name)
            user = User(
                name=name,
                roles=given,
                accounts=_once(account or ()),
                tokens=() if kept is None else (kept,),
            )
            return users.model_copy(update={"users": (*users.users, user)})

        _change(name, change, f"add {name!r}")
    typer.echo(f"{name}: {', '.join(given)}", err=with_token)
    if secret is not None:
        _show(secret)


@app.command()
def remove(name: Name) -> None:
    """Remove a user, and their tokens with them."""
    with mistakes():

        def change(users: Users) -> Users:
            gone = _known(users, name)
            return users.model_copy(update={"users": tuple(u for u in users.users if u is not gone)})

        _change(name, change, f"remove {name!r}")
    typer.echo(f"{name}: removed")


@app.command()
def roles(
    name: Name,
    role: Annotated[
        list[str] | None, typer.Argument(metavar="ROLE...", help="The roles from now on.")
    ] = None,
    option: Roles = None,
) -> None:
    """Set the roles of a user."""
    with mistakes():
        given = _roles([*(role or ()), *(option or ())], f"say what {name!r} is from now on")

        def change(users: Users) -> Users:
            return _replaced(users, _known(users, name), roles=given)

        _change(name, change, f"set the roles of {name!r}")
    typer.echo(f"{name}: {', '.join(given)}")


@app.command()
def accounts(
    name: Name,
    account: Annotated[
        list[str] | None, typer.Argument(metavar="ACCOUNT...", help="Their system accounts from now on.")
    ] = None,
    option: Accounts = None,
    *,
    none: Annotated[bool, typer.Option("--none", help="From now on none is theirs.")] = False,
) -> None:
    """Set the system accounts of a user."""
    with mistakes():
        from watchkeeper.runtime.errors import IdentityError

        given = _once([*(account or ()), *(option or ())])
        if none == bool(given):
            raise IdentityError(f"name all accounts that are {name!r}'s from now on, or --none")

        def change(users: Users) -> Users:
            return _replaced(users, _known(users, name), accounts=given)

        _change(name, change, f"set the accounts of {name!r}")
    typer.echo(f"{name}: {', '.join(given) or 'no account'}")


@app.command()
def token(
    name: Name,
    revoke: Annotated[bool, typer.Option("--revoke", help="Make all their tokens void instead.")] = False,
) -> None:
    """Make a token for a user; it is printed once and kept as a hash."""
    with mistakes():
        from watchkeeper.runtime.clock import utc_now
        from watchkeeper.runtime.tokens import new_token

        secret, kept = new_token(utc_now())

        def change(users: Users) -> Users:
            user = _known(users, name)
            return _replaced(users, user, tokens=() if revoke else (*user.tokens, kept))

        _change(name, change, f"{'revoke the tokens' if revoke else 'make a token'} of {name!r}")
    if revoke:
        typer.echo(f"{name}: no token is valid any more")
        return
    _show(secret)


def _show(secret: str) -> None:
    typer.echo(
        "This is shown once; its user gives it in WATCHKEEPER_TOKEN or where they are asked.", err=True
    )
    typer.echo(secret)


def _change(name: str, change: Callable[[Users], Users], what: str) -> None:
    from watchkeeper.cli.identity import given_token
    from watchkeeper.runtime.settings import load_settings
    from watchkeeper.runtime.user_changes import manage_users

    manage_users(load_settings().home, name, what, change, token=given_token(ask=False))


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _roles(names: list[str] | None, ask: str) -> tuple[Role, ...]:
    from watchkeeper.runtime.errors import IdentityError
    from watchkeeper.runtime.roles import Role

    if not names:
        raise IdentityError(f"{ask}: there are {', '.join(Role)}")
    return tuple(dict.fromkeys(_role(one) for one in names))


def _role(name: str) -> Role:
    from watchkeeper.runtime.errors import IdentityError
    from watchkeeper.runtime.roles import Role

    try:
        return Role(name.lower())
    except ValueError as error:
        raise IdentityError(f"{name!r} is no role: there are {', '.join(Role)}") from error


def _known(users: Users, name: str) -> User:
    from watchkeeper.runtime.errors import IdentityError

    user = users.named(name)
    if user is None:
        raise IdentityError(f"{name!r} is no user; see `watchkeeper users list`")
    return user


def _refuse_known(users: Users, name: str) -> None:
    from watchkeeper.runtime.errors import IdentityError

    if users.named(name) is not None:
        raise IdentityError(f"{name!r} is a user already: change their roles with `watchkeeper users roles`")


def _replaced(users: Users, user: User, **changes: object) -> Users:
    changed = user.model_copy(update=changes)
    return users.model_copy(update={"users": tuple(changed if u is user else u for u in users.users)})


def _public(user: User) -> dict[str, object]:
    return {
        "name": user.name,
        "roles": [role.value for role in user.roles],
        "accounts": list(user.accounts),
        "tokens": [{"id": token.id, "created": token.created.isoformat()} for token in user.tokens],
    }
