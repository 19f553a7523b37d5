"""The one list of what the SDK can ask for and the server does not do yet. It shrinks as features arrive.

Feature, as the server must name it -> method of the client -> a call of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentlensai import (
    ContextQuery,
    CreateLessonInput,
    LessonQuery,
    RecallQuery,
    ReflectQuery,
)

RULE = {
    "name": "Stop a spender",
    "condition_type": "cost_limit",
    "condition_config": {"maxCostUsd": 10, "scope": "session"},
    "action_type": "pause_agent",
    "action_config": {},
    "description": "Ten dollars are enough",
    "agent_id": "agent-1",
}

NOT_BUILT: dict[str, dict[str, Callable[[Any], object]]] = {
    "recall": {
        "recall": lambda client: client.recall(
            RecallQuery(query="timeouts", scope="all", agent_id="agent-1", limit=5, min_score=0.5)
        ),
    },
    "lessons": {
        "create_lesson": lambda client: client.create_lesson(
            CreateLessonInput(
                title="Retry", content="Retry on 503", category="ops", importance="high", context={"a": 1}
            )
        ),
        "get_lessons": lambda client: client.get_lessons(LessonQuery(category="ops", limit=5, include_archived=True)),
        "get_lesson": lambda client: client.get_lesson("lesson-1"),
        "update_lesson": lambda client: client.update_lesson("lesson-1", {"title": "Retry twice"}),
        "delete_lesson": lambda client: client.delete_lesson("lesson-1"),
    },
    "reflect": {
        "reflect": lambda client: client.reflect(ReflectQuery(analysis="error_patterns", agent_id="agent-1", limit=5)),
    },
    "context": {
        "get_context": lambda client: client.get_context(ContextQuery(topic="billing", agent_id="agent-1", limit=5)),
    },
    "health": {
        "get_health": lambda client: client.get_health("agent-1", window=7),
        "get_health_history": lambda client: client.get_health_history("agent-1", days=30),
        "get_health_overview": lambda client: client.get_health_overview(window=7),
    },
    "optimize": {
        "get_optimization_recommendations": lambda client: client.get_optimization_recommendations("agent-1", 7, 10),
    },
    "guardrails": {
        "list_guardrails": lambda client: client.list_guardrails("agent-1"),
        "get_guardrail": lambda client: client.get_guardrail("rule-1"),
        "create_guardrail": lambda client: client.create_guardrail(**RULE),
        "update_guardrail": lambda client: client.update_guardrail("rule-1", cooldown_minutes=15),
        "delete_guardrail": lambda client: client.delete_guardrail("rule-1"),
        "enable_guardrail": lambda client: client.enable_guardrail("rule-1"),
        "disable_guardrail": lambda client: client.disable_guardrail("rule-1"),
        "get_guardrail_history": lambda client: client.get_guardrail_history("rule-1", limit=5, offset=0),
        "get_guardrail_status": lambda client: client.get_guardrail_status("rule-1"),
    },
}
