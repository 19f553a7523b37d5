"""Every read of the client, with every filter it can send."""

from __future__ import annotations

from typing import Any

import pytest
from agentlensai import EventQuery, SessionQuery

from conftest import World
from reading import Client, eventually, instant, read_back, send

# Sent in this order in one batch; offsets differ, instants rise.
TIMES = [
    "2026-11-01T10:00:00.000Z",
    "2026-11-01T11:00:01.250+01:00",
    "2026-11-01T05:00:02-05:00",
    "2026-11-01T10:00:03.000001+00:00",
    "2026-11-01T10:00:04Z",
    "2026-11-01T10:00:05.5Z",
]


def story_events(world: World) -> list[dict[str, Any]]:
    common = {"sessionId": world.session_id, "agentId": world.agent_id, "metadata": {"source": "suite"}}
    parts = [
        ("session_started", "info", {"agentName": "Weather clerk", "agentVersion": "1.2", "tags": ["blue", "prod"]}),
        ("tool_call", "info", {"toolName": "search", "callId": "c1", "arguments": {"q": f"needle-{world.agent_id}"}}),
        ("tool_response", "info", {"toolName": "search", "callId": "c1", "result": [1, 2], "durationMs": 12.5}),
        ("tool_error", "error", {"toolName": "search", "callId": "c2", "error": "timed out", "durationMs": 5000}),
        (
            "cost_tracked",
            "warn",
            {
                "provider": "openai",
                "model": "gpt-4o",
                "inputTokens": 10,
                "outputTokens": 2,
                "totalTokens": 12,
                "costUsd": 0.25,
            },
        ),
        ("session_ended", "info", {"reason": "completed", "summary": "done", "totalToolCalls": 1}),
    ]
    return [
        common | {"eventType": kind, "severity": severity, "payload": payload, "timestamp": timestamp}
        for (kind, severity, payload), timestamp in zip(parts, TIMES, strict=True)
    ]


@pytest.fixture
def story(client: Client, world: World) -> list[dict[str, Any]]:
    events = story_events(world)
    answer = send(client, *events)
    assert client.answers[-1].status_code == 202
    assert (answer["accepted"], answer["ingested"], answer["rejected"], answer["errors"]) == (6, 6, 0, [])
    assert answer["request_id"]
    assert len({event["id"] for event in answer["events"]}) == 6
    read_back(client, world.session_id, len(events))
    return events


def test_events_come_back_as_sent_and_in_order_of_instants(
    client: Client, world: World, story: list[dict[str, Any]]
) -> None:
    up = client.query_events(EventQuery(session_id=world.session_id, order="asc"))
    down = client.query_events(EventQuery(session_id=world.session_id, order="desc"))
    unsaid = client.query_events(EventQuery(session_id=world.session_id))

    assert [event.timestamp for event in up.events] == TIMES, "as written, though offsets differ"
    assert [event.payload for event in up.events] == [event["payload"] for event in story]
    assert [list(event.payload) for event in up.events] == [list(event["payload"]) for event in story]
    assert all(event.metadata == {"source": "suite"} for event in up.events)
    assert [event.id for event in down.events] == [event.id for event in reversed(up.events)]
    assert [event.id for event in unsaid.events] == [event.id for event in down.events]


@pytest.mark.parametrize(
    ("filters", "types"),
    [
        ({"event_type": "tool_call"}, ["tool_call"]),
        ({"event_type": ["tool_call", "tool_error"]}, ["tool_call", "tool_error"]),
        ({"severity": "error"}, ["tool_error"]),
        ({"severity": ["error", "warn"]}, ["tool_error", "cost_tracked"]),
        ({"from_time": "2026-11-01T10:00:04Z"}, ["cost_tracked", "session_ended"]),
        ({"to": "2026-11-01T10:00:01.250Z"}, ["session_started", "tool_call"]),
        ({"from_time": "2026-11-01T12:00:01+02:00", "to": "2026-11-01T10:00:02.9Z"}, ["tool_call", "tool_response"]),
        ({"search": "timed out"}, ["tool_error"]),
        ({"limit": 2}, ["session_started", "tool_call"]),
        ({"limit": 2, "offset": 4}, ["cost_tracked", "session_ended"]),
        ({"agent_id": "another-agent"}, []),
        ({"event_type": "approval_requested"}, []),
    ],
)
def test_event_filters(
    client: Client, world: World, story: list[dict[str, Any]], filters: dict[str, Any], types: list[str]
) -> None:
    page = client.query_events(EventQuery(session_id=world.session_id, order="asc", **filters))

    assert [event.event_type for event in page.events] == types
    paged = "limit" in filters
    assert page.total == (len(story) if paged else len(types))
    assert page.has_more is (paged and not filters.get("offset"))


def test_search_finds_an_exact_part_of_the_text(client: Client, world: World, story: list[dict[str, Any]]) -> None:
    page = eventually(lambda: _found(client, world.agent_id[1:-1]))

    assert [event.event_type for event in page.events] == ["tool_call"]
    assert page.total == 1


