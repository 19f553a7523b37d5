"""`agentlensai.init` over the real provider libraries: what they did is what the server tells."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import agentlensai
import anthropic
import boto3
import ollama
import openai
import pytest
from agentlensai import PII_CREDIT_CARD, PII_EMAIL, PII_PHONE, PII_SSN
from agentlensai.integrations.registry import get_active_providers

from conftest import World
from providers import TOOL_ARGUMENTS, Providers
from reading import Client, Story, read_back
from server import Server

ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
WEATHER_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


def openai_client(providers: Providers) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{providers.url}/v1", api_key="sk-test", max_retries=0)


def cost(input_tokens: int, input_price: float, output_tokens: int, output_price: float) -> Any:
    """Dollars, from prices for a million tokens; the server counts in nano-dollars."""
    return pytest.approx((input_tokens * input_price + output_tokens * output_price) / 1_000_000, abs=1e-9)


def finished(reader: Client, world: World, count: int) -> Story:
    """After the background sender has emptied its queue."""
    agentlensai.shutdown()
    story = read_back(reader, world.session_id, count)
    assert all(event.metadata == {"source": "auto-instrumentation"} for event in story.events)
    assert all(event.agent_id == world.agent_id for event in story.events)
    calls, responses = story.payloads("llm_call"), story.payloads("llm_response")
    assert sorted(payload["callId"] for payload in calls) == sorted(payload["callId"] for payload in responses)
    assert all(payload["latencyMs"] > 0 for payload in responses)
    return story


@pytest.mark.parametrize("sync_mode", [False, True])
def test_openai(
    instrument: Callable[..., str], providers: Providers, reader: Client, world: World, sync_mode: bool
) -> None:
    assert instrument(sync_mode=sync_mode, integrations=["openai"]) == world.session_id
    model = openai_client(providers)

    answer = model.chat.completions.create(model="gpt-4o", messages=ASK, temperature=0.3, max_tokens=64, stop=["END"])

    assert answer.choices[0].message.content == "Grüezi 👋"
    (request,) = providers.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer sk-test", "the provider's key goes to the provider only"
    assert request.body == {
        "model": "gpt-4o",
        "messages": ASK,
        "temperature": 0.3,
        "max_tokens": 64,
        "stop": ["END"],
    }
    story = finished(reader, world, 2)
    assert story.types() == ["llm_call", "llm_response"]
    call, response = (dict(event.payload) for event in story.events)
    assert call.pop("callId") == response.pop("callId")
    assert call == {
        "provider": "openai",
        "model": "gpt-4o-2024-08-06",
        "messages": ASK,
        "systemPrompt": "Be brief.",
        "parameters": {"temperature": 0.3, "max_tokens": 64, "stop": ["END"]},
    }
    del response["latencyMs"]
    assert response == {
        "provider": "openai",
        "model": "gpt-4o-2024-08-06",
        "completion": "Grüezi 👋",
        "finishReason": "stop",
        "usage": {"inputTokens": 21, "outputTokens": 8, "totalTokens": 29},
        "costUsd": 0.0,
    }
    assert (story.session.llm_call_count, story.session.total_input_tokens) == (1, 21)
    # The SDK knows no prices for OpenAI and Anthropic and sends 0, which yields to the server's price table.
    assert story.session.total_cost_usd == cost(21, 2.5, 8, 10)


def test_openai_tool_call_whose_arguments_are_text(
    instrument: Callable[..., str], providers: Providers, reader: Client, world: World
) -> None:
    instrument(integrations=["openai"])

    openai_client(providers).chat.completions.create(model="gpt-4o", messages=ASK, tools=[WEATHER_TOOL])

    (response,) = finished(reader, world, 2).payloads("llm_response")
    assert response["completion"] is None
    assert response["finishReason"] == "tool_calls"
    assert response["toolCalls"] == [{"id": "call_1", "name": "get_weather", "arguments": TOOL_ARGUMENTS}]


def test_openai_messages_of_every_kind(
    instrument: Callable[..., str], providers: Providers, reader: Client, world: World
) -> None:
    """A developer message, parts, a turn without text and a tool's answer: more than the protocol's table knows."""
    instrument(integrations=["openai"])
    tool_call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "What is"}, image, {"type": "text", "text": "this?"}]},
        {"role": "assistant", "content": None, "tool_calls": [tool_call]},
        {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
    ]

    openai_client(providers).chat.completions.create(model="gpt-4o", messages=messages)

    assert providers.requests[0].body["messages"] == messages
    (call,) = finished(reader, world, 2).payloads("llm_call")
    assert [message["role"] for message in call["messages"]] == ["developer", "user", "assistant", "tool"]
    assert [message["content"] for message in call["messages"]] == ["Be kind.", "What is  this?", "", "sunny"]


def test_openai_async(instrument: Callable[..., str], providers: Providers, reader: Client, world: World) -> None:
    instrument(integrations=["openai"])

    async def ask_five() -> None:
        async with openai.AsyncOpenAI(base_url=f"{providers.url}/v1", api_key="sk-test", max_retries=0) as model:
            asking = [
                model.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": f"Question {n}"}])
                for n in range(5)
            ]
            await asyncio.gather(*asking)

    asyncio.run(ask_five())

    story = finished(reader, world, 10)
    asked = {call["messages"][0]["content"] for call in story.payloads("llm_call")}
    assert asked == {f"Question {n}" for n in range(5)}
    assert story.session.total_output_tokens == 5 * 8


def test_azure_openai(
    instrument: Callable[..., str],
    providers: Providers,
    reader: Client,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The SDK knows Azure by the name of its host, so that name leads to the stand-in here."""
    host = "weather.openai.azure.com"
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, *rest, **more: resolve(_local(name, host), *rest, **more))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, host)
    instrument(integrations=["openai"])
    port = urlsplit(providers.url).port
    model = openai.AzureOpenAI(
        azure_endpoint=f"http://{host}:{port}",
        azure_deployment="prod",
        api_version="2026-01-01",
        api_key="az",
        max_retries=0,
    )

    model.chat.completions.create(model="gpt-4o", messages=ASK)

    assert providers.requests[0].path == "/openai/deployments/prod/chat/completions"
    (call,) = finished(reader, world, 2).payloads("llm_call")
    assert call["provider"] == "azure_openai"
    assert call["parameters"]["azure"]["region"] == "weather"


