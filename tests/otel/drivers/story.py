"""What the Python drivers have in common: the words of the story, and where it is told.

The environment says where: STUB_URL (the stub's root), AGENTLENS_OTLP_URL or OTEL_EXPORTER_OTLP_ENDPOINT (the root under
which /v1/traces is), AGENTLENS_API_KEY, SESSION_ID, USER_ID. Nothing else differs between a capture and a live run.
"""

import json
import os
import sys

AGENT = "weather"
SYSTEM = "You are a weather assistant."
QUESTION = "What is the weather in Paris?"
STREAMED_QUESTION = "Tell me a joke about the rain."
REFUSED_QUESTION = "Will it rain tomorrow?"
EMBEDDED_TEXT = "Rain in Paris"

OPENAI_MODEL = "gpt-5-mini"
OPENAI_REFUSED_MODEL = "gpt-fail"
EMBEDDING_MODEL = "text-embedding-3-small"
ANTHROPIC_MODEL = "claude-sonnet-4-5"
ANTHROPIC_REFUSED_MODEL = "claude-fail"
BEDROCK_MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"

TOOL_NAME = "get_weather"
TOOL_DESCRIPTION = "The weather in a city, now."
TOOL_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OPENAI_TOOL = {
    "type": "function",
    "function": {"name": TOOL_NAME, "description": TOOL_DESCRIPTION, "parameters": TOOL_SCHEMA},
}
ANTHROPIC_TOOL = {"name": TOOL_NAME, "description": TOOL_DESCRIPTION, "input_schema": TOOL_SCHEMA}

STUB_URL = os.environ["STUB_URL"].rstrip("/")
OTLP_URL = (os.environ.get("AGENTLENS_OTLP_URL") or os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]).rstrip("/")
API_KEY = os.environ["AGENTLENS_API_KEY"]
SESSION_ID = os.environ["SESSION_ID"]
USER_ID = os.environ["USER_ID"]
SERVICE = "weather-service"
ENVIRONMENT = "staging"

# The key for the stub; it is asked for none.
STUB_KEY = "sk-stub"


def get_weather(city: str) -> str:
    """The weather in a city, now."""
    return f"18 degrees and sunny in {city}"


def configure_environment():
    """Sets what every OpenTelemetry SDK reads, as a user of AgentLens would. To be called before an SDK is imported."""
    # A stack trace names files of the machine; the message and the type are what a reader of the corpus needs.
    sys.tracebacklimit = 0
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = OTLP_URL
    os.environ["OTEL_EXPORTER_OTLP_HEADERS"] = f"Authorization=Bearer%20{API_KEY}"
    os.environ["OTEL_SERVICE_NAME"] = SERVICE
    # Some libraries add the host's name and id; said here, they are the same on every machine.
    os.environ["OTEL_RESOURCE_ATTRIBUTES"] = (
        f"deployment.environment.name={ENVIRONMENT},service.version=1.2.3,"
        "host.name=agent-host,host.id=agent-host,os.version=0,process.runtime.description=python"
    )


def tracer_provider():
    """The plain SDK's provider, exporting in batches and set as the global one."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


def openai_client(factory=None):
    """A client of the stub that does not retry: a refusal is one call, not three."""
    import openai

    return (factory or openai.OpenAI)(base_url=f"{STUB_URL}/v1", api_key=STUB_KEY, max_retries=0)


def openai_tool_chat(client, call_tool):
    """Two chat completions with the tool's run between them; `call_tool(call_id, arguments)` runs it."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    first = client.chat.completions.create(model=OPENAI_MODEL, messages=messages, tools=[OPENAI_TOOL])
    message = first.choices[0].message
    call = message.tool_calls[0]
    result = call_tool(call.id, json.loads(call.function.arguments))
    messages.append(message.model_dump(exclude_none=True))
    messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    second = client.chat.completions.create(model=OPENAI_MODEL, messages=messages, tools=[OPENAI_TOOL])
    return second.choices[0].message.content


def openai_streamed_chat(client):
    stream = client.chat.completions.create(
        model=OPENAI_MODEL,
        messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": STREAMED_QUESTION}],
        stream=True,
        stream_options={"include_usage": True},
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def openai_responses(client):
    response = client.responses.create(model=OPENAI_MODEL, instructions=SYSTEM, input=QUESTION)
    return response.output_text


def openai_streamed_responses(client):
    stream = client.responses.create(model=OPENAI_MODEL, instructions=SYSTEM, input=STREAMED_QUESTION, stream=True)
    return "".join(event.delta for event in stream if event.type == "response.output_text.delta")


def openai_embedding(client):
    return client.embeddings.create(model=EMBEDDING_MODEL, input=EMBEDDED_TEXT)


def openai_refused_chat(client):
    import openai

    try:
        client.chat.completions.create(
            model=OPENAI_REFUSED_MODEL, messages=[{"role": "user", "content": REFUSED_QUESTION}]
        )
    except openai.BadRequestError:
        return
    raise AssertionError("the stub did not refuse")


def anthropic_client():
    import anthropic

    return anthropic.Anthropic(base_url=STUB_URL, api_key=STUB_KEY, max_retries=0)


def anthropic_tool_chat(client, call_tool):
    system = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}]
    messages = [{"role": "user", "content": QUESTION}]
    request = {"model": ANTHROPIC_MODEL, "max_tokens": 256, "system": system, "tools": [ANTHROPIC_TOOL]}
    first = client.messages.create(messages=messages, **request)
    use = first.content[0]
    result = call_tool(use.id, use.input)
    messages.append({"role": "assistant", "content": [{"type": "tool_use", "id": use.id, "name": use.name, "input": use.input}]})
    messages.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": result}]})
    return client.messages.create(messages=messages, **request).content[0].text


def anthropic_streamed_chat(client):
    stream = client.messages.create(
        model=ANTHROPIC_MODEL,
        max_tokens=256,
        system=SYSTEM,
        messages=[{"role": "user", "content": STREAMED_QUESTION}],
        stream=True,
    )
    return "".join(
        event.delta.text for event in stream if event.type == "content_block_delta" and event.delta.type == "text_delta"
    )


def anthropic_refused_chat(client):
    import anthropic

    try:
        client.messages.create(
            model=ANTHROPIC_REFUSED_MODEL, max_tokens=256, messages=[{"role": "user", "content": REFUSED_QUESTION}]
        )
    except anthropic.BadRequestError:
        return
    raise AssertionError("the stub did not refuse")
