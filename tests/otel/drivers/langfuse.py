"""Langfuse's SDK and its drop-in OpenAI client, pointed at us by one URL and one pair of keys."""

import os
import sys

import story

story.configure_environment()
os.environ["LANGFUSE_BASE_URL"] = story.OTLP_URL
os.environ["LANGFUSE_PUBLIC_KEY"] = os.environ.get("LANGFUSE_PUBLIC_KEY", "pk-lf-agentlens")
os.environ["LANGFUSE_SECRET_KEY"] = story.API_KEY
os.environ["LANGFUSE_TRACING_ENVIRONMENT"] = story.ENVIRONMENT
os.environ["LANGFUSE_MEDIA_UPLOAD_ENABLED"] = "false"
# This file has the library's name and stands first on the path.
sys.path.pop(0)

from langfuse import get_client, observe, propagate_attributes
from langfuse.openai import OpenAI


@observe(as_type="tool", name=story.TOOL_NAME)
def get_weather(city):
    return story.get_weather(city)


@observe(as_type="agent", name=story.AGENT)
def weather(question):
    client = story.openai_client(OpenAI)
    answer = story.openai_tool_chat(client, lambda _call_id, arguments: get_weather(**arguments))
    story.openai_streamed_chat(client)
    story.openai_responses(client)
    story.openai_streamed_responses(client)
    story.openai_embedding(client)
    story.openai_refused_chat(client)
    return answer


def main():
    with propagate_attributes(session_id=story.SESSION_ID, user_id=story.USER_ID):
        weather(story.QUESTION)
    get_client().shutdown()


main()