def _local(name: Any, host: str) -> Any:
    return "127.0.0.1" if name in (host, host.encode()) else name


def test_stream_passes_untouched(
    instrument: Callable[..., str], providers: Providers, reader: Client, world: World
) -> None:
    """This SDK does not capture streams. The call beside it shows that instrumentation was on."""
    instrument(integrations=["openai"])
    model = openai_client(providers)

    stream = model.chat.completions.create(model="gpt-4o", messages=ASK, stream=True)
    assert "".join(chunk.choices[0].delta.content for chunk in stream) == "Hello there"
    model.chat.completions.create(model="gpt-4o", messages=ASK)

    finished(reader, world, 2)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_anthropic(
    instrument: Callable[..., str], providers: Providers, reader: Client, world: World, kind: str
) -> None:
    instrument(integrations=["anthropic"])
    parts = [{"type": "text", "text": "Find"}, {"type": "text", "text": "Rust"}]
    asked: dict[str, Any] = {
        "model": "claude-sonnet-4",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "You search."}],
        "messages": [{"role": "user", "content": parts}],
        "stop_sequences": ["END"],
    }
    settings: dict[str, Any] = {"base_url": providers.url, "api_key": "sk-ant-test", "max_retries": 0}

    async def ask_async() -> Any:
        async with anthropic.AsyncAnthropic(**settings) as model:
            return await model.messages.create(**asked)

    if kind == "sync":
        answer = anthropic.Anthropic(**settings).messages.create(**asked)
    else:
        answer = asyncio.run(ask_async())

    assert answer.stop_reason == "tool_use"
    (request,) = providers.requests
    assert (request.path, request.body) == ("/v1/messages", asked)
    assert request.headers["authorization"] == "Bearer sk-ant-test", "the provider's key goes to the provider only"
    story = finished(reader, world, 2)
    (call,), (response,) = story.payloads("llm_call"), story.payloads("llm_response")
    assert (call["provider"], call["model"]) == ("anthropic", "claude-sonnet-4-20250514")
    assert call["systemPrompt"] == "You search."
    assert call["messages"] == [{"role": "user", "content": "Find Rust"}]
    assert call["parameters"] == {"max_tokens": 100, "stop_sequences": ["END"]}
    assert response["completion"] == "Let me look."
    assert response["finishReason"] == "tool_use"
    assert response["toolCalls"] == [{"id": "toolu_1", "name": "search", "arguments": {"query": "rust", "limit": 5}}]
    assert response["usage"] == {"inputTokens": 34, "outputTokens": 13, "totalTokens": 47}
    assert (story.session.total_input_tokens, story.session.total_output_tokens) == (34, 13)
    assert story.session.total_cost_usd == cost(34, 3, 13, 15)


