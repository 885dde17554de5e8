"""What clients may send: the bodies of requests, checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from watchkeeper.models.interface import GenerationRequest

MOST_MESSAGES = 4096
MOST_TOOLS = 256
MOST_OPTIONS = 1024
DEFAULT_MAX_TOKENS = GenerationRequest(()).max_tokens


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Lenient(BaseModel):
    """Parts that clients send back as they got them, with fields that concern nobody here."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class TextPart(_Strict):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class CalledFunction(_Lenient):
    """A call in an assistant's message."""

    name: str
    arguments: str


class CallBody(_Lenient):
    """A call with its id."""

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction


def _not_null(value: Any) -> Any:
    return () if value is None else value


class MessageBody(_Lenient):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[TextPart, ...] | None = None
    tool_calls: Annotated[tuple[CallBody, ...], BeforeValidator(_not_null)] = ()
    tool_call_id: str | None = None


class FunctionBody(_Lenient):
    """A tool's function."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: Any = None


class ToolBody(_Lenient):
    """A tool."""

    type: Literal["function"]
    function: FunctionBody


class NamedFunction(_Strict):
    """The name of a tool."""

    name: str


class NamedChoice(_Strict):
    """A tool that must be called."""

    type: Literal["function"] = "function"
    function: NamedFunction


class SchemaBody(_Lenient):
    """A schema of the answer."""

    name: str = "answer"
    json_schema: Any = Field(alias="schema", default=None)


class FormatBody(_Strict):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaBody | None = None


class StreamOptions(_Lenient):
    """What a stream tells."""

    include_usage: bool = False


class ExtensionBody(_Strict):
    """What only clients of ours send.

    Attributes:
        verbatim: Add nothing to the prompt; otherwise a schema of the answer is shown to the model.
        call_schemas: Narrower argument schemas by tool, for the grammar only.
        max_calls: How many calls the answer may hold.
        priority: Requests of a higher one are computed first.
    """

    verbatim: bool = False
    call_schemas: dict[str, Any] = Field(default_factory=dict)
    max_calls: int | None = Field(default=None, ge=1, le=64)
    priority: int = Field(default=0, ge=-1000, le=1000)


class ChatBody(_Strict):
    """A chat completion that is asked for.

    Fields that would change the answer and are not supported take only the value that changes nothing;
    fields that concern bookkeeping elsewhere are taken and ignored.
    """

    model: str
    messages: tuple[MessageBody, ...] = Field(min_length=1, max_length=MOST_MESSAGES)
    tools: Annotated[tuple[ToolBody, ...], BeforeValidator(_not_null)] = Field(
        default=(), max_length=MOST_TOOLS
    )
    tool_choice: Literal["auto", "none", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: FormatBody | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | tuple[str, ...] | None = None
    seed: int | None = None
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    watchkeeper: ExtensionBody = ExtensionBody()

    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    top_p: Annotated[float, Field(ge=1, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None

    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class ChooseBody(_Strict):
    """A closed question."""

    model: str
    messages: tuple[MessageBody, ...] = Field(min_length=1, max_length=MOST_MESSAGES)
    lead: str = ""
    options: tuple[str, ...] = Field(min_length=1, max_length=MOST_OPTIONS)
    neutral: tuple[MessageBody, ...] | None = Field(default=None, max_length=MOST_MESSAGES)
    neutral_weight: float = Field(default=1.0, allow_inf_nan=False)
    priority: int = Field(default=0, ge=-1000, le=1000)
