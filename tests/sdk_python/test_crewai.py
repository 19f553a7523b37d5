"""The CrewAI handler, called as CrewAI's hooks would call it. It only reads attributes of what it is given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from agentlensai.integrations.crewai import (
    AgentLensCrewAIHandler,
    instrument_crewai,
    uninstrument_crewai,
)

from conftest import World
from reading import Client, instant, read_back

RESEARCHER = SimpleNamespace(id="a1", role="researcher", goal="Find", backstory="Read a lot")
WRITER = SimpleNamespace(id="a2", role="writer", goal="Write", backstory="Wrote a lot")
TASK = SimpleNamespace(id="t1", description="Find sources", expected_output="A list")


def test_every_hook(reader: Client, world: World) -> None:
    crew = SimpleNamespace(name=f"crew-{world.agent_id}", agents=[RESEARCHER, WRITER], tasks=[TASK])
    handler = AgentLensCrewAIHandler(crew_name="unnamed", client=reader, session_id=world.session_id)

    handler.on_crew_start(crew)
    handler.on_agent_start(RESEARCHER)
    handler.on_task_start(TASK, RESEARCHER)
    call_id = handler.on_tool_use(RESEARCHER, "search", {"query": "rust"})
    handler.on_tool_result(RESEARCHER, "search", "r" * 2000, call_id)
    handler.on_task_delegation(RESEARCHER, WRITER, TASK, "She writes better")
    handler.on_task_end(TASK, RESEARCHER, "Done")
    handler.on_agent_end(RESEARCHER, "A list")
    handler.step_callback(SimpleNamespace(text="Thinking", tool="search", tool_input="rust", result="found"))
    handler.on_crew_end(crew, "A report")

    assert [answer.status_code for answer in reader.answers] == [202] * 10
    story = read_back(reader, world.session_id, 10)
    assert story.types() == [
        "session_started",
        "custom",
        "custom",
        "tool_call",
        "tool_response",
        "custom",
        "custom",
        "custom",
        "custom",
        "session_ended",
    ]
    assert [payload["type"] for payload in story.payloads("custom")] == [
        "agent_start",
        "task_start",
        "task_delegation",
        "task_end",
        "agent_end",
        "crew_step",
    ]
    researcher = f"{crew.name}/researcher"
    agents = [event.agent_id for event in story.events]
    assert agents == [crew.name, *[researcher] * 7, "default", crew.name]
    assert story.payloads("custom")[2]["data"]["reason"] == "She writes better"
    assert story.payloads("tool_call")[0]["callId"] == story.payloads("tool_response")[0]["callId"] == call_id
    assert len(story.payloads("tool_response")[0]["result"]) == 1000
    assert {event.metadata["source"] for event in story.events} == {"crewai"}
    # The end carries no reason: it is read as a good one.
    assert "reason" not in story.events[-1].payload
    assert story.session.status == "completed"
    assert instant(story.session.ended_at) == instant(story.events[-1].timestamp)
    assert story.session.tool_call_count == 1
    # A session is counted for the agent that began it; its other agents are known all the same.
    assert reader.get_agent(crew.name).session_count == 1
    assert reader.get_agent(researcher).session_count == 0


@pytest.mark.parametrize("times", [1, 2])
def test_installation_of_hooks_is_harmless(times: int) -> None:
    for _ in range(times):
        instrument_crewai()
    for _ in range(times):
        uninstrument_crewai()