def test_ollama(
    instrument: Callable[..., str],
    providers: Providers,
    reader: Client,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The library's own client, behind `ollama.chat`, took its address when it was imported.
    monkeypatch.setattr(ollama.list.__self__._client, "base_url", providers.url)
    instrument(integrations=["ollama"])

    async def ask_async() -> None:
        await ollama.AsyncClient(host=providers.url).chat(model="llama3.2", messages=ASK)

    ollama.chat(model="llama3.2", messages=ASK)
    ollama.Client(host=providers.url).chat(model="llama3.2", messages=ASK)
    asyncio.run(ask_async())

    assert [request.path for request in providers.requests] == ["/api/chat"] * 3
    story = finished(reader, world, 6)
    for call, response in zip(story.payloads("llm_call"), story.payloads("llm_response"), strict=True):
        assert (call["provider"], call["model"], call["messages"]) == ("ollama", "llama3.2", ASK)
        assert response["completion"] == "Hi from a llama"
    assert (story.session.total_input_tokens, story.session.total_output_tokens) == (33, 18)
    assert story.session.total_cost_usd == 0


def test_bedrock(instrument: Callable[..., str], providers: Providers, reader: Client, world: World) -> None:
    instrument(integrations=["bedrock"])
    client = boto3.client(
        "bedrock-runtime",
        region_name="eu-central-1",
        endpoint_url=providers.url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    model = "anthropic.claude-3-haiku-20240307-v1:0"
    asked = {"system": "Be brief.", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 10}

    invoked = client.invoke_model(modelId=model, body=json.dumps(asked))
    assert json.load(io.BytesIO(invoked["body"].read()))["content"][0]["text"] == "Hi from Bedrock"
    conversed = client.converse(
        modelId=model,
        system=[{"text": "Be brief."}],
        messages=[{"role": "user", "content": [{"text": "Hello again"}]}],
    )
    assert conversed["stopReason"] == "end_turn"

    assert [request.path for request in providers.requests] == [f"/model/{model}/invoke", f"/model/{model}/converse"]
    story = finished(reader, world, 4)
    assert [call["messages"][0]["content"] for call in story.payloads("llm_call")] == ["Hello", "Hello again"]
    assert {(call["provider"], call["model"], call["systemPrompt"]) for call in story.payloads("llm_call")} == {
        ("bedrock", model, "Be brief.")
    }
    assert [r["completion"] for r in story.payloads("llm_response")] == ["Hi from Bedrock", "Conversed"]
    assert (story.session.total_input_tokens, story.session.total_output_tokens) == (17 + 19, 5 + 3)
    assert story.session.total_cost_usd == cost(17 + 19, 0.25, 5 + 3, 1.25)


def test_everything_installed_is_found(instrument: Callable[..., str]) -> None:
    instrument()

    assert {"openai", "anthropic", "ollama", "bedrock"} <= set(get_active_providers())


def test_settings_from_the_environment(
    server: Server, providers: Providers, reader: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTLENS_SERVER_URL", server.url)
    monkeypatch.setenv("AGENTLENS_API_KEY", server.api_key)
    try:
        session_id = agentlensai.init(agent_id=world.agent_id, integrations=["openai"])
        assert agentlensai.current_session_id() == session_id
        assert agentlensai.init(session_id="another") == session_id, "a second start changes nothing"
        openai_client(providers).chat.completions.create(model="gpt-4o", messages=ASK)
    finally:
        agentlensai.shutdown()

    assert agentlensai.current_session_id() is None
    openai_client(providers).chat.completions.create(model="gpt-4o", messages=ASK)
    # The second call came after the end: it went to the provider and not to the server.
    assert len(providers.requests) == 2
    assert read_back(reader, session_id, 2).session.agent_id == world.agent_id


def test_redaction(instrument: Callable[..., str], providers: Providers, reader: Client, world: World) -> None:
    instrument(integrations=["openai"], redact=True)

    openai_client(providers).chat.completions.create(model="gpt-4o", messages=ASK)

    call, response = (event.payload for event in finished(reader, world, 2).events)
    assert providers.requests[0].body["messages"] == ASK, "the provider still gets the text"
    assert call["systemPrompt"] == "[REDACTED]"
    assert response["completion"] == "[REDACTED]"
    assert {message["content"] for message in call["messages"]} == {"[REDACTED]"}
    assert response["usage"]["totalTokens"] == 29


def test_personal_data_is_filtered_before_it_leaves(
    instrument: Callable[..., str], providers: Providers, reader: Client, world: World
) -> None:
    instrument(
        integrations=["openai"],
        pii_patterns=[PII_EMAIL, PII_SSN, PII_CREDIT_CARD, PII_PHONE],
        pii_filter=lambda text: text.replace("Ann", "[NAME]"),
    )
    text = "Ann, ann@example.com, 078-05-1120, 4111 1111 1111 1111, 555-867-5309"

    openai_client(providers).chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": text}])

    (call,) = finished(reader, world, 2).payloads("llm_call")
    assert call["messages"] == [{"role": "user", "content": "[NAME], " + ", ".join(["[REDACTED]"] * 4)}]


def test_provider_error_reaches_the_program_and_nothing_else_happens(
    instrument: Callable[..., str], providers: Providers, reader: Client, world: World
) -> None:
    instrument(integrations=["openai"])
    broken = openai.OpenAI(base_url=f"{providers.url}/nowhere/", api_key="sk-test", max_retries=0)
    with pytest.raises(openai.NotFoundError):
        broken.completions.create(model="gpt-4o", prompt="Hello")

    openai_client(providers).chat.completions.create(model="gpt-4o", messages=ASK)

    finished(reader, world, 2)


def test_server_that_is_away_is_not_noticed_by_the_program(
    instrument: Callable[..., str], providers: Providers
) -> None:
    instrument(server_url="http://127.0.0.1:9", integrations=["openai"], sync_mode=True)

    answer = openai_client(providers).chat.completions.create(model="gpt-4o", messages=ASK)

    assert answer.usage is not None
    assert answer.usage.total_tokens == 29
