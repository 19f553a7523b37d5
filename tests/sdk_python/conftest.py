from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# The servers of these tests are on this machine; the HTTP libraries would go through a proxy that a host has set.
# Before the libraries are imported: some read it only then.
for _name in ("NO_PROXY", "no_proxy"):
    os.environ[_name] = ",".join(filter(None, [os.environ.get(_name), "127.0.0.1", "localhost"]))
# The SDK's own settings come from here too: a developer's must not decide what is tested.
for _name in [name for name in os.environ if name.startswith("AGENTLENS_")]:
    if not _name.startswith("AGENTLENS_TEST_") and _name != "AGENTLENS_BINARY":
        del os.environ[_name]
# LangChain would report runs to its maker's service if a key lay around.
os.environ["LANGSMITH_TRACING"] = "false"

import agentlensai
import pytest
from agentlensai.integrations.registry import reset_registry

import server as servers
from providers import Providers
from reading import Client


@dataclass(frozen=True)
class World:
    """Names that no other test uses."""

    session_id: str
    agent_id: str


@pytest.fixture(scope="session", params=["embedded", "cloud"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.running(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def world() -> World:
    name = uuid.uuid4().hex[:12]
    return World(f"session-{name}", f"agent-{name}")


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """Makes clients with any address and key; all are closed at the end."""
    made: list[Client] = []

    def make(kind: str, url: str, api_key: str | None) -> Client:
        made.append(Client(kind, url, api_key))
        return made[-1]

    yield make
    for client in made:
        client.dispose()


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, server: servers.Server, connect: Callable[..., Client]) -> Client:
    return connect(request.param, server.url, server.api_key)


@pytest.fixture
def reader(server: servers.Server, connect: Callable[..., Client]) -> Client:
    """For tests whose writing side is not a client: one kind is enough to read with."""
    return connect("sync", server.url, server.api_key)


@pytest.fixture
def providers() -> Iterator[Providers]:
    with Providers() as running:
        yield running


@pytest.fixture
def instrument(server: servers.Server, world: World) -> Iterator[Callable[..., str]]:
    """Calls `agentlensai.init` for this test's server, session and agent, and undoes it afterwards."""

    def start(**options: object) -> str:
        settings = {
            "server_url": server.url,
            "api_key": server.api_key,
            "agent_id": world.agent_id,
            "session_id": world.session_id,
        }
        return agentlensai.init(**(settings | options))

    yield start
    agentlensai.shutdown()
    reset_registry()
