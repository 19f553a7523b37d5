"""Instrumentation of the provider libraries that are stood in for: what the SDK sends of their calls."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import agentlensai
import pytest

from absent_sdks import absent_sdks  # noqa: F401
from conftest import World
from reading import Client, read_back

ASK = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True)
class Case:
    """A provider, a call of its library, and what must arrive."""

    provider: str
    call: Callable[[], object]
    model: str
    messages: list[dict[str, Any]]
    completion: str
    tokens: tuple[int, int]
    cost_usd: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)


def module(name: str) -> Any:
    return sys.modules[name]


def gemini(name: str) -> Any:
    return module(name).GenerativeModel("gemini-2.0-flash")


async def _collect(stream: Any) -> list[Any]:
    return [chunk async for chunk in await stream]


VERTEX = "google.cloud.aiplatform.generative_models"
GEMINI = "google.generativeai"

CASES = {
    "litellm": Case(
        "litellm",
        lambda: module("litellm").completion(model="gpt-4o", messages=ASK, temperature=0.1, api_base="http://x"),
        "gpt-4o",
        ASK,
        "Light as air",
        (14, 4),
        0.00125,
        {"parameters": {"temperature": 0.1, "metadata": {"api_base": "http://x"}}},
    ),
    "litellm async": Case(
        "litellm",
        lambda: asyncio.run(module("litellm").acompletion(model="gpt-4o", messages=ASK)),
        "gpt-4o",
        ASK,
        "Light as air",
        (14, 4),
        0.00125,
    ),
    "litellm stream": Case(
        "litellm",
        lambda: list(module("litellm").completion(model="gpt-4o", messages=ASK, stream=True)),
        "gpt-4o",
        ASK,
        "Light stream",
        (9, 2),
    ),
    "litellm async stream": Case(
        "litellm",
        lambda: asyncio.run(_collect(module("litellm").acompletion(model="gpt-4o", messages=ASK, stream=True))),
        "gpt-4o",
        ASK,
        "Light stream",
        (9, 2),
    ),
    "mistral": Case(
        "mistral",
        lambda: module("mistralai.chat").Chat().complete(model="mistral-large-latest", messages=ASK),
        "mistral-large-latest",
        ASK,
        "Bonjour",
        (12, 7),
    ),
    "mistral async": Case(
        "mistral",
        lambda: asyncio.run(module("mistralai.chat").Chat().complete_async(model="mistral-tiny", messages=ASK)),
        "mistral-tiny",
        ASK,
        "Bonjour",
        (12, 7),
    ),
    "cohere v2": Case(
        "cohere",
        lambda: module("cohere").ClientV2().chat(model="command-r", messages=ASK),
        "command-r",
        ASK,
        "Two",
        (15, 2),
    ),
    "cohere v1": Case(
        "cohere",
        lambda: module("cohere").Client().chat(model="command-r", message="Hello"),
        "command-r",
        ASK,
        "One",
        (16, 1),
    ),
    "cohere generate": Case(
        "cohere",
        lambda: module("cohere").Client().generate(model="command", prompt="Hello"),
        "command",
        ASK,
        "Made up",
        (18, 9),
    ),
    # Nothing of a positional argument is captured: the call arrives without messages, which its table forbids.
    "gemini": Case(
        "gemini", lambda: gemini(GEMINI).generate_content("Hello"), "gemini-2.0-flash", [], "Twins", (25, 10)
    ),
    "gemini async": Case(
        "gemini",
        lambda: asyncio.run(gemini(GEMINI).generate_content_async(contents="Hello")),
        "gemini-2.0-flash",
        ASK,
        "Twins",
        (25, 10),
    ),
    "vertex": Case(
        "vertex",
        lambda: gemini(VERTEX).generate_content(contents=["Hello"]),
        "gemini-2.0-flash",
        ASK,
        "Twins",
        (25, 10),
    ),
    "vertex async": Case(
        "vertex",
        lambda: asyncio.run(gemini(VERTEX).generate_content_async(contents="Hello")),
        "gemini-2.0-flash",
        ASK,
        "Twins",
        (25, 10),
    ),
}


@pytest.mark.usefixtures("absent_sdks")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_call_arrives(instrument: Callable[..., str], reader: Client, world: World, case: Case) -> None:
    instrument(integrations=[case.provider])

    case.call()
    agentlensai.shutdown()

    story = read_back(reader, world.session_id, 2)
    (call,), (response,) = story.payloads("llm_call"), story.payloads("llm_response")
    assert (call["provider"], call["model"], call["messages"]) == (case.provider, case.model, case.messages)
    assert case.extra.items() <= call.items()
    assert response["completion"] == case.completion
    assert response["usage"] == {
        "inputTokens": case.tokens[0],
        "outputTokens": case.tokens[1],
        "totalTokens": sum(case.tokens),
    }
    assert response["costUsd"] == case.cost_usd
    if case.cost_usd:
        assert story.session.total_cost_usd == pytest.approx(case.cost_usd, abs=1e-9)
