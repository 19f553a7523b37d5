"""The suite's own chain agrees with the published protocol, on its three vectors: else it would be no judge."""

from __future__ import annotations

from typing import Any

import pytest
from agentlensai import AgentLensEvent

import chain

FIRST = "87bff11cb6b7b38c860d1de37f3d19ca8d6966f45f9d0c4f50b5d94189022940"
SECOND = "467ef1315406044f86456a8c1294398fd5e34e9b2d2cc083f1161171e5923a29"
THIRD = "1eaf17ccc9e8b59c83067a95f59b82f9f386c1ab5101fc5a411dd0942cd4b1b2"

ARGUMENTS = {"q": 'héllo "w"\n/\u2028 😀', "n": 1.0, "big": 1e21, "small": 1e-7, "z": -0.0, "arr": [1, 2.50]}


def event(number: int, timestamp: str, **fields: Any) -> AgentLensEvent:
    settings = {
        "id": "01HZX3V9K2ABCDEFGHJKMNPQR" + "STV"[number],
        "timestamp": timestamp,
        "session_id": "sess-1",
        "agent_id": "agent-1",
        "severity": "info",
        "metadata": {},
    }
    return AgentLensEvent(**(settings | fields))


def test_published_vectors() -> None:
    chain.check(
        [
            event(
                0,
                "2026-01-02T03:04:05.678Z",
                event_type="tool_call",
                payload={"toolName": "search", "callId": "c-1", "arguments": ARGUMENTS},
                prev_hash=None,
                hash=FIRST,
            ),
            event(
                1,
                "2026-01-02T03:04:06.000Z",
                event_type="tool_response",
                payload={"callId": "c-1", "toolName": "search", "result": None, "durationMs": 12.5},
                metadata={"source": "test", "b": True},
                prev_hash=FIRST,
                hash=SECOND,
            ),
            event(
                2,
                "2026-01-02T03:04:05.678Z",
                event_type="custom",
                payload={"type": "x", "data": {"10": "a", "2": "b", "k": 1}},
                prev_hash=SECOND,
                hash=THIRD,
            ),
        ]
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (-2.50, "-2.5"),
        (123456789012345680000, "123456789012345680000"),
        (12345678901234567890, "12345678901234567000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (0.000001, "0.000001"),
        (1.25e-7, "1.25e-7"),
        (5e-324, "5e-324"),
    ],
)
def test_numbers_as_javascript_prints_them(value: float, text: str) -> None:
    assert chain.stringify(value) == text
