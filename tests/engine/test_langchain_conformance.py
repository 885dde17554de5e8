"""The chat model keeps LangChain's contract: its conformance kit, without a model to pull."""

from __future__ import annotations

import functools
from typing import Any

from tests import tiny
from tests.conformance import IntegrationConformance, UnitConformance
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.interface import GenerationRequest, Role, ToolCall
from watchkeeper.models.scripted import GenerationAnswer, ScriptedEngine

ARGUMENTS: dict[str, dict[str, Any]] = {
    "magic_function": {"input": 3},
    "get_weather": {"location": "San Francisco"},
    "my_adder_tool": {"a": 3, "b": 4},
    "greeting_generator": {"answer_style": "pirate"},
}


def sensible(request: GenerationRequest) -> GenerationAnswer:
    """Answer as a good model would: call the tool that was asked for, then speak."""
    last = request.messages[-1]
    if request.schema is not None:
        return {"setup": "Why do cats not play cards?", "punchline": "Too many cheetahs."}
    if not request.tools or last.role is Role.TOOL:
        return "How can I help you?"
    (tool, *_) = request.tools
    if tool.name == "unicode_customer":
        name = "你好啊集团" if "你好" in last.content else "こんにちは株式会社"
        return {"customer_name": name, "description": "A company."}
    return ToolCall(tool.name, ARGUMENTS[tool.name]) if tool.name in ARGUMENTS else None


@functools.cache
def engine() -> LocalEngine:
    return LocalEngine(tiny.hosted())


class TestWithoutAsking(UnitConformance):
    """Built over a real engine: a transformer with random weights."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"engine": engine()}


class TestAskingAScript(IntegrationConformance):
    """Built over a script, so that what fails is the chat model's own."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"engine": ScriptedEngine(generate=sensible)}
