"""OpenAI's client, instrumented by OpenTelemetry's own library, with messages on spans and in log records.

CAPTURE_CONTENT=EVENT_ONLY puts the messages in log records only. Agent and tool are spans of the same library's helper.
"""

import os

import story

story.configure_environment()
os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = os.environ.get("CAPTURE_CONTENT", "SPAN_AND_EVENT")
os.environ["OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT"] = "true"
os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
os.environ["OTEL_EXPORTER_OTLP_COMPRESSION"] = "gzip"

from opentelemetry import _logs, metrics
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.util.genai.handler import TelemetryHandler


def main():
    traces = story.tracer_provider()
    logs = LoggerProvider()
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    _logs.set_logger_provider(logs)
    meters = MeterProvider(metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())])
    metrics.set_meter_provider(meters)
    OpenAIInstrumentor().instrument()
    handler = TelemetryHandler(instrumentation_scope_name="weather-service", instrumentation_scope_version="1.2.3")

    def call_tool(call_id, arguments):
        with handler.tool(story.TOOL_NAME, tool_type="function", agent_name=story.AGENT) as invocation:
            invocation.tool_call_id = call_id
            result = story.get_weather(**arguments)
            if invocation.should_capture_content:
                invocation.arguments = arguments
                invocation.tool_result = result
        return result

    client = story.openai_client()
    with handler.invoke_local_agent(agent_name=story.AGENT, conversation_id=story.SESSION_ID) as agent:
        agent.attributes["user.id"] = story.USER_ID
        story.openai_tool_chat(client, call_tool)
        story.openai_streamed_chat(client)
        story.openai_responses(client)
        story.openai_streamed_responses(client)
        story.openai_embedding(client)
        story.openai_refused_chat(client)
    for provider in (traces, logs, meters):
        provider.shutdown()


main()
