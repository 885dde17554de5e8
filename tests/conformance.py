"""LangChain's conformance kit, made to run here: its coroutines are awaited, its plug-ins stood in for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from watchkeeper.models.chat import WatchkeeperChatModel

for _name, _test in inspect.getmembers(ChatModelIntegrationTests, inspect.iscoroutinefunction):
    # The kit counts on asyncio_mode=auto; a mark on the class would hit its other tests too.
    pytest.mark.asyncio(_test)


class Conforming:
    """What the kit is told about the chat model; a class of tests adds :attr:`chat_model_params`."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return WatchkeeperChatModel

    @property
    def supports_model_override(self) -> bool:
        # An engine hosts one model; a request for another one is refused, which is tested elsewhere.
        return False

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @pytest.fixture
    def benchmark(self) -> Callable[..., Any]:
        """Call once: whether it works is tested here, not how long it takes."""
        return lambda function, *arguments: function(*arguments)

    @pytest.fixture
    def vcr(self) -> None:
        """No traffic, so nothing to record; the kit skips the test that asks for it."""


class UnitConformance(Conforming, ChatModelUnitTests):
    """The kit's tests that ask no model."""


class IntegrationConformance(Conforming, ChatModelIntegrationTests):
    """The kit's tests that ask a model."""
