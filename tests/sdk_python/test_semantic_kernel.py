"""The Semantic Kernel handler: its filter around functions that succeed and fail, and its hooks."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from agentlensai.integrations.semantic_kernel import (
    AgentLensSKHandler,
    init,
    instrument_semantic_kernel,
    uninstrument_semantic_kernel,
)

from conftest import World
from reading import Client, read_back


class Kernel:
    """As much of a kernel as the handler touches."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.filters: dict[str, Any] = {}

    def add_filter(self, kind: str, function: Any) -> None:
        self.filters[kind] = function


def context(name: str) -> SimpleNamespace:
    function = SimpleNamespace(name=name, plugin_name="files")
    return SimpleNamespace(function=function, arguments={"path": "a.txt"}, result=None, exception=None)


async def succeed(called: SimpleNamespace) -> None:
    called.result = "text"


async def fail(called: SimpleNamespace) -> None:
    called.exception = OSError("no such file")


async def explode(_: SimpleNamespace) -> None:
    raise OSError("the disk is gone")


def test_every_hook(reader: Client, world: World) -> None:
    kernel = Kernel(world.agent_id)
    handler = init(kernel, client=reader, session_id=world.session_id)
    assert kernel.filters == {"function_invocation": handler.filter}

    asyncio.run(handler.filter(context("read"), succeed))
    asyncio.run(handler.filter(context("read"), fail))
    with pytest.raises(OSError, match="the disk is gone"):
        asyncio.run(handler.filter(context("read"), explode))
    call_id = handler.on_ai_call("chat", "gpt-4o", [{"role": "user", "content": "Hello"}])
    handler.on_ai_response(call_id, "Hi", "chat", "gpt-4o", input_tokens=12, output_tokens=3)
    handler.on_planner_step(SimpleNamespace(step=1))

    assert [answer.status_code for answer in reader.answers] == [202] * 9
    story = read_back(reader, world.session_id, 9)
    assert story.types() == [
        "tool_call",
        "tool_response",
        "tool_call",
        "tool_error",
        "tool_call",
        "tool_response",
        "llm_call",
        "llm_response",
        "custom",
    ]
    assert {payload["toolName"] for payload in story.payloads("tool_call")} == {"files.read"}
    assert story.payloads("tool_call")[0]["arguments"] == {"path": "a.txt"}
    assert story.payloads("tool_error")[0]["error"] == "no such file"
    assert story.payloads("llm_response")[0]["completion"] == "Hi"
    assert story.payloads("custom")[0]["type"] == "planner_step"
    session = story.session
    assert (session.tool_call_count, session.error_count, session.llm_call_count) == (3, 1, 1)
    assert (session.total_input_tokens, session.total_output_tokens) == (12, 3)
    # The planner's step goes under the handler's own name, the rest under the kernel's.
    assert [event.agent_id for event in story.events] == [world.agent_id] * 8 + ["default"]
    assert story.events[0].metadata["kernel_name"] == world.agent_id


def test_handler_can_be_given(reader: Client, world: World) -> None:
    handler = AgentLensSKHandler(client=reader, agent_id=world.agent_id, session_id=world.session_id)

    assert init(Kernel("unused"), handler) is handler
    handler.on_planner_step("a step")

    assert read_back(reader, world.session_id, 1).events[0].agent_id == world.agent_id


@pytest.mark.parametrize("times", [1, 2])
def test_installation_of_hooks_is_harmless(times: int) -> None:
    for _ in range(times):
        instrument_semantic_kernel()
    for _ in range(times):
        uninstrument_semantic_kernel()
