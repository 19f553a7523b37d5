"""Every type of event a client may send, and payloads with everything their tables allow."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import World
from reading import Client, eventually, read_back, send

CALL = {"callId": "c1", "toolName": "search"}
MODEL = {"callId": "m1", "provider": "openai", "model": "gpt-4o"}
APPROVAL = {"requestId": "r1", "action": "refund"}
FORM = {"submissionId": "s1", "formId": "f1"}

PAYLOADS: dict[str, dict[str, Any]] = {
    "session_started": {"agentName": "Clerk", "agentVersion": "2", "mcpClientInfo": {"name": "ide"}, "tags": ["a"]},
    "tool_call": CALL | {"arguments": {"deep": [{"er": [None, True, 1.5]}]}, "serverName": "files"},
    "tool_response": CALL | {"result": None, "durationMs": 0},
    "tool_error": CALL | {"error": "no", "errorCode": "E1", "durationMs": 1},
    "approval_requested": APPROVAL | {"params": {"amount": 12}, "urgency": "high"},
    "approval_granted": APPROVAL | {"decidedBy": "ann", "reason": "fine"},
    "approval_denied": APPROVAL | {"decidedBy": "ann"},
    "approval_expired": APPROVAL | {"decidedBy": "system"},
    "form_submitted": FORM | {"formName": "Intake", "fieldCount": 3},
    "form_completed": FORM | {"completedBy": "bob", "durationMs": 1000},
    "form_expired": FORM | {"expiredAfterMs": 60000},
    "cost_tracked": {
        "provider": "openai",
        "model": "gpt-4o",
        "inputTokens": 7,
        "outputTokens": 3,
        "totalTokens": 10,
        "costUsd": 0.01,
        "trigger": "llm",
    },
    "llm_call": MODEL | {"messages": [{"role": "user", "content": "Hi"}]},
    "llm_response": MODEL
    | {
        "completion": "Ho",
        "finishReason": "stop",
        "usage": {"inputTokens": 5, "outputTokens": 1, "totalTokens": 6},
        "costUsd": 0.02,
        "latencyMs": 70,
    },
    "alert_triggered": {
        "alertRuleId": "a1",
        "alertName": "Cost",
        "condition": "cost_exceeds",
        "currentValue": 3,
        "threshold": 2,
        "message": "too much",
    },
    "alert_resolved": {"alertRuleId": "a1", "alertName": "Cost", "resolvedBy": "ann"},
    "custom": {"type": "note", "data": {"any": ["thing"]}},
    "session_ended": {"reason": "manual", "summary": "all of them", "totalToolCalls": 1, "totalDurationMs": 2},
}

# Types that came after this client: its model refuses a whole page that names one.
NEWER_PAYLOADS: dict[str, dict[str, Any]] = {
    "retrieval": {"query": "q", "retrieverName": "r", "topK": 3, "resultCount": 2, "durationMs": 4},
    "embedding": {"model": "text-embedding-3-small", "inputCount": 2, "dimensions": 8, "durationMs": 4},
    "chain_step": {"name": "plan", "stepType": "planner", "durationMs": 4},
}


def events_of(world: World, payloads: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "sessionId": world.session_id,
            "agentId": world.agent_id,
            "eventType": event_type,
            "payload": payload,
            "timestamp": f"2026-11-22T09:00:00.{position:06}+00:00",
        }
        for position, (event_type, payload) in enumerate(payloads.items())
    ]


def test_every_type_comes_back_whole(client: Client, world: World) -> None:
    send(client, *events_of(world, PAYLOADS))

    story = read_back(client, world.session_id, len(PAYLOADS))
    assert story.types() == list(PAYLOADS)
    assert [event.payload for event in story.events] == list(PAYLOADS.values())
    # Neither a severity nor metadata was sent.
    assert {(event.severity, str(event.metadata)) for event in story.events} == {("info", "{}")}
    session = story.session
    assert (session.status, session.tags, session.agent_name) == ("completed", ["a"], "Clerk")
    assert (session.total_input_tokens, session.total_output_tokens, session.llm_call_count) == (5, 1, 1)
    assert session.total_cost_usd == pytest.approx(0.03, abs=1e-9)


def test_newer_types_do_not_break_an_older_client(client: Client, world: World) -> None:
    send(client, *events_of(world, {"custom": PAYLOADS["custom"]} | NEWER_PAYLOADS))

    def read() -> list[Any]:
        timeline = client.get_session_timeline(world.session_id)
        assert timeline.chain_valid is True
        return timeline.events

    events = eventually(read)
    assert [event.event_type for event in events] == ["custom"] * 4
    assert [event.payload for event in events][1:] == list(NEWER_PAYLOADS.values())


@pytest.mark.parametrize("severity", ["debug", "info", "warn", "error", "critical"])
def test_every_severity(client: Client, world: World, severity: str) -> None:
    event = events_of(world, {"custom": PAYLOADS["custom"]})[0] | {"severity": severity}
    send(client, event)

    story = read_back(client, world.session_id, 1)
    assert story.events[0].severity == severity
    assert story.session.error_count == (1 if severity in ("error", "critical") else 0)


@pytest.mark.parametrize(
    ("reason", "status"),
    [("completed", "completed"), ("error", "error"), ("timeout", "completed"), ("manual", "completed")],
)
def test_every_reason_of_an_end(client: Client, world: World, reason: str, status: str) -> None:
    send(client, *events_of(world, {"session_started": {}, "session_ended": {"reason": reason}}))

    assert read_back(client, world.session_id, 2).session.status == status
