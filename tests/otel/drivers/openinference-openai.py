"""OpenAI's client, instrumented by OpenInference; agent and tool are spans of its own tracer."""

import story

story.configure_environment()

from openinference.instrumentation import TracerProvider, using_attributes
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SimpleSpanProcessor


def main():
    provider = TracerProvider()
    # One request for each span, as its documentation shows: children arrive before their parents.
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    OpenAIInstrumentor().instrument(tracer_provider=provider)
    tracer = provider.get_tracer("weather-service")

    @tracer.tool(name=story.TOOL_NAME, description=story.TOOL_DESCRIPTION)
    def get_weather(city: str) -> str:
        return story.get_weather(city)

    client = story.openai_client()
    with (
        using_attributes(session_id=story.SESSION_ID, user_id=story.USER_ID),
        tracer.start_as_current_span(story.AGENT, openinference_span_kind="agent") as agent,
    ):
        agent.set_attribute("agent.name", story.AGENT)
        agent.set_input(story.QUESTION)
        agent.set_output(story.openai_tool_chat(client, lambda _call_id, arguments: get_weather(**arguments)))
        story.openai_streamed_chat(client)
        story.openai_responses(client)
        story.openai_streamed_responses(client)
        story.openai_embedding(client)
        story.openai_refused_chat(client)
    provider.shutdown()


main()
