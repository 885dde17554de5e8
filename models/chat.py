"""The engine as a LangChain chat model: tools, structured output, streaming.

Tool calls and structured outputs are valid against their schema by construction, since the engine's grammar
admits nothing else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    UsageMetadata,
)
from langchain_core.messages import ToolCall as LangChainToolCall
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import BaseOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda, RunnableMap
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, ConfigDict, Field

from watchkeeper.models.interface import (
    Cancellation,
    Engine,
    Generation,
    GenerationRequest,
    Message,
    Role,
    ToolCall,
    ToolSpec,
    Usage,
)

_INSTRUCTION = "Answer with one JSON value that follows this JSON schema:\n"
_ROLES = {"user": Role.USER, "human": Role.USER, "assistant": Role.ASSISTANT, "ai": Role.ASSISTANT}


class WatchkeeperChatModel(BaseChatModel):
    """A chat model of LangChain over an engine of Watchkeeper.

    Every setting may be given for one call too, e.g. ``model.invoke(text, max_tokens=64)``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    engine: Engine = Field(exclude=True, repr=False)
    """Who answers."""
    max_tokens: int = 512
    """Budget of generated tokens."""
    temperature: float = 0.0
    """0 is greedy."""
    seed: int | None = None
    """Seed of the sampling."""
    stop: list[str] = Field(default_factory=list)
    """Texts that end an answer."""

    @property
    def model_name(self) -> str:
        """Catalog id of the model that answers."""
        return self.engine.identity.id

    @property
    def _llm_type(self) -> str:
        return "watchkeeper"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        identity = self.engine.identity
        return {"model": identity.id, "quantization": identity.quantization, "digest": identity.digest}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = LangSmithParams(
            ls_provider="watchkeeper",
            ls_model_name=kwargs.get("model", self.model_name),
            ls_model_type="chat",
            ls_temperature=kwargs.get("temperature", self.temperature),
            ls_max_tokens=kwargs.get("max_tokens", self.max_tokens),
        )
        if stop or self.stop:
            params["ls_stop"] = stop or self.stop
        return params

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Give the model tools.

        Args:
            tools: Tools in any form that LangChain knows.
            tool_choice: ``"auto"`` (the default), ``"any"``, ``"required"`` or True to force a call of some
                tool, ``"none"``, or a tool's name (plain or as OpenAI writes it).
            kwargs: Settings of the calls.

        Raises:
            ValueError: If the choice names no tool.
        """
        described = [convert_to_openai_tool(tool) for tool in tools]
        names = [tool["function"]["name"] for tool in described]
        choice = _tool_choice(tool_choice)
        if choice not in {"auto", "required", "none", *names}:
            raise ValueError(
                f"tool_choice {tool_choice!r} is none of the tools: {', '.join(names) or 'none'}"
            )
        return self.bind(tools=described, tool_choice=choice, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Make the model answer with values of a schema.

        Args:
            schema: A pydantic class, a TypedDict or a JSON schema.
            include_raw: Return a dict of ``raw``, ``parsed`` and ``parsing_error`` instead of the value.
            method: All methods are the same here: the grammar enforces the schema.
            kwargs: Settings of the calls; ``strict`` is accepted and always so.

        Returns:
            A runnable that gives an instance of a pydantic class, else a dict.
        """
        _drop_meaningless(kwargs)
        json_schema = convert_to_json_schema(schema)
        model = self.bind(
            response_schema=json_schema,
            ls_structured_output_format={"kwargs": {"method": method, "strict": True}, "schema": json_schema},
            **kwargs,
        )

        parser: BaseOutputParser[Any] = JsonOutputParser()
        if isinstance(schema, type) and is_basemodel_subclass(schema):
            parser = PydanticOutputParser(pydantic_object=schema)
        if not include_raw:
            return model | parser

        def parse_or_report(result: dict[str, Any]) -> dict[str, Any]:
            try:
                return {**result, "parsed": parser.invoke(result["raw"]), "parsing_error": None}
            except OutputParserException as error:
                return {**result, "parsed": None, "parsing_error": error}

        return RunnableMap({"raw": model}) | RunnableLambda(parse_or_report)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 (LangChain's signature)
        **kwargs: Any,
    ) -> ChatResult:
        return self._result(self.engine.generate(self._request(messages, stop, kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 (LangChain's signature)
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs)
        cancel = Cancellation()
        try:
            return self._result(await asyncio.to_thread(self.engine.generate, request, cancel=cancel))
        finally:
            # Without effect on an answer that is there; ends the thread's work where the task was cancelled.
            cancel.cancel()

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self.engine.stream(self._request(messages, stop, kwargs)):
            if chunk.text:
                piece = ChatGenerationChunk(message=AIMessageChunk(content=chunk.text))
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=piece)
                yield piece
            if chunk.final is not None:
                yield ChatGenerationChunk(message=self._last_chunk(chunk.final))

    def _request(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, settings: dict[str, Any]
    ) -> GenerationRequest:
        settings = dict(settings)
        settings.pop("ls_structured_output_format", None)
        turns = [_turn(message) for message in messages]
        schema = settings.pop("response_schema", None)
        if schema is not None:
            turns = _with_instruction(turns, _INSTRUCTION + json.dumps(schema, ensure_ascii=False))
        tools = tuple(_tool(tool) for tool in settings.pop("tools", ()))
        choice = "none" if schema is not None else _tool_choice(settings.pop("tool_choice", None))
        request = GenerationRequest(
            tuple(turns),
            tools,
            tool_choice=choice if tools else "none",
            schema=schema,
            max_tokens=settings.pop("max_tokens", self.max_tokens),
            temperature=settings.pop("temperature", self.temperature),
            seed=settings.pop("seed", self.seed),
            stop=tuple(stop or self.stop),
        )
        if settings:
            raise TypeError(f"unknown setting {min(settings)!r} (known: max_tokens, temperature, seed, stop)")
        return request

    def _result(self, answer: Generation) -> ChatResult:
        message = AIMessage(
            content=answer.text,
            tool_calls=[
                LangChainToolCall(name=call.name, args=dict(call.arguments), id=call.id)
                for call in answer.tool_calls
            ],
            usage_metadata=_usage(answer.usage),
            response_metadata=self._metadata(answer),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _last_chunk(self, answer: Generation) -> AIMessageChunk:
        return AIMessageChunk(
            content="",
            tool_call_chunks=[
                tool_call_chunk(
                    name=call.name, args=json.dumps(dict(call.arguments)), id=call.id, index=index
                )
                for index, call in enumerate(answer.tool_calls)
            ],
            usage_metadata=_usage(answer.usage),
            response_metadata=self._metadata(answer),
            chunk_position="last",
        )

    def _metadata(self, answer: Generation) -> dict[str, Any]:
        identity = self.engine.identity
        return {
            "model_name": identity.id,
            "model_provider": "watchkeeper",
            "quantization": identity.quantization,
            "finish_reason": answer.finish_reason,
        }


def _turn(message: BaseMessage) -> Message:
    text = _text(message)
    match message:
        case SystemMessage():
            return Message(Role.SYSTEM, text)
        case HumanMessage():
            return Message(Role.USER, text)
        case AIMessage():
            calls = tuple(
                ToolCall(call["name"], call["args"], call["id"] or "") for call in message.tool_calls
            )
            return Message(Role.ASSISTANT, text, calls)
        case ToolMessage():
            return Message(Role.TOOL, text, tool_call_id=message.tool_call_id)
        case ChatMessage() if message.role.lower() in _ROLES | {"system": Role.SYSTEM}:
            return Message(_ROLES.get(message.role.lower(), Role.SYSTEM), text)
        case _:
            raise ValueError(f"a message of type {message.type!r} cannot be shown to a text model")


def _text(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    parts: list[str] = []
    for block in message.content:
        if isinstance(block, str):
            parts.append(block)
        elif block.get("type") == "text":
            parts.append(str(block["text"]))
        elif block.get("type") not in {"tool_use", "tool_call", "reasoning", "thinking"}:
            raise ValueError(
                f"a {message.type} message holds a block of type {block.get('type')!r}; only text"
            )
    return "".join(parts)


def _with_instruction(turns: list[Message], instruction: str) -> list[Message]:
    if turns and turns[0].role is Role.SYSTEM:
        return [Message(Role.SYSTEM, f"{turns[0].content}\n\n{instruction}"), *turns[1:]]
    return [Message(Role.SYSTEM, instruction), *turns]


def _tool(described: dict[str, Any]) -> ToolSpec:
    function = described["function"]
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    return ToolSpec(function["name"], function.get("description", ""), parameters)


def _tool_choice(choice: str | bool | dict[str, Any] | None) -> str:
    if isinstance(choice, dict):
        return str(choice["function"]["name"])
    if choice is None or choice is False:
        return "auto"
    return "required" if choice is True or choice == "any" else choice


def _drop_meaningless(settings: dict[str, Any]) -> None:
    """Drop what other providers need to be told: a call is one call, and always strict."""
    for name in ("strict", "parallel_tool_calls"):
        settings.pop(name, None)


def _usage(usage: Usage) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.generated_tokens,
        total_tokens=usage.prompt_tokens + usage.generated_tokens,
        input_token_details={"cache_read": usage.cached_tokens},
    )
