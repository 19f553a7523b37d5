"""OpenAI's client under Traceloop's SDK: workflow, agent and tool by its decorators, session and user as associations."""

import os

import story

story.configure_environment()
os.environ["TRACELOOP_TELEMETRY"] = "false"
os.environ["TRACELOOP_BASE_URL"] = story.OTLP_URL
os.environ["TRACELOOP_API_KEY"] = story.API_KEY

from traceloop.sdk import Traceloop
from traceloop.sdk.decorators import agent, tool, workflow
from traceloop.sdk.instruments import Instruments


@tool(name=story.TOOL_NAME)
def get_weather(city):
    return story.get_weather(city)


@agent(name=story.AGENT)
def weather(question):
    client = story.openai_client()
    answer = story.openai_tool_chat(client, lambda _call_id, arguments: get_weather(**arguments))
    story.openai_streamed_chat(client)
    story.openai_responses(client)
    story.openai_streamed_responses(client)
    story.openai_embedding(client)
    story.openai_refused_chat(client)
    return answer


@workflow(name="weather_story")
def tell():
    return weather(story.QUESTION)


def main():
    Traceloop.init(
        app_name=story.SERVICE,
        telemetry_enabled=False,
        instruments={Instruments.OPENAI},
        resource_attributes={"deployment.environment.name": story.ENVIRONMENT},
    )
    Traceloop.set_association_properties({"session_id": story.SESSION_ID, "user_id": story.USER_ID})
    tell()
    from opentelemetry import metrics, trace

    trace.get_tracer_provider().shutdown()
    metrics.get_meter_provider().shutdown()


main()
