"""The hash chain, computed again from what the SDK read, independently of the server.

`chain_valid` is the server's word for it. This is ours: SHA-256 over the ten fields in their fixed order, printed
as JavaScript prints JSON, each event carrying the hash of the one before.
"""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Any

from agentlensai import AgentLensEvent

LARGEST_ARRAY_INDEX = 2**32 - 2


def check(events: list[AgentLensEvent]) -> None:
    previous = None
    for position, event in enumerate(events):
        assert event.prev_hash == previous, f"event {position} does not follow its predecessor"
        assert event.hash == event_hash(event), f"event {position} is not what was hashed"
        previous = event.hash


def event_hash(event: AgentLensEvent) -> str:
    record = {
        "v": 2,
        "id": event.id,
        "timestamp": event.timestamp,
        "sessionId": event.session_id,
        "agentId": event.agent_id,
        "eventType": event.event_type,
        "severity": event.severity,
        "payload": event.payload,
        "metadata": event.metadata,
        "prevHash": event.prev_hash,
    }
    return hashlib.sha256(stringify(record).encode()).hexdigest()


def stringify(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{stringify(v)}" for k, v in _in_order(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(stringify, value)) + "]"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number(float(value))
    return json.dumps(value, ensure_ascii=False)


def _in_order(value: dict[str, Any]) -> list[tuple[str, Any]]:
    """JavaScript puts keys that are array indices first, in numeric order; the rest stays as inserted."""
    indices = [key for key in value if key.isascii() and key.isdigit() and str(int(key)) == key]
    indices = sorted((key for key in indices if int(key) <= LARGEST_ARRAY_INDEX), key=int)
    rest = [key for key in value if key not in indices]
    return [(key, value[key]) for key in [*indices, *rest]]


def _number(value: float) -> str:
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    text = "".join(map(str, digits))
    point = len(text) + exponent
    minus = "-" if sign else ""
    if len(text) <= point <= 21:
        return minus + text + "0" * (point - len(text))
    if 0 < point <= 21:
        return f"{minus}{text[:point]}.{text[point:]}"
    if -6 < point <= 0:
        return f"{minus}0.{'0' * -point}{text}"
    power = point - 1
    mantissa = text[0] if len(text) == 1 else f"{text[0]}.{text[1:]}"
    return f"{minus}{mantissa}e{'+' if power > 0 else '-'}{abs(power)}"
