"""Bedrock's Converse API through boto3, instrumented by OpenTelemetry's botocore library. Agent and tool are the application's."""

import os

import story

story.configure_environment()
os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "true"
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from opentelemetry import _logs
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.instrumentation.botocore import BotocoreInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

TOOL = {
    "toolSpec": {
        "name": story.TOOL_NAME,
        "description": story.TOOL_DESCRIPTION,
        "inputSchema": {"json": story.TOOL_SCHEMA},
    }
}
SYSTEM = [{"text": story.SYSTEM}, {"cachePoint": {"type": "default"}}]


def user(text):
    return {"role": "user", "content": [{"text": text}]}


def tool_chat(client, tracer):
    messages = [user(story.QUESTION)]
    request = {"modelId": story.BEDROCK_MODEL, "system": SYSTEM, "toolConfig": {"tools": [TOOL]}}
    message = client.converse(messages=messages, **request)["output"]["message"]
    use = message["content"][0]["toolUse"]
    names = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": use["name"], "gen_ai.tool.call.id": use["toolUseId"]}
    with tracer.start_as_current_span(f"execute_tool {use['name']}", attributes=names) as span:
        result = story.get_weather(**use["input"])
        span.set_attribute("gen_ai.tool.call.arguments", story.json.dumps(use["input"]))
        span.set_attribute("gen_ai.tool.call.result", result)
    answer = {"toolResult": {"toolUseId": use["toolUseId"], "content": [{"text": result}]}}
    client.converse(messages=[*messages, message, {"role": "user", "content": [answer]}], **request)


def streamed_chat(client):
    answer = client.converse_stream(
        modelId=story.BEDROCK_MODEL, system=[{"text": story.SYSTEM}], messages=[user(story.STREAMED_QUESTION)]
    )
    for _event in answer["stream"]:
        pass


def refused_chat(client):
    try:
        client.converse(modelId=story.ANTHROPIC_REFUSED_MODEL, messages=[user(story.REFUSED_QUESTION)])
    except ClientError:
        return
    raise AssertionError("the stub did not refuse")


def main():
    traces = story.tracer_provider()
    logs = LoggerProvider()
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    _logs.set_logger_provider(logs)
    BotocoreInstrumentor().instrument()
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=story.STUB_URL,
        region_name="us-east-1",
        aws_access_key_id="stub",
        aws_secret_access_key="stub",
        config=Config(retries={"total_max_attempts": 1}),
    )
    tracer = traces.get_tracer("weather-service", "1.2.3")
    names = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": story.AGENT,
        "session.id": story.SESSION_ID,
        "user.id": story.USER_ID,
    }
    with tracer.start_as_current_span(f"invoke_agent {story.AGENT}", attributes=names):
        tool_chat(client, tracer)
        streamed_chat(client)
        refused_chat(client)
    for provider in (traces, logs):
        provider.shutdown()


main()
