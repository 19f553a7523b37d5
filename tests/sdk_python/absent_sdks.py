"""Stand-ins for provider libraries that are too heavy to install, or whose current releases have moved away from the
names the SDK hooks into. They carry just those names; what the SDK makes of a call is still the SDK's own code.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from typing import Any

import pytest


def value(**fields: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(**fields)


class LlmUsage(types.SimpleNamespace):
    """Token counts under the names that OpenAI's format has given to everybody."""

    def __init__(self, prompt: int, completion: int) -> None:
        super().__init__(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def chat_completion(model: str, text: str, usage: LlmUsage) -> types.SimpleNamespace:
    message = value(content=text, tool_calls=None)
    return value(model=model, usage=usage, choices=[value(message=message, finish_reason="stop")])


def _completion(**call: Any) -> Any:
    if call.get("stream"):
        return iter(_chunks())
    return chat_completion(call["model"], "Light as air", LlmUsage(14, 4))


async def _acompletion(**call: Any) -> Any:
    if call.get("stream"):
        return _async_chunks()
    return chat_completion(call["model"], "Light as air", LlmUsage(14, 4))


def _chunks() -> list[types.SimpleNamespace]:
    return [
        value(choices=[value(delta=value(content="Light"))]),
        value(choices=[value(delta=value(content=" stream"))], usage=LlmUsage(9, 2)),
    ]


async def _async_chunks() -> Any:
    for chunk in _chunks():
        yield chunk


class MistralChat:
    # Neither method calls the other: both get patched, and a call would be captured twice.
    def complete(self, **call: Any) -> Any:
        return chat_completion(call["model"], "Bonjour", LlmUsage(12, 7))

    async def complete_async(self, **call: Any) -> Any:
        return chat_completion(call["model"], "Bonjour", LlmUsage(12, 7))


class CohereClientV2:
    def chat(self, **_: Any) -> Any:
        return value(
            message=value(content=[value(text="Two")]), usage=value(tokens=value(input_tokens=15, output_tokens=2))
        )


class CohereClient:
    def chat(self, **_: Any) -> Any:
        return value(text="One", meta=value(tokens=value(input_tokens=16, output_tokens=1)))

    def generate(self, **_: Any) -> Any:
        tokens = value(input_tokens=18, output_tokens=9)
        return value(generations=[value(text="Made up")], meta=value(tokens=tokens))


class GenerativeModel:
    """Google's two libraries name it alike."""

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name

    def generate_content(self, *_: Any, **__: Any) -> Any:
        return _generated()

    async def generate_content_async(self, *_: Any, **__: Any) -> Any:
        return _generated()


def _generated() -> Any:
    usage = value(prompt_token_count=25, candidates_token_count=10, total_token_count=35)
    return value(usage_metadata=usage, candidates=[value(content=value(parts=[value(text="Twins")]))])


MODULES: dict[str, dict[str, Any]] = {
    "litellm": {"completion": _completion, "acompletion": _acompletion, "completion_cost": lambda **_: 0.00125},
    "mistralai": {},
    "mistralai.chat": {"Chat": MistralChat},
    "cohere": {"ClientV2": CohereClientV2, "Client": CohereClient},
    "google": {},
    "google.generativeai": {"GenerativeModel": type("GenerativeModel", (GenerativeModel,), {})},
    "google.cloud": {},
    "google.cloud.aiplatform": {},
    "google.cloud.aiplatform.generative_models": {"GenerativeModel": type("GenerativeModel", (GenerativeModel,), {})},
}


@pytest.fixture
def absent_sdks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the stand-ins where `import` finds them."""
    for name, content in MODULES.items():
        module = types.ModuleType(name)
        # A package, so that what is below it can be looked for; with a spec, so that `find_spec` answers.
        module.__path__ = []
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    return
