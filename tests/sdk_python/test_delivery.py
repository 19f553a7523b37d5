"""What the SDK does when a server says no: it spools, waits and tries again. Nothing may be lost or doubled by it.

A gate stands between the SDK and the real server and gives prepared answers first.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import agentlensai
import httpx
import openai
import pytest
from agentlensai import AgentLensClient, BackpressureError, QuotaExceededError, RateLimitError

import server as servers
from conftest import World
from providers import Providers
from reading import Client, read_back, send
from test_llm_calls import llm_call

QUOTA_EXCEEDED = (402, {}, {"error": "Quota exceeded", "status": 402})
RATE_LIMITED = (429, {"Retry-After": "0.05"}, {"error": "Too many requests", "status": 429})
OVERLOADED = (503, {"Retry-After": "1"}, {"error": "Too much waits", "status": 503})

Answer = tuple[int, dict[str, str], dict[str, object]]


class Gate:
    """Answers with what `prepared` holds, then passes everything on to the server."""

    def __init__(self, target: str) -> None:
        self.prepared: list[Answer] = []
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if gate.prepared:
                    status, headers, content = gate.prepared.pop(0)
                    self._answer(status, headers, json.dumps(content).encode())
                    return
                names = ("Authorization", "Content-Type")
                passed = httpx.post(
                    target + self.path, content=body, headers={name: self.headers[name] for name in names}
                )
                self._answer(passed.status_code, {}, passed.content)

            def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Quiet: the tests say what is wrong."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def gate(server: servers.Server) -> Iterator[Gate]:
    gate = Gate(server.url)
    thread = threading.Thread(target=gate.server.serve_forever, args=(0.01,))
    thread.start()
    yield gate
    gate.server.shutdown()
    thread.join()
    gate.server.server_close()


def test_call_over_quota_is_spooled_and_can_be_delivered_later(
    gate: Gate,
    instrument: Callable[..., str],
    providers: Providers,
    reader: Client,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENTLENS_BUFFER_DIR", str(tmp_path / "spool"))
    gate.prepared = [QUOTA_EXCEEDED]
    instrument(server_url=gate.url, integrations=["openai"])
    model = openai.OpenAI(base_url=f"{providers.url}/v1", api_key="sk-test", max_retries=0)

    model.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "spooled"}])
    agentlensai.shutdown()

    (file,) = (tmp_path / "spool").iterdir()
    spooled = json.loads(file.read_text())
    assert [event["eventType"] for event in spooled] == ["llm_call", "llm_response"]
    # The SDK never replays the file: its owner does, with the file's content as it is or wrapped as a batch.
    answer = send(reader, *spooled)
    assert answer["accepted"] == 2
    story = read_back(reader, world.session_id, 2)
    assert story.events[0].payload["messages"] == [{"role": "user", "content": "spooled"}]
    assert [event.timestamp for event in story.events] == [event["timestamp"] for event in spooled]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_limited_call_waits_and_arrives_once(
    gate: Gate, server: servers.Server, connect: Callable[..., Client], reader: Client, world: World, kind: str
) -> None:
    gate.prepared = [RATE_LIMITED, RATE_LIMITED]

    client = connect(kind, gate.url, server.api_key)
    client.log_llm_call(world.session_id, world.agent_id, llm_call())

    assert [answer.status_code for answer in client.answers] == [429, 429, 202]
    read_back(reader, world.session_id, 2)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_overload_is_waited_out(
    gate: Gate,
    server: servers.Server,
    connect: Callable[..., Client],
    reader: Client,
    world: World,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The SDK's own waits are seconds long; their length is not what is looked at.
    for client_type in (AgentLensClient, agentlensai.AsyncAgentLensClient):
        monkeypatch.setattr(client_type, "_BACKOFF_BASE", 0.01)
    gate.prepared = [OVERLOADED]

    client = connect(kind, gate.url, server.api_key)
    client.log_llm_call(world.session_id, world.agent_id, llm_call())

    assert [answer.status_code for answer in client.answers] == [503, 202]
    read_back(reader, world.session_id, 2)


@pytest.mark.parametrize(
    ("answer", "error", "tries"),
    [(QUOTA_EXCEEDED, QuotaExceededError, 1), (RATE_LIMITED, RateLimitError, 4), (OVERLOADED, BackpressureError, 4)],
)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_lasting_refusal_reaches_the_caller(
    gate: Gate,
    server: servers.Server,
    connect: Callable[..., Client],
    world: World,
    kind: str,
    answer: Answer,
    error: type[Exception],
    tries: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for client_type in (AgentLensClient, agentlensai.AsyncAgentLensClient):
        monkeypatch.setattr(client_type, "_BACKOFF_BASE", 0.01)
    gate.prepared = [answer] * tries

    client = connect(kind, gate.url, server.api_key)
    with pytest.raises(error):
        client.log_llm_call(world.session_id, world.agent_id, llm_call())

    assert len(client.answers) == tries
