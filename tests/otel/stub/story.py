"""What is said in the story, and what each call of it costs in tokens.

The drivers say the same words (drivers/story.py); what is expected of a capture is derived from both.
Counts differ from call to call, so that a call counted twice, or the wrong call counted, changes a sum.
"""

from dataclasses import dataclass, field

CREATED_S = 1_790_000_000

TOOL_NAME = "get_weather"
TOOL_ARGUMENTS = {"city": "Paris"}
FINAL_TEXT = "It is 18 degrees and sunny in Paris."
STREAMED_TEXT = "Rain never calls ahead, it just drops in."

# What a model is asked for by name and what it answers it was.
ANSWERED_MODELS = {
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
}
BAD_REQUEST_MODELS = ("gpt-fail", "claude-fail")
RATE_LIMITED_MODELS = ("gpt-busy", "claude-busy")


@dataclass
class Reply:
    """One answer: either a body or the chunks of a stream, and the truth about it."""

    truth: dict
    status: int = 200
    body: dict | None = None
    chunks: list | None = None
    headers: dict = field(default_factory=dict)


@dataclass
class Usage:
    """Inclusive totals: the input contains what was read from and written to a cache, the output contains reasoning."""

    input_total: int
    output_total: int
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0


def openai_usage(number):
    return Usage(input_total=41 + number, output_total=16 + number, cache_read=30, reasoning=4 + number)


def anthropic_usage(number):
    """Anthropic's own wire counts the three kinds of input apart; their sum is the total. It reports no reasoning."""
    return Usage(
        input_total=6 + number + 100 + number + 200 + number,
        output_total=20 + number,
        cache_read=200 + number,
        cache_write=100 + number,
    )


def embedding_usage(number):
    return Usage(input_total=3 + number, output_total=0)


def answered_model(requested):
    return ANSWERED_MODELS.get(requested, requested)


def truth(api, request, *, response_id, usage, finish_reason, tool_calls=(), status=200):
    return {
        "api": api,
        "response_id": response_id,
        "request_model": request.get("model"),
        "response_model": answered_model(request.get("model")) if status == 200 else None,
        "streamed": bool(request.get("stream")),
        "status": status,
        "finish_reason": finish_reason,
        "tool_calls": list(tool_calls),
        "input_total": usage.input_total,
        "output_total": usage.output_total,
        "cache_read": usage.cache_read,
        "cache_write": usage.cache_write,
        "reasoning": usage.reasoning,
    }


def words(text):
    """The text in the pieces a stream sends it in."""
    pieces = text.split(" ")
    return [piece if index == 0 else " " + piece for index, piece in enumerate(pieces)]
