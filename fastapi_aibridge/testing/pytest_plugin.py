"""Fixtures for an app's tests: `pytest_plugins = ["fastapi_aibridge.testing.pytest_plugin"]` in its top `conftest.py`.

They have no entry point, because pytest would then import the package in every run, before coverage begins to count.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest
from fastapi import FastAPI

from .. import testing
from ..plugin import AIBridge
from ..principal import Principal
from ..recorder.memory import MemoryRecorder
from .overrides import TESTER
from .provider import ScriptedProvider
from .replies import Reply
from .spent import Spent


class OverrideBridge(Protocol):
    def __call__(self, app: FastAPI, principal: Principal = ...) -> None: ...


class OverrideProviders(Protocol):
    def __call__(self, aibridge: AIBridge) -> None: ...


@pytest.fixture
def scripted_provider() -> ScriptedProvider:
    """A provider that replies "Hello from the script." until its `script` is changed."""
    return ScriptedProvider(Reply("Hello from the script."))


@pytest.fixture
def memory_recorder() -> MemoryRecorder:
    """The recorder that the overrides below use."""
    return MemoryRecorder()


@pytest.fixture
def spent(memory_recorder: MemoryRecorder) -> Spent:
    """The cost of the test's requests so far, in US dollars: `spent.at_most(0.01)`."""
    return Spent(memory_recorder)


@pytest.fixture
def override_bridge(scripted_provider: ScriptedProvider, memory_recorder: MemoryRecorder) -> Iterator[OverrideBridge]:
    """`override_bridge(app, principal)` gives handlers of `app` a bridge to `scripted_provider` until the test ends."""
    with ExitStack() as stack:

        def override(app: FastAPI, principal: Principal = TESTER) -> None:
            context = testing.override_bridge(app, scripted_provider, principal=principal, recorder=memory_recorder)
            stack.enter_context(context)

        yield override


@pytest.fixture
def override_providers(
    scripted_provider: ScriptedProvider, memory_recorder: MemoryRecorder
) -> Iterator[OverrideProviders]:
    """`override_providers(aibridge)` makes `scripted_provider` every provider of `aibridge` until the test ends."""
    with ExitStack() as stack:

        def override(aibridge: AIBridge) -> None:
            stack.enter_context(testing.override_providers(aibridge, scripted_provider, recorder=memory_recorder))

        yield override
