"""OpenAI's Agents SDK, instrumented by OpenInference: the tool run on chat completions, the rest on the Responses API."""

import asyncio

import story

story.configure_environment()

import openai
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, trace
from openinference.instrumentation import using_attributes
from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city, now."""
    return story.get_weather(city)


def agent(model_class, model, tools):
    client = story.openai_client(openai.AsyncOpenAI)
    return Agent(
        name=story.AGENT, instructions=story.SYSTEM, model=model_class(model, openai_client=client), tools=tools
    )


async def tell():
    with trace("Weather story", group_id=story.SESSION_ID):
        await Runner.run(agent(OpenAIChatCompletionsModel, story.OPENAI_MODEL, [get_weather]), story.QUESTION)
        streamed = Runner.run_streamed(agent(OpenAIResponsesModel, story.OPENAI_MODEL, []), story.STREAMED_QUESTION)
        async for _event in streamed.stream_events():
            pass
        try:
            await Runner.run(agent(OpenAIResponsesModel, story.OPENAI_REFUSED_MODEL, []), story.REFUSED_QUESTION)
        except openai.BadRequestError:
            return
        raise AssertionError("the stub did not refuse")


def main():
    provider = story.tracer_provider()
    OpenAIAgentsInstrumentor().instrument(tracer_provider=provider)
    with using_attributes(session_id=story.SESSION_ID, user_id=story.USER_ID):
        asyncio.run(tell())
    provider.shutdown()


main()
