"""What each family's driver does, and what its library does not put on the wire.

The steps are in the order in which the stub sees them. `absent` names the fields of a call that the library does not
transmit, in which steps, and why; check.py holds every line of it against the captured bytes, in both directions.
"""

from dataclasses import dataclass, field

CHAT = ("tool_first", "tool_second", "streamed")
RESPONSES = ("responses", "responses_streamed")
NO_PRICE = "The library reports no price."


@dataclass
class Absent:
    name: str
    steps: tuple
    why: str


@dataclass
class Family:
    steps: tuple
    agent_name: str | None = "weather"
    # Whether the tool's run is a span of its own.
    tool: bool = True
    # The steps for which a time to first token can be known.
    first_token: tuple = ()
    # Whether the input on the wire leaves out what was read from and written to a cache.
    exclusive_input: bool = False
    # Whether the library computes a price.
    priced: bool = False
    absent: list = field(default_factory=list)
    # What a reader of the totals must know.
    notes: tuple = ()


TOOL_SPAN_HAS_NO_ID = Absent("tool_call_id", ("tool",), "The tool's span does not say which call of the model it answers.")
OPENAI_STEPS = (*CHAT, *RESPONSES, "embedding", "refused")
OTEL_ABSENT = [Absent("input", ("embedding",), "The text that is embedded is not captured.")]

