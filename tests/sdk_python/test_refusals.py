"""What the server refuses, as the exceptions the SDK makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from agentlensai import (
    AgentLensConnectionError,
    AuthenticationError,
    NotFoundError,
    ValidationError,
)

import server as servers
from conftest import World
from reading import Client, read_back, send


@pytest.mark.parametrize("key", [None, "", "nonsense", "al_live_nonsense", "als_" + "0" * 64])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_strange_key_is_refused(server: servers.Server, connect: Any, kind: str, key: str | None) -> None:
    client = connect(kind, server.url, key)
    for call in (client.query_events, client.get_sessions, lambda: send(client, {}), client.get_llm_analytics):
        with pytest.raises(AuthenticationError):
            call()
    assert all(answer.status_code == 401 for answer in client.answers)


def test_well_formed_key_of_nobody_is_refused(server: servers.Server, connect: Any) -> None:
    with pytest.raises(AuthenticationError):
        connect("sync", server.url, servers.generate_key()).query_events()


def test_unknown_things_are_not_found(client: Client, world: World) -> None:
    for call in (
        lambda: client.get_event("01HZX3V9K2ABCDEFGHJKMNPQRS"),
        lambda: client.get_event("no such id / at all"),
        lambda: client.get_session(world.session_id),
        lambda: client.get_session_timeline(world.session_id),
        lambda: client.get_agent(world.agent_id),
    ):
        with pytest.raises(NotFoundError) as refused:
            call()
        assert str(refused.value)
    for answer in client.answers:
        body = answer.json()
        assert body["status"] == 404
        assert body["code"]
        assert body["request_id"]


def test_bad_event_is_refused_beside_good_neighbours(client: Client, world: World) -> None:
    good = {
        "sessionId": world.session_id,
        "agentId": world.agent_id,
        "eventType": "custom",
        "payload": {"type": "note", "data": {}},
    }
    nameless = good | {"eventType": "tool_call", "payload": {"callId": "c1", "arguments": {}}}
    answer = send(client, good, nameless, good | {"eventType": "no_such_type"}, good)

    assert (answer["accepted"], answer["rejected"], len(answer["events"])) == (2, 2, 2)
    assert [error["index"] for error in answer["errors"]] == [1, 2]
    assert "toolName" in answer["errors"][0]["field"]
    assert "eventType" in answer["errors"][1]["field"]
    assert all(error["error"] for error in answer["errors"])
    read_back(client, world.session_id, 2)


def test_batch_without_a_good_event_is_refused(client: Client, world: World) -> None:
    with pytest.raises(ValidationError) as refused:
        send(client, {"sessionId": world.session_id, "eventType": "custom", "payload": {"type": "x", "data": {}}})

    assert refused.value.details, "the SDK shows what is wrong"
    with pytest.raises(NotFoundError):
        client.get_session(world.session_id)


def test_nobody_listening_is_an_error_of_its_own(connect: Any) -> None:
    for kind in ("sync", "async"):
        client = connect(kind, f"http://127.0.0.1:{servers.free_port()}", None)
        with pytest.raises(AgentLensConnectionError):
            client.health()
