"""Anthropic's client, instrumented by OpenLLMetry without Traceloop's SDK; the client also makes spans of its own."""

import story

story.configure_environment()

from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader


def main():
    provider = story.tracer_provider()
    meters = MeterProvider(metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())])
    metrics.set_meter_provider(meters)
    AnthropicInstrumentor().instrument()
    tracer = provider.get_tracer("weather-service", "1.2.3")
    client = story.anthropic_client()
    # Without Traceloop's SDK the instrumentation has no means for a session or a user: the application names them.
    with tracer.start_as_current_span("weather") as span:
        span.set_attribute("session.id", story.SESSION_ID)
        span.set_attribute("user.id", story.USER_ID)
        # Nor has it one for a tool: that one ran is seen in the messages only.
        story.anthropic_tool_chat(client, lambda _call_id, arguments: story.get_weather(**arguments))
        story.anthropic_streamed_chat(client)
        story.anthropic_refused_chat(client)
    provider.shutdown()
    meters.shutdown()


main()
