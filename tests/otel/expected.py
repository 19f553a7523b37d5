#!/usr/bin/env python3
"""Writes what must be read out of a capture: from the stub's log and the story, never from the capture itself.

    expected.py FAMILY --truth truth.jsonl --session SESSION --user USER > expected.json

A null says that the field is not transmitted, and not_transmitted says why. A count of 0 also stands where a library
leaves the zero out. Finish reasons are in OpenTelemetry's spelling (tool_call, stop).
"""

import argparse
import json
import sys
from decimal import Decimal
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "stub"))

import families
import story

SYSTEM = "You are a weather assistant."
QUESTION = "What is the weather in Paris?"
STREAMED_QUESTION = "Tell me a joke about the rain."
TOOL_RESULT = "18 degrees and sunny"

# What is said in each step: kind, system text, what the input holds, what the output holds.
SAID = {
    "tool_first": ("llm", SYSTEM, [QUESTION], [story.TOOL_NAME, "Paris"]),
    "tool_second": ("llm", SYSTEM, [QUESTION, TOOL_RESULT], [story.FINAL_TEXT]),
    "streamed": ("llm", SYSTEM, [STREAMED_QUESTION], [story.STREAMED_TEXT]),
    "responses": ("llm", SYSTEM, [QUESTION], [story.FINAL_TEXT]),
    "responses_streamed": ("llm", SYSTEM, [STREAMED_QUESTION], [story.STREAMED_TEXT]),
    "embedding": ("embedding", None, ["Rain in Paris"], []),
    "refused": ("error", None, ["Will it rain tomorrow?"], []),
}
FINISH_REASONS = {"tool_calls": "tool_call", "tool_use": "tool_call", "end_turn": "stop"}

# List prices, US dollars for a million tokens: input, cached input, output.
PRICES = {"gpt-5-mini": ("0.25", "0.025", "2"), "text-embedding-3-small": ("0.02", "0.02", "0")}


def price_usd(row):
    fresh, cached, output = (Decimal(price) for price in PRICES[row["request_model"]])
    cost = (row["input_total"] - row["cache_read"]) * fresh + row["cache_read"] * cached + row["output_total"] * output
    return float(cost / 1_000_000)


def model_call(step, row, family):
    kind, system_text, input_contains, output_contains = SAID[step]
    # A driver that asks the agent without instructions has none to send.
    succeeded = row["status"] == 200
    return {
        "step": step,
        "response_id": row["response_id"],
        "kind": kind,
        "provider": row["api"].partition(".")[0],
        "request_model": row["request_model"],
        "response_model": row["response_model"],
        "input_tokens": row["input_total"],
        "output_tokens": row["output_total"],
        "cache_read": row["cache_read"],
        "cache_write": row["cache_write"],
        "reasoning": row["reasoning"],
        "cost_usd": price_usd(row) if family.priced and succeeded else None,
        "system_text": system_text,
        "input_contains": input_contains,
        "output_contains": output_contains,
        "finish_reason": FINISH_REASONS.get(row["finish_reason"], row["finish_reason"]),
        "tool_name": None,
        "tool_args": None,
        "tool_result_contains": None,
        "tool_call_id": None,
        "has_error": not succeeded,
        "has_ttft": step in family.first_token,
        "not_transmitted": [],
    }


def tool_call(row):
    """The run of the tool that the model asked for in this call."""
    call = row["tool_calls"][0]
    empty = dict.fromkeys(
        ("response_id", "provider", "request_model", "response_model", "cost_usd", "system_text", "finish_reason")
    )
    return {
        "step": "tool",
        "kind": "tool",
        **empty,
        **dict.fromkeys(("input_tokens", "output_tokens", "cache_read", "cache_write", "reasoning"), 0),
        "input_contains": [],
        "output_contains": [],
        "tool_name": call["name"],
        "tool_args": call["arguments"],
        "tool_result_contains": TOOL_RESULT,
        "tool_call_id": call["id"],
        "has_error": False,
        "has_ttft": False,
        "not_transmitted": [],
    }


def take_away(call, absent):
    if absent.name in ("input", "output"):
        call[f"{absent.name}_contains"] = []
    else:
        call[absent.name] = None
    call["not_transmitted"].append(absent.name)


def expected(family_name, truth, session_id, user_id):
    family = families.FAMILIES[family_name]
    if len(truth) != len(family.steps):
        raise SystemExit(f"{family_name}: the stub saw {len(truth)} calls where the story has {len(family.steps)}")
    calls = []
    for step, row in zip(family.steps, truth, strict=True):
        calls.append(model_call(step, row, family))
        if family.tool and row["tool_calls"]:
            calls.append(tool_call(row))
    not_transmitted = []
    for absent in family.absent:
        touched = [call for call in calls if call["step"] in absent.steps]
        for call in touched:
            take_away(call, absent)
        not_transmitted.append({"field": absent.name, "steps": [call["step"] for call in touched], "why": absent.why})
    if not family.priced:
        not_transmitted.append({"field": "cost_usd", "steps": [call["step"] for call in calls], "why": families.NO_PRICE})
    counts = ("input_tokens", "output_tokens", "cache_read", "cache_write", "reasoning")
    return {
        "session_id": session_id,
        "user_id": user_id,
        "agent_name": family.agent_name,
        "environment": "staging",
        "calls": calls,
        "totals": {count: sum(call[count] or 0 for call in calls) for count in counts},
        "not_transmitted": not_transmitted,
        "notes": list(family.notes),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=families.FAMILIES)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--session", required=True)
    parser.add_argument("--user", required=True)
    arguments = parser.parse_args()
    truth = [json.loads(line) for line in arguments.truth.read_text().splitlines()]
    result = expected(arguments.family, truth, arguments.session, arguments.user)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
