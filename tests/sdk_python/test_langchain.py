"""The LangChain handler: called directly with all it understands, and by real LangChain pipelines."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import agentlensai
import pytest
from agentlensai._sender import get_sender, reset_sender
from agentlensai.integrations.langchain import AgentLensCallbackHandler
from langchain_core.agents import AgentAction, AgentFinish
from langchain_core.documents import Document
from langchain_core.language_models import FakeListLLM
from langchain_core.outputs import Generation, LLMResult
from langchain_core.prompts import PromptTemplate
from langchain_core.tools import tool

from conftest import World
from reading import Client, eventually, read_back


@tool
def weather(city: str) -> str:
    """Tells the weather."""
    if city == "Atlantis":
        raise ValueError("no such city")
    return f"Sunny in {city}"


def test_every_callback(reader: Client, world: World) -> None:
    handler = AgentLensCallbackHandler(client=reader, agent_id=world.agent_id, session_id=world.session_id)
    chain, model, failed_model, used, failed, retriever, broken = (uuid.uuid4() for _ in range(7))
    serialized = {"name": "WeatherChain", "id": ["langchain", "chains", "WeatherChain"]}

    handler.on_chain_start(serialized, {"city": "Bern"}, run_id=chain, tags=["prod"])
    handler.on_llm_start({"id": ["openai", "OpenAI"]}, ["Say it"], run_id=model, invocation_params={"model": "gpt-4o"})
    usage = {"prompt_tokens": 31, "completion_tokens": 7, "total_tokens": 38}
    output = {"token_usage": usage, "model_name": "gpt-4o-2024-08-06"}
    handler.on_llm_end(LLMResult(generations=[[Generation(text="Said")]], llm_output=output), run_id=model)
    # The sender works in the background: the order in the chain is the order of arrival.
    get_sender().flush()
    handler.on_llm_start({"id": ["openai", "OpenAI"]}, ["Say it"], run_id=failed_model)
    handler.on_llm_error(RuntimeError("overloaded"), run_id=failed_model)
    handler.on_agent_action(AgentAction("weather", "Bern", "I should look"), run_id=chain)
    handler.on_tool_start({"name": "weather"}, "Bern", run_id=used)
    handler.on_tool_end("Sunny " * 500, run_id=used)
    handler.on_tool_start({"name": "weather"}, "Atlantis", run_id=failed)
    handler.on_tool_error(ValueError("no such city"), run_id=failed)
    handler.on_retriever_start({}, "forecast", run_id=retriever)
    documents = [Document(page_content="x", metadata={"source": f"doc-{n}"}) for n in (1, 2, 2)]
    handler.on_retriever_end(documents, run_id=retriever)
    handler.on_agent_finish(AgentFinish({"output": "Sunny"}, "I know"), run_id=chain)
    handler.on_chain_end({"text": "Sunny"}, run_id=chain)
    handler.on_chain_start(serialized, {}, run_id=broken, parent_run_id=chain, tags=["graph:forecast"])
    handler.on_chain_error(RuntimeError("rain"), run_id=broken)
    reset_sender()

    assert {answer.status_code for answer in reader.answers} == {202}
    story = read_back(reader, world.session_id, 14)
    assert story.types() == [
        "custom",
        "llm_call",
        "llm_response",
        "custom",
        "tool_call",
        "tool_response",
        "tool_call",
        "tool_error",
        *["custom"] * 6,
    ]
    customs = story.payloads("custom")
    assert [payload["type"] for payload in customs] == [
        "chain_start",
        "agent_action",
        "retriever_start",
        "retriever_end",
        "agent_finish",
        "chain_end",
        "chain_start",
        "chain_error",
    ]
    assert customs[0]["data"]["chain_name"] == "WeatherChain"
    assert customs[0]["data"]["input_keys"] == ["city"]
    assert customs[3]["data"]["document_count"] == 3
    assert customs[3]["data"]["sources"] == ["doc-1", "doc-2"]
    assert customs[6]["data"]["parent_run_id"] == str(chain)
    assert customs[6]["data"]["is_graph_node"] is True
    assert customs[7]["data"]["error"] == "rain"
    (call,), (response,) = story.payloads("llm_call"), story.payloads("llm_response")
    assert (call["provider"], call["model"]) == ("openai", "gpt-4o-2024-08-06")
    assert call["messages"] == [{"role": "user", "content": "Say it"}]
    assert response["completion"] == "Said"
    assert response["usage"] == {"inputTokens": 31, "outputTokens": 7, "totalTokens": 38}
    assert story.payloads("tool_call")[0]["arguments"] == {"input": "Bern"}
    assert len(story.payloads("tool_response")[0]["result"]) == 1000
    session = story.session
    assert (session.tool_call_count, session.llm_call_count) == (2, 1)
    assert session.error_count == 2, "the tool's and the chain's"
    assert {event.agent_id for event in story.events} == {world.agent_id}


@pytest.mark.parametrize("standalone", [True, False], ids=["own client", "init"])
def test_real_pipeline(reader: Client, world: World, instrument: Callable[..., str], standalone: bool) -> None:
    if standalone:
        handler = AgentLensCallbackHandler(client=reader, agent_id=world.agent_id, session_id=world.session_id)
    else:
        instrument(integrations=[])
        handler = AgentLensCallbackHandler(agent_id=world.agent_id)
    config: Any = {"callbacks": [handler]}

    pipeline = PromptTemplate.from_template("Weather in {city}?") | FakeListLLM(responses=["Sunny"])
    assert pipeline.invoke({"city": "Bern"}, config) == "Sunny"
    get_sender().flush()
    assert weather.invoke({"city": "Bern"}, config) == "Sunny in Bern"
    with pytest.raises(ValueError, match="no such city"):
        weather.invoke({"city": "Atlantis"}, config)
    agentlensai.shutdown()
    reset_sender()

    # How many events LangChain's own runs make is for LangChain to say: they end with the failing tool.
    story = _told_until_the_failure(reader, world)
    (call,) = story.payloads("llm_call")
    assert call["messages"] == [{"role": "user", "content": "Weather in Bern?"}]
    assert story.payloads("llm_response")[0]["completion"] == "Sunny"
    assert [payload["toolName"] for payload in story.payloads("tool_call")] == ["weather", "weather"]
    assert "no such city" in story.payloads("tool_error")[0]["error"]


def _told_until_the_failure(reader: Client, world: World) -> Any:
    def count() -> int:
        events = reader.get_session_timeline(world.session_id).events
        assert events[-1].event_type == "tool_error"
        return len(events)

    return read_back(reader, world.session_id, eventually(count))
