"""``watchkeeper tools``: what agents may look at and what they may change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchkeeper.cli.records import Json, mistakes, print_json, print_pairs, print_table

if TYPE_CHECKING:
    from watchkeeper.tools.registry import AnyAction, AnyFact, Registry

app = typer.Typer(no_args_is_help=True, help="Look at the facts that can be read and the actions that exist.")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List facts (they only read) and actions (they change something)."""
    from watchkeeper.runtime.settings import load_settings
    from watchkeeper.tools.plugins import load_registry, load_tools
    from watchkeeper.tools.sandbox import find_sandbox

    with mistakes():
        settings = load_settings()
        registry = load_registry(settings.tools, settings.log_predictor)
        plugins = {tool.name: plugin.name for plugin in load_tools(settings.tools) for tool in plugin.things}
    sandbox = find_sandbox()
    if as_json:
        print_json(
            {
                "facts": [_fact(f) for f in registry.facts],
                "actions": [_action(a) for a in registry.actions],
                "plugins": plugins,
                "sandbox": {"complete": not sandbox.missing, "missing": sandbox.missing},
            }
        )
        return
    rows = [(fact.name, "fact", "", fact.summary) for fact in registry.facts]
    rows += [
        (action.name, "action", action.reversibility.value, action.summary) for action in registry.actions
    ]
    print_table(("NAME", "KIND", "WAY BACK", "WHAT IT TELLS OR DOES"), rows, empty="no tools")
    for name, plugin in plugins.items():
        typer.echo(f"{name} comes from plugin {plugin}")
    typer.echo(f"\n{sandbox.note}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Registered name, e.g. service.restart.")],
    as_json: Json = False,
) -> None:
    """Show one fact or action with the schema of its arguments."""
    from watchkeeper.runtime.settings import load_settings
    from watchkeeper.tools.plugins import load_registry

    with mistakes():
        settings = load_settings()
        described = _find(load_registry(settings.tools, settings.log_predictor), name)
    if as_json:
        print_json(described)
        return
    schema = described["arguments"]
    required = set(schema.get("required", ()))
    print_pairs(
        [
            ("name", described["name"]),
            ("kind", described["kind"]),
            ("summary", described["summary"]),
            ("version", str(described.get("version", ""))),
            ("way back", described.get("reversibility", "")),
            ("text", described.get("provenance", "")),
        ]
    )
    if not schema.get("properties"):
        typer.echo("\nArguments: none")
        return
    typer.echo("\nArguments")
    for argument, field in schema["properties"].items():
        more = [] if argument in required else [_default(field)]
        if field.get("internal"):
            more.append("not for models")
        typer.echo(f"  {argument}: {_kind(field, schema)}" + (f" ({', '.join(more)})" if more else ""))
        if text := field.get("description"):
            typer.echo(f"      {' '.join(text.split())}")


def _find(registry: Registry, name: str) -> dict[str, Any]:
    from watchkeeper.tools.errors import UnknownToolError

    for fact in registry.facts:
        if fact.name == name:
            return _fact(fact)
    for action in registry.actions:
        if action.name == name:
            return _action(action)
    raise UnknownToolError(
        f"no tool is named {name!r}; `watchkeeper tools list` names those that are registered"
    )


def _fact(fact: AnyFact) -> dict[str, Any]:
    return {
        "name": fact.name,
        "kind": "fact",
        "summary": fact.summary,
        "provenance": fact.provenance.value,
        "network": fact.network,
        "arguments": fact.arguments_type.model_json_schema(),
        "result": fact.result_type.model_json_schema(),
    }


def _action(action: AnyAction) -> dict[str, Any]:
    return {
        "name": action.name,
        "kind": "action",
        "summary": action.summary,
        "version": action.version,
        "reversibility": action.reversibility.value,
        "arguments": action.arguments_type.model_json_schema(),
    }


def _kind(field: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in field:
        field = schema["$defs"][field["$ref"].rpartition("/")[2]]
    if "enum" in field:
        return " | ".join(str(value) for value in field["enum"])
    if "anyOf" in field:
        return " | ".join(_kind(one, schema) for one in field["anyOf"] if one.get("type") != "null")
    if "items" in field:
        return f"list of {_kind(field['items'], schema)}"
    return str(field.get("type", "any"))


def _default(field: dict[str, Any]) -> str:
    return "optional" if field.get("default") is None else f"default {field['default']!r}"
