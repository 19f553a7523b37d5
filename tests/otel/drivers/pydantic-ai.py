"""A pydantic-ai agent observed by Logfire, which exports to our endpoint and not to its own cloud."""

import asyncio

import story

story.configure_environment()

import logfire
from pydantic_ai import Agent, Embedder
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


async def tell():
    import openai

    provider = OpenAIProvider(openai_client=story.openai_client(openai.AsyncOpenAI))
    weather = Agent(
        OpenAIChatModel(story.OPENAI_MODEL, provider=provider), name=story.AGENT, instructions=story.SYSTEM
    )
    weather.tool_plain(story.get_weather)
    teller = Agent(OpenAIChatModel(story.OPENAI_MODEL, provider=provider), name=story.AGENT, instructions=story.SYSTEM)
    await weather.run(story.QUESTION, conversation_id=story.SESSION_ID)
    async with teller.run_stream(story.STREAMED_QUESTION, conversation_id=story.SESSION_ID) as stream:
        async for _text in stream.stream_text(delta=True):
            pass
    await Embedder(OpenAIEmbeddingModel(story.EMBEDDING_MODEL, provider=provider)).embed_query(story.EMBEDDED_TEXT)
    try:
        refused = OpenAIChatModel(story.OPENAI_REFUSED_MODEL, provider=provider)
        await Agent(refused, name=story.AGENT).run(story.REFUSED_QUESTION, conversation_id=story.SESSION_ID)
    except ModelHTTPError:
        return
    raise AssertionError("the stub did not refuse")


def main():
    logfire.configure(
        send_to_logfire=False,
        service_name=story.SERVICE,
        service_version="1.2.3",
        environment=story.ENVIRONMENT,
        console=False,
        inspect_arguments=False,
    )
    logfire.instrument_pydantic_ai()
    Embedder.instrument_all()
    # Logfire copies baggage to every span, which is its means to name the user.
    with logfire.set_baggage(**{"user.id": story.USER_ID}), logfire.span("weather story"):
        asyncio.run(tell())
    logfire.shutdown()


main()
