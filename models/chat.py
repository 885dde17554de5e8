"""The engine as a LangChain chat model: tools, structured output, streaming.

Tool calls and structured outputs are valid against their schema by construction, since the engine's grammar
admits nothing else.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
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

from watchkeeper.models import background, conversation
from watchkeeper.models.interface import (
    Chunk,
    Engine,
    Generation,
    GenerationRequest,
    Message,
    ToolSpec,
)
from watchkeeper.models.trimming import TokenCounter, Trimmed, trim

_INSTRUCTION = "Answer with one JSON value that follows this JSON schema:\n"
_MEANINGLESS = ("strict", "parallel_tool_calls")
"""What other providers need to be told about structured output: a value is one value, and always strict."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, and how many turns were left out of it."""

    request: GenerationRequest
    dropped: int


class WatchkeeperChatModel(BaseChatModel):
    """A chat model of LangChain over an engine of Watchkeeper.

    Every setting may be given for one call too, e.g. ``model.invoke(text, max_tokens=64)``. An answer's
    ``response_metadata`` names the model, its quantization, why the answer ended, and in
    ``trimmed_messages`` how many messages were left out, where some were.
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
    parallel_tool_calls: bool = False
    """Whether an answer may hold several tool calls. Small models tend to repeat themselves then."""
    max_calls: int = Field(default=8, ge=1)
    """How many tool calls an answer may hold where several are allowed."""
    adapter: str | None = None
    """Name of a LoRA adapter that the engine has loaded; None for the base model."""
    priority: int = 0
    """Requests of a higher one are answered first while several wait."""
    trim: bool = True
    """Whether the oldest turns are left out of a conversation that does not fit; else it is an error."""

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
        # LangChain's cache of answers goes by these: whatever changes an answer is among them.
        return {
            "model": identity.id,
            "quantization": identity.quantization,
            "digest": identity.digest,
            "adapter": self.adapter,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "stop": self.stop,
            "max_calls": self.max_calls if self.parallel_tool_calls else 1,
            "trim": self.trim,
        }

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
        parallel_tool_calls: bool | None = None,
        strict: bool | None = None,  # noqa: ARG002 (other providers need it; here a call is always strict)
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Give the model tools.

        Args:
            tools: Tools in any form that LangChain knows.
            tool_choice: ``"auto"`` (the default), ``"any"``, ``"required"`` or True to force a call of some
                tool, ``"none"``, or a tool's name (plain or as OpenAI writes it).
            parallel_tool_calls: Whether an answer may hold several calls, at most :attr:`max_calls`; the
                model's own setting where None. Families that know one call a turn keep to one.
            strict: Without effect: arguments are always valid against their schema.
            kwargs: Settings of the calls.

        Raises:
            ValueError: If the choice names no tool.
        """
        described = [convert_to_openai_tool(tool) for tool in tools]
        names = [tool["function"]["name"] for tool in described]
        choice = conversation.tool_choice(tool_choice)
        if choice not in {"auto", "required", "none", *names}:
            raise ValueError(
                f"tool_choice {tool_choice!r} is none of the tools: {', '.join(names) or 'none'}"
            )
        if parallel_tool_calls is not None:
            kwargs["parallel_tool_calls"] = parallel_tool_calls
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
        for setting in _MEANINGLESS:
            kwargs.pop(setting, None)
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
        asked = self._asked(messages, stop, kwargs)
        return self._result(self.engine.generate(asked.request), asked)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 (LangChain's signature)
        **kwargs: Any,
    ) -> ChatResult:
        asked = self._asked(messages, stop, kwargs)
        answer = await background.call(lambda cancel: self.engine.generate(asked.request, cancel=cancel))
        return self._result(answer, asked)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        asked = self._asked(messages, stop, kwargs)
        for chunk in self.engine.stream(asked.request):
            for piece in self._pieces(chunk, asked):
                if run_manager is not None:
                    run_manager.on_llm_new_token(piece.text, chunk=piece)
                yield piece

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        asked = self._asked(messages, stop, kwargs)
        chunks = background.iterate(lambda cancel: self.engine.stream(asked.request, cancel=cancel))
        async with aclosing(chunks):
            async for chunk in chunks:
                for piece in self._pieces(chunk, asked):
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(piece.text, chunk=piece)
                    yield piece

    def _asked(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, settings: dict[str, Any]
    ) -> _Asked:
        settings = dict(settings)
        settings.pop("ls_structured_output_format", None)
        self._check_model(settings.pop("model", None))
        turns = [conversation.turn(message) for message in messages]
        schema = settings.pop("response_schema", None)
        if schema is not None:
            instruction = _INSTRUCTION + json.dumps(schema, ensure_ascii=False)
            turns = conversation.with_instruction(turns, instruction)
        tools = tuple(conversation.tool(tool) for tool in settings.pop("tools", ()))
        choice = conversation.tool_choice(settings.pop("tool_choice", None))
        max_tokens = settings.pop("max_tokens", self.max_tokens)
        most = settings.pop("max_calls", self.max_calls)
        parallel = settings.pop("parallel_tool_calls", self.parallel_tool_calls)
        trimmed = Trimmed(tuple(turns), 0)
        if settings.pop("trim", self.trim):
            trimmed = self._trimmed(turns, tools, max_tokens)
        request = GenerationRequest(
            trimmed.messages,
            tools,
            tool_choice=choice if tools and schema is None else "none",
            schema=schema,
            max_tokens=max_tokens,
            temperature=settings.pop("temperature", self.temperature),
            seed=settings.pop("seed", self.seed),
            stop=tuple(stop or self.stop),
            max_calls=most if parallel else 1,
            adapter=settings.pop("adapter", self.adapter),
            priority=settings.pop("priority", self.priority),
        )
        if settings:
            known = (
                "max_tokens, temperature, seed, stop, parallel_tool_calls, max_calls, adapter, priority, trim"
            )
            raise TypeError(f"unknown setting {min(settings)!r} (known: {known})")
        return _Asked(request, trimmed.dropped)

    def _trimmed(self, turns: Sequence[Message], tools: tuple[ToolSpec, ...], max_tokens: int) -> Trimmed:
        engine = self.engine
        if not turns or not isinstance(engine, TokenCounter):
            return Trimmed(tuple(turns), 0)
        limit = engine.context_length - max_tokens
        return trim(turns, lambda kept: engine.count_tokens(kept, tools), limit)

    def _check_model(self, name: str | None) -> None:
        if name is not None and name != self.model_name:
            raise ValueError(
                f"model {name!r} is not the one that answers, which is {self.model_name!r}; "
                f"open an engine for it and make a chat model of that"
            )

    def _pieces(self, chunk: Chunk, asked: _Asked) -> Iterator[ChatGenerationChunk]:
        if chunk.text:
            yield ChatGenerationChunk(message=AIMessageChunk(content=chunk.text))
        if chunk.final is not None:
            yield ChatGenerationChunk(message=self._last_chunk(chunk.final, asked))

    def _result(self, answer: Generation, asked: _Asked) -> ChatResult:
        message = AIMessage(
            content=answer.text,
            tool_calls=[
                LangChainToolCall(name=call.name, args=dict(call.arguments), id=call.id)
                for call in answer.tool_calls
            ],
            usage_metadata=conversation.usage_metadata(answer.usage),
            response_metadata=self._metadata(answer, asked),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _last_chunk(self, answer: Generation, asked: _Asked) -> AIMessageChunk:
        return AIMessageChunk(
            content="",
            tool_call_chunks=[
                tool_call_chunk(
                    name=call.name, args=json.dumps(dict(call.arguments)), id=call.id, index=index
                )
                for index, call in enumerate(answer.tool_calls)
            ],
            usage_metadata=conversation.usage_metadata(answer.usage),
            response_metadata=self._metadata(answer, asked),
            chunk_position="last",
        )

    def _metadata(self, answer: Generation, asked: _Asked) -> dict[str, Any]:
        identity = self.engine.identity
        metadata: dict[str, Any] = {
            "model_name": identity.id,
            "model_provider": "watchkeeper",
            "quantization": identity.quantization,
            "finish_reason": answer.finish_reason,
        }
        if asked.dropped:
            metadata["trimmed_messages"] = asked.dropped
        return metadata
