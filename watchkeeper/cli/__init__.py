"""The command line: built when it is called, so that asking for help imports next to nothing."""

from __future__ import annotations

import errno
import gc
import inspect
import sys
from typing import Annotated, NoReturn

import typer
from typer.exceptions import Abort, TyperException

_MISTAKE = 2
_NO_PLACE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
"""What a file system refuses for a reason that its owner can mend."""


def build_app() -> typer.Typer:
    """Put all commands together."""
    from watchkeeper.cli import (
        approvals,
        audit,
        breaker,
        configs,
        decisions,
        escalations,
        incidents,
        jobs,
        models,
        policy,
        predictors,
        reclaimed,
        tools,
        users,
    )
    from watchkeeper.cli.backup import backup, restore
    from watchkeeper.cli.demo import demo
    from watchkeeper.cli.doctor import doctor
    from watchkeeper.cli.init import init
    from watchkeeper.cli.run import run
    from watchkeeper.cli.serve import serve
    from watchkeeper.cli.stop import stop
    from watchkeeper.cli.submit import submit

    app = typer.Typer(
        name="watchkeeper",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def about(
        *,
        version: Annotated[
            bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        """IT operations by local models: every change planned, approved, verified and reversible."""
        del version

    app.command()(demo)
    app.command()(init)
    app.command()(run)
    app.command()(doctor)
    app.command()(backup)
    app.command()(restore)
    app.command()(submit)
    app.command()(serve)
    app.command()(stop)
    app.add_typer(incidents.app, name="incidents")
    app.add_typer(approvals.app, name="approvals")
    app.add_typer(escalations.app, name="escalations")
    app.add_typer(users.app, name="users")
    app.add_typer(decisions.app, name="decisions")
    app.add_typer(audit.app, name="audit")
    app.add_typer(breaker.app, name="breaker")
    app.add_typer(configs.app, name="configs")
    app.add_typer(reclaimed.app, name="reclaimed")
    app.add_typer(policy.app, name="policy")
    app.add_typer(tools.app, name="tools")
    app.add_typer(jobs.app, name="jobs")
    app.add_typer(models.app, name="models")
    app.add_typer(predictors.app, name="predictors")
    _let_paragraphs_flow(app)
    return app


def _let_paragraphs_flow(app: typer.Typer) -> None:
    """Make each paragraph of a command's docstring one line of its help, which is wrapped to the terminal."""
    for command in app.registered_commands:
        said = inspect.getdoc(command.callback) if command.callback and not command.help else None
        if said:
            command.help = "\n\n".join(" ".join(part.split()) for part in said.split("\n\n"))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _let_paragraphs_flow(group.typer_instance)


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2."""
    try:
        _run()
    finally:
        # Else the interpreter looks through all objects of large libraries for cycles before it ends, which
        # takes a second or more after Ctrl-C.
        gc.freeze()


def _run() -> NoReturn:
    try:
        code = build_app()(prog_name="watchkeeper", standalone_mode=False)
    except TyperException as error:
        if not str(error):
            # A group without its command: its help was printed instead.
            sys.exit(_MISTAKE)
        _fail(_usage(error))
    except Abort:
        sys.exit(130)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_PLACE:
            place = f" {error.filename!r}" if error.filename else ""
            _fail(
                f"the file system refuses{place}: {error.strerror}; make room there or mend its permissions, "
                "or choose another folder with WATCHKEEPER_HOME, and try again"
            )
        if not isinstance(error, mistakes()):
            raise
        _fail(str(error))
    sys.exit(code if isinstance(code, int) else 0)


def _version(value: bool) -> None:
    if value:
        from watchkeeper import __version__

        typer.echo(f"watchkeeper {__version__}")
        raise typer.Exit


def _usage(error: Exception) -> str:
    """Say in one line what is wrong with how a command was called, and where its usage is told."""
    context = getattr(error, "ctx", None)
    said = getattr(error, "format_message", lambda: str(error))().rstrip(".")
    return f"{said}; see '{context.command_path if context else 'watchkeeper'} --help'"


def _fail(message: str) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(_MISTAKE)


def mistakes() -> tuple[type[Exception], ...]:
    """The errors whose message tells a user what to do; anything else is a defect and keeps its traceback."""
    from watchkeeper.demo.errors import DemoError
    from watchkeeper.models.errors import ModelError
    from watchkeeper.runtime.errors import OperationError
    from watchkeeper.tools.errors import ToolError

    return ModelError, ToolError, OperationError, DemoError
