"""The chat model keeps LangChain's contract with the default model behind it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, cast

import pytest
from langchain_core.messages import AIMessage

from tests.conformance import IntegrationConformance
from watchkeeper.models.chat import WatchkeeperChatModel
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.errors import ModelError
from watchkeeper.models.loading import load

pytestmark = pytest.mark.model
QUESTION = "In one short sentence: why should a server have more than one disk?"


@functools.cache
def engine() -> LocalEngine:
    try:
        return LocalEngine(load("qwen2.5-coder-0.5b-instruct"))
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", autouse=True)
def _closed_at_the_end() -> Iterator[None]:
    yield
    if engine.cache_info().currsize:
        engine().close()
        engine.cache_clear()


class TestAskingTheDefaultModel(IntegrationConformance):
    """Greedy, so that a run is like the one before."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"engine": engine(), "max_tokens": 128}

    @property
    def supported_usage_metadata_details(self) -> Any:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        model = WatchkeeperChatModel(**self.chat_model_params)
        model.invoke(QUESTION, max_tokens=8)
        if not stream:
            return cast(AIMessage, model.invoke(QUESTION, max_tokens=8))
        first, *rest = model.stream(QUESTION, max_tokens=8)
        for chunk in rest:
            first += chunk  # type: ignore[assignment]
        return first
