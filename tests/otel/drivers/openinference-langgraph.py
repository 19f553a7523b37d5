"""An agent as a LangGraph graph with a node of tools, instrumented by OpenInference."""

import story

story.configure_environment()

import openai
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from openinference.instrumentation import using_attributes
from openinference.instrumentation.langchain import LangChainInstrumentor


def chat_model(name):
    return ChatOpenAI(
        model=name, base_url=f"{story.STUB_URL}/v1", api_key=story.STUB_KEY, max_retries=0, stream_usage=True
    )


@tool
def get_weather(city: str) -> str:
    """The weather in a city, now."""
    return story.get_weather(city)


def answer(state):
    model = chat_model(story.OPENAI_MODEL).bind_tools([get_weather])
    return {"messages": [model.invoke([SystemMessage(story.SYSTEM), *state["messages"]])]}


def joke(_state):
    streamed = [SystemMessage(story.SYSTEM), HumanMessage(story.STREAMED_QUESTION)]
    for _chunk in chat_model(story.OPENAI_MODEL).stream(streamed):
        pass
    return {}


def ask_what_is_refused(_state):
    try:
        chat_model(story.OPENAI_REFUSED_MODEL).invoke([HumanMessage(story.REFUSED_QUESTION)])
    except openai.BadRequestError:
        return {}
    raise AssertionError("the stub did not refuse")


def main():
    provider = story.tracer_provider()
    LangChainInstrumentor().instrument(tracer_provider=provider)
    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_node("tools", ToolNode([get_weather]))
    graph.add_node("joke", joke)
    graph.add_node("refused", ask_what_is_refused)
    graph.add_edge(START, "answer")
    graph.add_conditional_edges("answer", tools_condition, {"tools": "tools", "__end__": "joke"})
    graph.add_edge("tools", "answer")
    graph.add_edge("joke", "refused")
    agent = graph.compile(name=story.AGENT)
    with using_attributes(session_id=story.SESSION_ID, user_id=story.USER_ID):
        agent.invoke({"messages": [HumanMessage(story.QUESTION)]})
    provider.shutdown()


main()