FAMILIES = {
    "openinference-openai": Family(
        steps=OPENAI_STEPS,
        first_token=("streamed", "responses_streamed"),
        absent=[
            Absent("finish_reason", RESPONSES, "The Responses API has none, and none is made up."),
            TOOL_SPAN_HAS_NO_ID,
        ],
    ),
    "openinference-anthropic": Family(
        steps=(*CHAT, "refused"),
        first_token=("streamed",),
        absent=[TOOL_SPAN_HAS_NO_ID],
        notes=(
            "Each call has two spans: OpenInference's, and as its child the one of Anthropic's own client, which repeats "
            "the usage and alone knows the time to first token.",
        ),
    ),
    "openinference-langchain": Family(
        steps=(*CHAT, "refused"),
        agent_name=None,
        absent=[
            Absent("response_id", ("streamed",), "A streamed answer is put together without its id."),
            Absent("tool_args", ("tool",), "A tool with one argument has the bare value as input, without its name."),
        ],
        notes=("A streamed call says the requested model in llm.model_name; the answering one is in output.value only.",),
    ),
    "openinference-agents": Family(
        steps=("tool_first", "tool_second", "responses_streamed", "refused"),
        absent=[
            Absent("response_id", CHAT, "A chat completion's span holds the messages only."),
            Absent("response_model", CHAT, "A chat completion's span names the requested model only."),
            Absent("finish_reason", CHAT, "A chat completion's span has none."),
            Absent("cache_read", CHAT, "A chat completion's span has the two totals only."),
            Absent("reasoning", CHAT, "A chat completion's span has the two totals only."),
            Absent("request_model", ("responses_streamed", "refused"), "A response's span names the answering model only."),
            Absent("input", ("refused",), "A response that failed has a span without messages."),
            TOOL_SPAN_HAS_NO_ID,
        ],
        notes=("The root span is of kind AGENT and has no agent.name; the agent is the AGENT span that has one.",),
    ),
    "openinference-langgraph": Family(
        steps=(*CHAT, "refused"),
        agent_name=None,
        absent=[
            Absent("response_id", ("streamed",), "A streamed answer is put together without its id."),
            Absent("tool_args", ("tool",), "A tool with one argument has the bare value as input, without its name."),
        ],
        notes=("Nodes and conditional edges of the graph are CHAIN spans around the calls.",),
    ),
    "otel-botocore": Family(
        steps=(*CHAT, "refused"),
        exclusive_input=True,
        notes=(
            "gen_ai.usage.input_tokens is Converse's inputTokens, which leaves cache reads and writes out.",
            "Messages are in the bodies of log records, in Bedrock's own shape.",
        ),
    ),
    "logfire-openai": Family(
        steps=OPENAI_STEPS,
        absent=OTEL_ABSENT,
        notes=(
            "A streamed call is two spans: the request, and when the stream has ended one with the answer and its tokens.",
            "Logfire scrubs session.id on spans that it does not make itself: `[Scrubbed due to 'session']`.",
            "Reasoning tokens are in gen_ai.usage.raw only, the provider's object as JSON.",
        ),
    ),
    "openlit-openai": Family(
        steps=OPENAI_STEPS,
        first_token=(*CHAT, *RESPONSES, "embedding"),
        absent=[
            Absent("reasoning", CHAT, "A chat completion's span has no reasoning tokens."),
            Absent("input", ("refused",), "A failed request's span has no messages."),
        ],
        notes=("The time to first token of a call that is not streamed is its whole duration.",),
    ),
    "otel-openai": Family(steps=OPENAI_STEPS, first_token=("streamed", "responses_streamed"), absent=OTEL_ABSENT),
    "otel-openai-event-only": Family(
        steps=OPENAI_STEPS,
        first_token=("streamed", "responses_streamed"),
        absent=[
            *OTEL_ABSENT,
            Absent("tool_args", ("tool",), "A tool's run has no log record, and with EVENT_ONLY no content on its span."),
            Absent("tool_result_contains", ("tool",), "As its arguments."),
        ],
        notes=("The messages are in log records only, joined to their span by trace id and span id.",),
    ),
    "openllmetry-openai": Family(
        steps=OPENAI_STEPS,
        first_token=("streamed",),
        absent=[
            Absent("reasoning", ("streamed",), "A streamed chat completion loses its reasoning tokens."),
            TOOL_SPAN_HAS_NO_ID,
        ],
    ),
    "openllmetry-anthropic": Family(
        steps=(*CHAT, "refused"),
        agent_name=None,
        tool=False,
        first_token=("streamed",),
        notes=(
            "Each call has two spans, siblings with one gen_ai.response.id: OpenLLMetry's (messages) and the one of "
            "Anthropic's own client (time to first token).",
            "OpenLLMetry adds the output tokens of a stream's first event to those of its last, and so reports one too many "
            "for the streamed call, on its span and in its metric; the client's own span is right.",
        ),
    ),
    "pydantic-ai": Family(
        steps=(*CHAT, "embedding", "refused"),
        first_token=("streamed",),
        priced=True,
        absent=[Absent("input", ("refused",), "A failed request's span has no messages; the agent's span above it has.")],
    ),
    "langfuse": Family(
        steps=OPENAI_STEPS,
        first_token=("streamed", "responses_streamed"),
        absent=[
            Absent("provider", (*OPENAI_STEPS,), "No attribute names the provider; the model's name must do."),
            Absent("request_model", (*CHAT, *RESPONSES), "The answering model takes the requested one's place."),
            Absent("response_id", (*CHAT, "responses"), "Only a streamed response keeps its id, among the metadata."),
            Absent("finish_reason", ("tool_first", "tool_second", *RESPONSES), "Only a streamed chat keeps it, as metadata."),
            TOOL_SPAN_HAS_NO_ID,
        ],
    ),
    "vercel": Family(
        steps=("tool_first", "tool_second", "responses_streamed", "embedding", "refused"),
        first_token=("responses_streamed",),
        absent=[
            Absent("reasoning", (*CHAT, "responses_streamed"), "The class exports no reasoning tokens unless asked to."),
            Absent("input", ("embedding",), "The class exports no embedded text unless asked to."),
            Absent("response_model", ("embedding",), "An embedding's span names the requested model only."),
        ],
        notes=(
            "Session and user are ai.settings.context.sessionId and .userId: the runtime context, where it is asked for.",
            "An embedding is two nested spans of one name; the inner has the usage.",
            "invoke_agent repeats the sum of its calls' usage under the same names.",
        ),
    ),
    "vercel-legacy": Family(
        steps=("tool_first", "tool_second", "responses_streamed", "embedding", "refused"),
        first_token=("responses_streamed",),
        absent=[Absent("response_model", ("embedding",), "An embedding's span names the requested model only.")],
        notes=(
            "ai.generateText, ai.streamText and ai.embed repeat the usage of the do* spans below them.",
            "Session and user are ai.settings.context.sessionId and .userId.",
        ),
    ),
}
