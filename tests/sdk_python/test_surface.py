"""The suite covers the whole published package: a release with a method, a handler or a provider more fails here."""

from __future__ import annotations

import inspect
import pkgutil
from importlib.metadata import version
from pathlib import Path

import agentlensai
import agentlensai.integrations
import pytest
from agentlensai import AgentLensClient, AsyncAgentLensClient
from agentlensai.integrations.autogen import AgentLensAutoGenHandler
from agentlensai.integrations.crewai import AgentLensCrewAIHandler
from agentlensai.integrations.langchain import AgentLensCallbackHandler
from agentlensai.integrations.semantic_kernel import AgentLensSKHandler

from not_built import NOT_BUILT

HERE = Path(__file__).parent

BUILT = {
    "close",
    "get_agent",
    "get_event",
    "get_llm_analytics",
    "get_session",
    "get_session_timeline",
    "get_sessions",
    "health",
    "log_llm_call",
    "query_events",
}

PROVIDERS = {"anthropic", "bedrock", "cohere", "gemini", "litellm", "mistral", "ollama", "openai", "vertex"}
FRAMEWORKS = {"autogen", "crewai", "langchain", "semantic_kernel"}
# Parts of the SDK that the modules above are made of.
SHARED = {"base", "base_llm", "pricing", "registry"}


def public_methods(of: type) -> set[str]:
    return {name for name, member in vars(of).items() if inspect.isfunction(member) and not name.startswith("_")}


def test_the_installed_package_is_the_pinned_one() -> None:
    requirements = (HERE / "requirements.txt").read_text().splitlines()
    assert f"agentlensai=={version('agentlensai')}" in requirements
    assert agentlensai.__version__ == version("agentlensai")


@pytest.mark.parametrize("client", [AgentLensClient, AsyncAgentLensClient])
def test_every_client_method_is_covered(client: type) -> None:
    not_built = {method for calls in NOT_BUILT.values() for method in calls}
    assert not BUILT & not_built
    assert public_methods(client) == BUILT | not_built
    sources = "".join(path.read_text() for path in HERE.glob("*.py") if path.name != Path(__file__).name)
    assert {method for method in BUILT if f".{method}(" not in sources} == set()


def test_every_integration_is_covered() -> None:
    found = {module.name for module in pkgutil.iter_modules(agentlensai.integrations.__path__)}
    assert found == PROVIDERS | FRAMEWORKS | SHARED


@pytest.mark.parametrize(
    ("handler", "test"),
    [
        (AgentLensCallbackHandler, "test_langchain.py"),
        (AgentLensCrewAIHandler, "test_crewai.py"),
        (AgentLensAutoGenHandler, "test_autogen.py"),
        (AgentLensSKHandler, "test_semantic_kernel.py"),
    ],
)
def test_every_handler_method_is_covered(handler: type, test: str) -> None:
    source = (HERE / test).read_text()
    missing = {name for name in public_methods(handler) if f"handler.{name}" not in source}
    assert missing == set()