def _found(client: Client, text: str) -> Any:
    page = client.query_events(EventQuery(search=text))
    assert page.events
    return page


def test_events_of_an_agent(client: Client, world: World, story: list[dict[str, Any]]) -> None:
    page = client.query_events(EventQuery(agent_id=world.agent_id))

    assert page.total == len(story)
    assert {event.session_id for event in page.events} == {world.session_id}


def test_query_without_filters_answers_the_newest(client: Client, story: list[dict[str, Any]]) -> None:
    page = client.query_events()

    assert 0 < len(page.events) <= 50
    assert page.total >= len(story)


def test_one_event_by_its_id(client: Client, world: World, story: list[dict[str, Any]]) -> None:
    page = client.query_events(EventQuery(session_id=world.session_id))

    for event in page.events:
        assert client.get_event(event.id) == event


def test_session_is_the_sum_of_its_events(client: Client, world: World, story: list[dict[str, Any]]) -> None:
    session = client.get_session(world.session_id)

    assert (session.id, session.agent_id, session.agent_name) == (world.session_id, world.agent_id, "Weather clerk")
    assert (session.status, session.tags) == ("completed", ["blue", "prod"])
    assert (instant(session.started_at), instant(session.ended_at)) == (instant(TIMES[0]), instant(TIMES[-1]))
    assert (session.event_count, session.tool_call_count, session.error_count) == (6, 1, 1)
    assert session.total_cost_usd == pytest.approx(0.25, abs=1e-9)
    assert (session.llm_call_count, session.total_input_tokens, session.total_output_tokens) == (0, 0, 0)


def test_session_filters(client: Client, world: World) -> None:
    """Three sessions of one agent, an hour apart: finished, failed, and one that goes on."""
    ends = {"first": "completed", "second": "error", "third": None}
    for hour, (name, reason) in enumerate(ends.items()):
        common = {"sessionId": f"{world.session_id}-{name}", "agentId": world.agent_id}
        started = {"eventType": "session_started", "payload": {"tags": [f"tag-{name}", "all"]}}
        events = [common | started | {"timestamp": f"2026-11-02T1{hour}:00:00Z"}]
        if reason:
            ended = {"eventType": "session_ended", "payload": {"reason": reason}}
            events.append(common | ended | {"timestamp": f"2026-11-02T1{hour}:30:00Z"})
        send(client, *events)
    for name, reason in ends.items():
        read_back(client, f"{world.session_id}-{name}", 2 if reason else 1)

    def names(**filters: Any) -> list[str]:
        result = client.get_sessions(SessionQuery(agent_id=world.agent_id, **filters))
        return [session.id.removeprefix(f"{world.session_id}-") for session in result.sessions]

    assert names() == ["third", "second", "first"], "the newest first"
    assert names(status="completed") == ["first"]
    assert names(status=["completed", "error"]) == ["second", "first"]
    assert names(tags=["tag-third"]) == ["third"]
    assert names(tags=["tag-first", "tag-second"]) == ["second", "first"], "any of the tags"
    assert names(from_time="2026-11-02T11:00:00Z") == ["third", "second"]
    assert names(to="2026-11-02T11:00:00Z") == ["second", "first"]
    assert names(from_time="2026-11-02T10:30:00Z", to="2026-11-02T11:30:00Z") == ["second"]
    assert names(limit=1) == ["third"]
    assert names(limit=1, offset=2) == ["first"]
    page = client.get_sessions(SessionQuery(agent_id=world.agent_id, limit=2))
    assert (page.total, page.has_more) == (3, True)
    assert client.get_sessions().total >= 3
    assert client.get_session(f"{world.session_id}-second").status == "error"


def test_agent_is_known_from_its_events(client: Client, world: World, story: list[dict[str, Any]]) -> None:
    agent = eventually(lambda: client.get_agent(world.agent_id))

    assert (agent.id, agent.name, agent.session_count) == (world.agent_id, "Weather clerk", 1)
    assert agent.tenant_id
    assert (agent.paused_at, agent.model_override) == (None, None)
    assert agent.first_seen_at <= agent.last_seen_at


def test_sleeping_session_is_read_by_a_client_that_does_not_know_the_word(client: Client, world: World) -> None:
    """A session without an end and without a sign of life is `idle`, which this client's model refuses."""
    started = {"sessionId": world.session_id, "agentId": world.agent_id, "eventType": "session_started", "payload": {}}
    send(client, started | {"timestamp": "2026-11-01T10:00:00Z"})

    story = read_back(client, world.session_id, 1)
    assert story.session.status == "active"
    (listed,) = client.get_sessions(SessionQuery(agent_id=world.agent_id)).sessions
    assert listed.status == "active"


def test_health_of_the_server_needs_no_key(server: Any, connect: Any) -> None:
    for kind in ("sync", "async"):
        for key in (None, "al_live_nonsense"):
            health = connect(kind, server.url, key).health()
            assert health.status == "ok"
            assert health.version
