"""The AutoGen handler, called as AutoGen's hooks would call it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from agentlensai import LlmAnalyticsParams
from agentlensai.integrations.autogen import (
    AgentLensAutoGenHandler,
    instrument_autogen,
    uninstrument_autogen,
)

from conftest import World
from reading import Client, eventually, read_back


def test_every_hook(reader: Client, world: World) -> None:
    planner = SimpleNamespace(name=f"planner-{world.agent_id}")
    coder = SimpleNamespace(_name=f"coder-{world.agent_id}", name=None)
    handler = AgentLensAutoGenHandler(client=reader, agent_id=world.agent_id, session_id=world.session_id)

    handler.on_conversation_start(planner, [planner, coder])
    assert handler.on_message_sent(planner, coder, {"role": "user", "content": "Sort it"}) is not None
    handler.on_message_received(planner, coder, "Sort it")
    call_id = handler.on_llm_call(coder, [{"role": "user", "content": "Sort it"}], model="gpt-4o")
    handler.on_llm_response(coder, "print(sorted(x))", call_id, "gpt-4o", input_tokens=40, output_tokens=9)
    code_id = handler.on_code_execution(coder, "print(sorted(x))")
    handler.on_code_result(coder, code_id, "NameError", exit_code=1)
    handler.on_code_result(coder, code_id, "[1, 2]", exit_code=0)
    tool_id = handler.on_tool_call(coder, "save", {"path": "a.txt"})
    handler.on_tool_result(coder, "save", "saved", tool_id)
    handler.on_conversation_end("Sorted")

    assert [answer.status_code for answer in reader.answers] == [202] * 11
    story = read_back(reader, world.session_id, 11)
    assert story.types() == [
        "session_started",
        "custom",
        "custom",
        "llm_call",
        "llm_response",
        "custom",
        "custom",
        "custom",
        "tool_call",
        "tool_response",
        "session_ended",
    ]
    # These payloads lack what their tables require: kept as sent, and what can be read is counted.
    assert story.payloads("llm_call") == [
        {"callId": call_id, "model": "gpt-4o", "messages": [{"role": "user", "content": "Sort it"}]}
    ]
    (response,) = story.payloads("llm_response")
    assert (response["inputTokens"], response["outputTokens"], "usage" in response) == (40, 9, False)
    assert story.session.total_input_tokens == 40
    assert story.session.total_output_tokens == 9
    assert story.session.total_cost_usd == pytest.approx((40 * 2.5 + 9 * 10) / 1_000_000, abs=1e-9)
    # A failed program is sent with a severity that does not exist, and is still an event.
    assert [event.severity for event in story.events][6:8] == ["warn", "info"]
    assert story.session.status == "completed"
    assert "reason" not in story.events[-1].payload
    assert {event.metadata["source"] for event in story.events} == {"autogen"}
    assert story.events[5].agent_id == f"coder-{world.agent_id}"

    def analytics() -> None:
        calls = reader.get_llm_analytics(LlmAnalyticsParams(agent_id=f"coder-{world.agent_id}")).summary
        assert (calls.total_calls, calls.total_input_tokens, calls.total_output_tokens) == (1, 40, 9)

    eventually(analytics)


def test_call_without_messages_is_still_a_call(reader: Client, world: World) -> None:
    handler = AgentLensAutoGenHandler(client=reader, agent_id=world.agent_id, session_id=world.session_id)
    agent = SimpleNamespace(name=world.agent_id)

    handler.on_llm_response(agent, None, handler.on_llm_call(agent))

    story = read_back(reader, world.session_id, 2)
    assert story.payloads("llm_call")[0]["messages"] == []
    assert story.payloads("llm_response")[0]["completion"] == ""


@pytest.mark.parametrize("times", [1, 2])
def test_installation_of_hooks_is_harmless(times: int) -> None:
    for _ in range(times):
        instrument_autogen()
    for _ in range(times):
        uninstrument_autogen()
