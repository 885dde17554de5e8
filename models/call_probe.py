"""Generated tool calls with known arguments: does a model still call tools as well as it did?"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from watchkeeper.models.errors import BudgetExceededError
from watchkeeper.models.interface import (
    Cancellation,
    Engine,
    GenerationRequest,
    Progress,
    ToolSpec,
    user,
)

_MAX_TOKENS = 120
_OFFERED = 3


@dataclass(frozen=True, slots=True)
class CallQuestion:
    """A request in words and the one call that fulfils it.

    Attributes:
        text: The request.
        tools: The tools to choose from.
        name: The tool that is right.
        arguments: Its arguments.
    """

    text: str
    tools: tuple[ToolSpec, ...]
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Tool:
    """A tool, requests that need it, and what its arguments are drawn from."""

    spec: ToolSpec
    requests: tuple[str, ...]
    values: Mapping[str, tuple[Any, ...]]


def _tool(
    name: str, about: str, arguments: Mapping[str, tuple[str, tuple[Any, ...]]], *requests: str
) -> _Tool:
    properties = {
        key: {"type": "integer" if isinstance(values[0], int) else "string", "description": text}
        for key, (text, values) in arguments.items()
    }
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    values = {key: values for key, (_, values) in arguments.items()}
    return _Tool(ToolSpec(name, about, parameters), requests, values)


_HOSTS = ("web-1", "db2", "cache-east", "node17", "files", "gate3")
_NAMES = ("nginx", "redis", "exporter", "worker", "sshd", "postgres")
_TOOLS = (
    _tool(
        "service_restart",
        "Restart a service on a host.",
        {"host": ("Name of the host.", _HOSTS), "service": ("Name of the service.", _NAMES)},
        "Restart {service} on {host}.",
        "Please give the service {service} of host {host} a restart.",
    ),
    _tool(
        "read_log",
        "Read the last lines of a service's log.",
        {"service": ("Name of the service.", _NAMES), "lines": ("How many lines.", (10, 25, 50, 200))},
        "Show me the last {lines} lines that {service} logged.",
        "I want to read {lines} lines of the log of {service}.",
    ),
    _tool(
        "resize_volume",
        "Set the size of a volume.",
        {"volume": ("Name of the volume.", ("vol-a", "home", "scratch")), "gib": ("Size.", (20, 64, 500))},
        "Make the volume {volume} {gib} GiB large.",
        "Set {volume} to {gib} GiB.",
    ),
    _tool(
        "add_user",
        "Add a user to a group.",
        {"user": ("Name of the user.", ("mia", "jon", "sam", "ida")), "group": ("Group.", ("ops", "dev"))},
        "Add {user} to the group {group}.",
        "{user} should belong to {group} from now on.",
    ),
    _tool(
        "open_port",
        "Open a port of a host's firewall.",
        {"host": ("Name of the host.", _HOSTS), "port": ("The port.", (22, 80, 443, 5432, 8080))},
        "Open port {port} on {host}.",
        "Let traffic to {host} through on port {port}.",
    ),
    _tool(
        "copy_file",
        "Copy a file.",
        {
            "source": ("Path of the file.", ("/etc/hosts", "/var/log/syslog", "/srv/a.txt")),
            "target": ("Path of the copy.", ("/tmp/copy", "/backup/one", "/root/b")),  # noqa: S108 (never written)
        },
        "Copy {source} to {target}.",
        "I need a copy of {source} at {target}.",
    ),
)


def call_questions(count: int, seed: int = 0) -> tuple[CallQuestion, ...]:
    """Make requests, each with some tools of which one is right.

    Args:
        count: How many.
        seed: Decides on everything.
    """
    rng = random.Random(seed)
    questions: list[CallQuestion] = []
    for number in range(count):
        tool = _TOOLS[number % len(_TOOLS)]
        others = rng.sample([other for other in _TOOLS if other is not tool], _OFFERED - 1)
        offered = [tool, *others]
        rng.shuffle(offered)
        arguments = {key: rng.choice(values) for key, values in tool.values.items()}
        text = rng.choice(tool.requests).format_map(arguments)
        questions.append(CallQuestion(text, tuple(one.spec for one in offered), tool.spec.name, arguments))
    return tuple(questions)


def answer_calls(
    engine: Engine,
    questions: Sequence[CallQuestion],
    *,
    adapter: str | None = None,
    stage: str = "tool calls",
    progress: Progress | None = None,
    cancel: Cancellation | None = None,
) -> tuple[bool, ...]:
    """Ask for calls, and say of each whether name and arguments were right.

    Raises:
        AdapterError: If no adapter of that name is loaded.
        CancelledError: If it was cancelled.
    """
    right: list[bool] = []
    for number, question in enumerate(questions):
        if progress:
            progress(stage, number, len(questions))
        request = GenerationRequest(
            (user(question.text),),
            question.tools,
            tool_choice="required",
            max_tokens=_MAX_TOKENS,
            adapter=adapter,
        )
        right.append(_is_right(engine, request, question, cancel))
    if progress:
        progress(stage, len(questions), len(questions))
    return tuple(right)


def _is_right(
    engine: Engine, request: GenerationRequest, question: CallQuestion, cancel: Cancellation | None
) -> bool:
    try:
        (call,) = engine.generate(request, cancel=cancel).tool_calls
    except BudgetExceededError:
        return False
    return call.name == question.name and dict(call.arguments) == dict(question.arguments)
