"""Anthropic's client, instrumented by OpenInference; the client also makes spans of its own."""

import story

story.configure_environment()

from openinference.instrumentation import TracerProvider, using_attributes
from openinference.instrumentation.anthropic import AnthropicInstrumentor
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def main():
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    AnthropicInstrumentor().instrument(tracer_provider=provider)
    tracer = provider.get_tracer("weather-service")

    @tracer.tool(name=story.TOOL_NAME, description=story.TOOL_DESCRIPTION)
    def get_weather(city: str) -> str:
        return story.get_weather(city)

    client = story.anthropic_client()
    with (
        using_attributes(session_id=story.SESSION_ID, user_id=story.USER_ID),
        tracer.start_as_current_span(story.AGENT, openinference_span_kind="agent") as agent,
    ):
        agent.set_attribute("agent.name", story.AGENT)
        agent.set_input(story.QUESTION)
        agent.set_output(story.anthropic_tool_chat(client, lambda _call_id, arguments: get_weather(**arguments)))
        story.anthropic_streamed_chat(client)
        story.anthropic_refused_chat(client)
    provider.shutdown()


main()
