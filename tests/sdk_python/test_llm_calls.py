"""`log_llm_call` and the analytics that are made of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from agentlensai import (
    LlmAnalyticsParams,
    LlmMessage,
    LogLlmCallParams,
    TokenUsage,
    ToolCallDef,
    ToolDef,
)

from conftest import World
from reading import Client, eventually, read_back


def llm_call(**fields: Any) -> LogLlmCallParams:
    settings = {
        "provider": "openai",
        "model": "gpt-4o",
        "messages": [LlmMessage(role="user", content="Hello")],
        "completion": "Hi",
        "finish_reason": "stop",
        "usage": TokenUsage(input_tokens=100, output_tokens=20, total_tokens=120),
        "cost_usd": 0.00045,
        "latency_ms": 812.5,
    }
    return LogLlmCallParams(**(settings | fields))


def test_a_call_comes_back_as_it_was_logged(client: Client, world: World) -> None:
    usage = TokenUsage(
        input_tokens=1200,
        output_tokens=340,
        total_tokens=1540,
        thinking_tokens=64,
        cache_read_tokens=800,
        cache_write_tokens=100,
    )
    search = ToolCallDef(id="call_1", name="search", arguments={"query": 'héllo "w"\n 😀', "10": 1, "2": 0.5})
    logged = client.log_llm_call(
        world.session_id,
        world.agent_id,
        llm_call(
            messages=[
                LlmMessage(role="system", content="Be brief."),
                LlmMessage(role="user", content=[{"type": "text", "text": "Look it up"}]),
                LlmMessage(role="assistant", content="", tool_calls=[search]),
                LlmMessage(role="tool", content="found", tool_call_id="call_1"),
            ],
            system_prompt="Be brief.",
            completion=None,
            tool_calls=[search],
            finish_reason="tool_calls",
            usage=usage,
            cost_usd=0.0123,
            latency_ms=1534.25,
            parameters={"temperature": 0.2, "maxTokens": 512, "stopSequences": ["END"], "seed": 1e21},
            tools=[ToolDef(name="search", description="Searches", parameters={"type": "object"})],
        ),
    )

    assert client.answers[0].status_code == 202
    story = read_back(client, world.session_id, 2)
    call, response = story.events
    assert story.types() == ["llm_call", "llm_response"]
    assert (call.agent_id, call.severity, call.metadata) == (world.agent_id, "info", {})
    assert call.timestamp == response.timestamp
    assert call.timestamp.endswith("+00:00"), "the time is kept as the client wrote it"
    arguments = {"2": 0.5, "10": 1, "query": 'héllo "w"\n 😀'}
    tool_call = {"id": "call_1", "name": "search", "arguments": arguments}
    assert call.payload == {
        "callId": logged.call_id,
        "provider": "openai",
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Look it up"}]},
            {"role": "assistant", "content": "", "toolCalls": [tool_call]},
            {"role": "tool", "content": "found", "toolCallId": "call_1"},
        ],
        "systemPrompt": "Be brief.",
        "parameters": {"temperature": 0.2, "maxTokens": 512, "stopSequences": ["END"], "seed": 1e21},
        "tools": [{"name": "search", "description": "Searches", "parameters": {"type": "object"}}],
    }
    assert response.payload == {
        "callId": logged.call_id,
        "provider": "openai",
        "model": "gpt-4o",
        "completion": None,
        "finishReason": "tool_calls",
        "usage": {
            "inputTokens": 1200,
            "outputTokens": 340,
            "totalTokens": 1540,
            "thinkingTokens": 64,
            "cacheReadTokens": 800,
            "cacheWriteTokens": 100,
        },
        "costUsd": 0.0123,
        "latencyMs": 1534.25,
        "toolCalls": [tool_call],
    }
    session = story.session
    assert (session.agent_id, session.status, session.ended_at, session.tags) == (world.agent_id, "active", None, [])
    assert (session.llm_call_count, session.total_input_tokens, session.total_output_tokens) == (1, 1200, 340)
    assert session.total_cost_usd == pytest.approx(0.0123, abs=1e-9)


def test_redacted_call_keeps_figures_and_no_text(client: Client, world: World) -> None:
    client.log_llm_call(
        world.session_id, world.agent_id, llm_call(system_prompt="secret", completion="secret", redact=True)
    )

    call, response = read_back(client, world.session_id, 2).events
    assert call.payload["redacted"] is True
    assert response.payload["redacted"] is True
    assert call.payload["systemPrompt"] == "[REDACTED]"
    assert call.payload["messages"] == [{"role": "user", "content": "[REDACTED]"}]
    assert response.payload["completion"] == "[REDACTED]"
    assert response.payload["usage"]["inputTokens"] == 100


def test_large_conversation_is_kept_whole(client: Client, world: World) -> None:
    text = "Ein langer Satz über vieles. 漢字 " * 20_000

    client.log_llm_call(world.session_id, world.agent_id, llm_call(messages=[LlmMessage(role="user", content=text)]))

    (payload,) = read_back(client, world.session_id, 2).payloads("llm_call")
    assert payload["messages"] == [{"role": "user", "content": text}]


# Provider, model, input, output, dollars, milliseconds of each call.
CALLS = [
    ("openai", "gpt-4o", 1000, 100, 0.0035, 900),
    ("openai", "gpt-4o", 2000, 300, 0.008, 1100),
    ("openai", "gpt-4o-mini", 500, 50, 0.000105, 300),
    ("anthropic", "claude-sonnet-4-20250514", 3000, 700, 0.0195, 2500),
    ("anthropic", "claude-sonnet-4-20250514", 1, 1, 0.000018, 200),
]


def _totals(calls: list[tuple[str, str, int, int, float, int]]) -> dict[str, Any]:
    cost = sum(call[4] for call in calls)
    return {
        "calls": len(calls),
        "input_tokens": sum(call[2] for call in calls),
        "output_tokens": sum(call[3] for call in calls),
        "cost_usd": pytest.approx(cost, abs=1e-9),
        "avg_latency_ms": pytest.approx(sum(call[5] for call in calls) / len(calls), abs=0.01),
    }


def _summary(calls: list[tuple[str, str, int, int, float, int]]) -> dict[str, Any]:
    totals = _totals(calls)
    cost = sum(call[4] for call in calls)
    return {
        "total_calls": totals["calls"],
        "total_cost_usd": totals["cost_usd"],
        "total_input_tokens": totals["input_tokens"],
        "total_output_tokens": totals["output_tokens"],
        "avg_latency_ms": totals["avg_latency_ms"],
        "avg_cost_per_call": pytest.approx(cost / len(calls), abs=1e-9),
    }


def test_analytics_are_exact(client: Client, world: World) -> None:
    for provider, model, input_tokens, output_tokens, cost_usd, latency_ms in CALLS:
        usage = TokenUsage(
            input_tokens=input_tokens, output_tokens=output_tokens, total_tokens=input_tokens + output_tokens
        )
        call = llm_call(provider=provider, model=model, usage=usage, cost_usd=cost_usd, latency_ms=latency_ms)
        client.log_llm_call(world.session_id, world.agent_id, call)
    story = read_back(client, world.session_id, 2 * len(CALLS))
    assert story.session.total_cost_usd == pytest.approx(sum(call[4] for call in CALLS), abs=1e-9)

    def check(kept: list[tuple[str, str, int, int, float, int]], **filters: str) -> Any:
        def read() -> Any:
            result = client.get_llm_analytics(LlmAnalyticsParams(agent_id=world.agent_id, **filters))
            assert result.summary.model_dump() == _summary(kept)
            return result

        return eventually(read)

    everything = check(CALLS)
    by_model = {(row.provider, row.model): row.model_dump(exclude={"provider", "model"}) for row in everything.by_model}
    assert by_model == {
        name: _totals([call for call in CALLS if call[:2] == name]) for name in {call[:2] for call in CALLS}
    }
    check([call for call in CALLS if call[0] == "anthropic"], provider="anthropic")
    check([call for call in CALLS if call[1] == "gpt-4o"], model="gpt-4o")
    for granularity in ("hour", "day", "week"):
        by_time = check(CALLS, granularity=granularity).by_time
        # One bucket, or two if the clock struck meanwhile.
        assert 1 <= len(by_time) <= 2
        assert sum(row.calls for row in by_time) == len(CALLS)
        assert sum(row.input_tokens for row in by_time) == sum(call[2] for call in CALLS)
        assert sum(row.output_tokens for row in by_time) == sum(call[3] for call in CALLS)
        assert sum(row.cost_usd for row in by_time) == pytest.approx(sum(call[4] for call in CALLS), abs=1e-9)


def test_analytics_of_an_agent_without_calls_are_zero(client: Client, world: World) -> None:
    result = client.get_llm_analytics(LlmAnalyticsParams(agent_id=world.agent_id))

    assert result.summary.total_calls == 0
    assert result.summary.total_cost_usd == 0
    assert result.by_model == []
    assert all(row.calls == 0 for row in result.by_time)


def test_analytics_keep_to_their_time(client: Client, world: World) -> None:
    client.log_llm_call(world.session_id, world.agent_id, llm_call())
    read_back(client, world.session_id, 2)

    past = LlmAnalyticsParams(agent_id=world.agent_id, from_time="2026-01-01T00:00:00Z", to_time="2026-01-02T00:00:00Z")
    assert client.get_llm_analytics(past).summary.total_calls == 0
    assert client.get_llm_analytics().summary.total_calls >= 1


def test_concurrent_writers_share_one_unbroken_chain(reader: Client, world: World, connect: Any, server: Any) -> None:
    writers, calls = 6, 8

    def write(client: Client) -> None:
        for _ in range(calls):
            client.log_llm_call(world.session_id, world.agent_id, llm_call())

    clients = [connect("sync", server.url, server.api_key) for _ in range(writers)]
    threads = [threading.Thread(target=write, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    story = read_back(reader, world.session_id, 2 * writers * calls)
    assert story.session.total_cost_usd == pytest.approx(0.00045 * writers * calls, abs=1e-9)
    assert all(len(client.answers) == calls for client in clients), "nothing was tried twice"
    asked = [payload["callId"] for payload in story.payloads("llm_call")]
    answered = [payload["callId"] for payload in story.payloads("llm_response")]
    assert len(set(asked)) == writers * calls
    assert sorted(asked) == sorted(answered)
