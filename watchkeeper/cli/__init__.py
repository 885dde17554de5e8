"""The command line: built when it is called, so that asking for help imports next to nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

_MISTAKE = 2


def build_app() -> typer.Typer:
    """Put all commands together."""
    import typer

    from watchkeeper.cli import approvals, audit, decisions, incidents, models, policy
    from watchkeeper.cli.demo import demo
    from watchkeeper.cli.run import run

    app = typer.Typer(
        name="watchkeeper",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="IT operations by local models: every change planned, approved, verified and reversible.",
    )
    app.command()(demo)
    app.command()(run)
    app.add_typer(incidents.app, name="incidents")
    app.add_typer(approvals.app, name="approvals")
    app.add_typer(decisions.app, name="decisions")
    app.add_typer(audit.app, name="audit")
    app.add_typer(policy.app, name="policy")
    app.add_typer(models.app, name="models")
    return app


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2."""
    try:
        build_app()()
    except Exception as error:
        if not isinstance(error, mistakes()):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(_MISTAKE)


def mistakes() -> tuple[type[Exception], ...]:
    """The errors whose message tells a user what to do; anything else is a defect and keeps its traceback."""
    from watchkeeper.demo.errors import DemoError
    from watchkeeper.models.errors import ModelError
    from watchkeeper.runtime.errors import OperationError
    from watchkeeper.tools.errors import ToolError

    return ModelError, ToolError, OperationError, DemoError
