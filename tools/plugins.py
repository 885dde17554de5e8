"""Tools and agents of a site: what is named in the configuration, and what installed packages bring along."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from watchkeeper.tools.action import Action
from watchkeeper.tools.builtin import builtin_registry
from watchkeeper.tools.errors import ArtefactError, PluginError, UnenforceableError
from watchkeeper.tools.fact import Fact
from watchkeeper.tools.facts.logclass import LogsClassify
from watchkeeper.tools.inventory import Registered
from watchkeeper.tools.registry import AnyAction, AnyFact, Registry

TOOLS = "watchkeeper.tools"
"""Group of entry points of packages that bring facts and actions along."""

AGENTS = "watchkeeper.agents"
"""Group of entry points of packages that bring agents along."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plugin(Generic[T]):
    """What one plugin brings along.

    Attributes:
        name: What it is called in messages: ``'queues:tools'``, and the package where it was installed.
        things: Its tools or agents.
    """

    name: str
    things: tuple[T, ...]


def load_plugins(group: str, references: Iterable[str], kinds: tuple[type[T], ...]) -> tuple[Plugin[T], ...]:
    """Load everything of a group: of installed packages in the order of their names, then what is named.

    A reference is ``module:name`` of something importable: a function that returns what there is, or a list
    of it, or a single one.

    Args:
        group: Of entry points, `TOOLS` or `AGENTS`.
        references: What the configuration names besides.
        kinds: What a plugin may bring along.

    Raises:
        PluginError: If one cannot be loaded, with its name.
    """
    found: dict[str, str] = {}
    for point in _installed(group):
        package = f" of package {point.dist.name!r}" if point.dist else ""
        found.setdefault(point.value, f"{point.value!r}{package}")
    for reference in references:
        found.setdefault(reference, f"{reference!r}")
    return tuple(Plugin(name, _things(reference, name, kinds)) for reference, name in found.items())


def load_tools(references: Iterable[str] = ()) -> tuple[Plugin[AnyFact | AnyAction], ...]:
    """Load the facts and actions that are not built in; see `load_plugins`.

    Raises:
        PluginError: If one cannot be loaded, with its name.
    """
    kinds: tuple[type[Any], ...] = (Fact, Action)
    return load_plugins(TOOLS, references, kinds)


def load_registry(references: Iterable[str] = (), log_predictor: Path | Registered | None = None) -> Registry:
    """Return a registry with the built-in tools and those of all plugins.

    Args:
        references: What the configuration names: ``tools:``.
        log_predictor: The predictor that it names: ``log_predictor:``; with one there is ``logs.classify``.

    Raises:
        PluginError: If a plugin or the predictor cannot be loaded, or a tool of theirs not be registered.
    """
    registry = builtin_registry()
    if log_predictor is not None:
        try:
            registry.add(LogsClassify.of(log_predictor))
        except ArtefactError as error:
            raise PluginError(f"setting log_predictor: {error}") from error
    for plugin in load_tools(references):
        for tool in plugin.things:
            try:
                registry.add(tool)
            except (ValueError, UnenforceableError) as error:
                raise PluginError(f"plugin {plugin.name}: {error}") from error
    return registry


@lru_cache(maxsize=4)
def _installed(group: str) -> tuple[EntryPoint, ...]:
    return tuple(sorted(entry_points(group=group), key=lambda point: (point.name, point.value)))


def _things(reference: str, name: str, kinds: tuple[type[T], ...]) -> tuple[T, ...]:
    found = _named(reference, name)
    if isinstance(found, kinds):
        return (found,)
    try:
        if callable(found):
            found = found()
        things = tuple(found) if not isinstance(found, kinds) else (found,)
    except Exception as error:  # whatever a stranger's code raises, its name must be told
        raise PluginError(f"plugin {name} failed ({_said(error)}): mend it, or remove it") from error
    for thing in things:
        if not isinstance(thing, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise PluginError(
                f"plugin {name} brings {thing!r:.80}, which is no {wanted}: let it return a list of these"
            )
    return things


def _named(reference: str, name: str) -> Any:
    module, sign, attribute = reference.partition(":")
    if not (sign and module.strip() and attribute.strip()):
        raise PluginError(f"plugin {name} is not module:function: write, for example, queues.tools:all_tools")
    try:
        found: Any = import_module(module.strip())
    except ModuleNotFoundError as error:
        raise PluginError(
            f"plugin {name}: {error}; install its package for {sys.executable}, or put its folder into "
            "PYTHONPATH"
        ) from error
    except Exception as error:
        raise PluginError(
            f"plugin {name} cannot be imported ({_said(error)}): mend it, or remove it"
        ) from error
    for part in attribute.strip().split("."):
        if not hasattr(found, part):
            raise PluginError(f"plugin {name}: module {module!r} has no {attribute.strip()!r}")
        found = getattr(found, part)
    return found


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
