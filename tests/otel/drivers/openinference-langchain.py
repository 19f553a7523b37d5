"""LangChain's chat model and tool, instrumented by OpenInference. Session and user come from its own context."""

import story

story.configure_environment()

import openai
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
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


def weather(question):
    model = chat_model(story.OPENAI_MODEL).bind_tools([get_weather])
    messages = [SystemMessage(story.SYSTEM), HumanMessage(question)]
    first = model.invoke(messages)
    messages.append(first)
    messages.append(get_weather.invoke(first.tool_calls[0]))
    answer = model.invoke(messages).content
    streamed = [SystemMessage(story.SYSTEM), HumanMessage(story.STREAMED_QUESTION)]
    for _chunk in chat_model(story.OPENAI_MODEL).stream(streamed):
        pass
    try:
        chat_model(story.OPENAI_REFUSED_MODEL).invoke([HumanMessage(story.REFUSED_QUESTION)])
    except openai.BadRequestError:
        return answer
    raise AssertionError("the stub did not refuse")


def main():
    provider = story.tracer_provider()
    LangChainInstrumentor().instrument(tracer_provider=provider)
    with using_attributes(session_id=story.SESSION_ID, user_id=story.USER_ID):
        RunnableLambda(weather, name=story.AGENT).invoke(story.QUESTION)
    provider.shutdown()


main()
