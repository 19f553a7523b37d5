#!/usr/bin/env python3
"""Holds expected.json against the captured bytes: what it says is transmitted is there, what it says is not is not.

    check.py DIRECTORY            prints nothing and exits 0, or says what does not fit and exits 1

It also writes `seen_in` into each call: for each field the attributes it was found in. Values are never taken over.
"""

import json
import re
import sys
from pathlib import Path

sys.dont_write_bytecode = True
import show

# Spans that contain calls and are none, though they may repeat what their calls say.
CONTAINER = re.compile(
    r"invoke_agent .*|step \d+|weather|weather story|Weather story|Agent workflow|turn|answer|tools|tools_condition|joke|refused"
    r"|ai\.(generateText|streamText|embed)|.*\.(workflow|agent)"
)
TOOL = re.compile(r"get_weather|ai\.toolCall")
USAGE = {
    "input_tokens": re.compile(r"(input|prompt).*token|usage.*(input|prompt)|ai\.usage\.tokens", re.I),
    "output_tokens": re.compile(r"(output|completion).*token|token.*completion|usage.*(output|completion)", re.I),
    "cache_read": re.compile(r"cache.*read|cached", re.I),
    "cache_write": re.compile(r"cache.*(write|creation)", re.I),
    "reasoning": re.compile(r"reasoning", re.I),
}
# The token counts of OpenInference have their word order reversed.
USAGE["input_tokens"] = re.compile(USAGE["input_tokens"].pattern + r"|token_count\.prompt$", re.I)
FIRST_TOKEN = re.compile(r"first.?(token|chunk)|completion_start_time|content\.completion\.chunk", re.I)
FINISH_REASONS = {
    "tool_calls": "tool_call",
    "tool-calls": "tool_call",
    "tool_use": "tool_call",
    "end_turn": "stop",
    "completed": "stop",
}


def flatten(path, value):
    """Every scalar of a value with the path to it; JSON inside a string is looked into as well."""
    yield path, value
    if isinstance(value, str) and value[:1] in "[{\"":
        try:
            value = json.loads(value)
        except ValueError:
            return
        yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(f"{path}/{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from flatten(path, inner)


def load_spans(directory):
    spans, logs = {}, []
    for _name, signal, body in show.bodies(directory):
        for resource in body.get("resourceSpans", []):
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    spans[span["spanId"]] = read_span(span)
        for resource in body.get("resourceLogs", []):
            for scope in resource["scopeLogs"]:
                logs += scope["logRecords"]
    for record in logs:
        for key, value in show.attributes(record).items():
            spans[record["spanId"]]["facts"] += flatten(f"log:{key}", value)
        spans[record["spanId"]]["facts"] += flatten("log:body", show.plain(record.get("body", {})))
    return list(spans.values())


def read_span(span):
    facts = [("name", span["name"])]
    for key, value in show.attributes(span).items():
        facts += flatten(key, value)
    for event in span.get("events", []):
        facts.append((f"event:{event['name']}", True))
        for key, value in show.attributes(event).items():
            facts += flatten(f"event:{event['name']}:{key}", value)
    failed = span.get("status", {}).get("code") in ("STATUS_CODE_ERROR", 2)
    return {"name": span["name"], "facts": facts, "failed": failed}


def matches(field, wanted, path, value):
    if field in USAGE:
        return value == wanted and not isinstance(value, bool) and bool(USAGE[field].search(path))
    if field == "cost_usd":
        return isinstance(value, float) and "cost" in path and abs(value - wanted) < 1e-12
    if field in ("request_model", "response_model"):
        return value == wanted
    if field == "tool_name":
        return value == wanted and ("name" in path)
    if field == "provider":
        named = re.search(r"provider|system$|provider\.name", path)
        return bool(named) and isinstance(value, str) and wanted in value.split(".")
    if field == "finish_reason":
        named = re.search(r"finish_?reason|stop_reason", path, re.I)
        return bool(named) and isinstance(value, str) and FINISH_REASONS.get(value, value) == wanted
    if field == "tool_args":
        return value == wanted
    return isinstance(value, str) and wanted in value


def seen_in(field, wanted, facts):
    # The place is the attribute, without the path inside its value.
    return sorted({path.partition("/")[0] for path, value in facts if matches(field, wanted, path, value)})


def wishes(call, truth_call):
    """Each field with what it would be if it were transmitted."""
    if truth_call.get("exclusive_input"):
        cached = truth_call["cache_read"] + truth_call["cache_write"]
        truth_call = {**truth_call, "input_tokens": truth_call["input_tokens"] - cached}
    for field in (
        "response_id", "provider", "request_model", "response_model", "finish_reason", *USAGE, "cost_usd",
        "system_text", "tool_name", "tool_args", "tool_result_contains", "tool_call_id",
    ):
        wanted = truth_call[field]
        if wanted not in (None, 0):
            yield field, field, wanted
    for side in ("input", "output"):
        for index, wanted in enumerate(truth_call[f"{side}_contains"]):
            yield side, f"{side}_contains.{index}", wanted


def best_span(call, whole, spans):
    """The span that says most about the call, with the facts of its twin: the span with the same response id."""
    wanted = list(wishes(call, whole))
    # The tool's own span, and no other: the messages of the model's next call repeat all of it.
    is_tool = call["kind"] == "tool"
    candidates = [
        span
        for span in spans
        if not CONTAINER.fullmatch(span["name"])
        and span["failed"] == call["has_error"]
        and bool(TOOL.search(span["name"])) == is_tool
    ]
    span = max(candidates, key=lambda span: sum(bool(seen_in(field, value, span["facts"])) for field, _, value in wanted))
    facts = list(span["facts"])
    if whole["response_id"]:
        for twin in candidates:
            if twin is not span and seen_in("response_id", whole["response_id"], twin["facts"]):
                facts += twin["facts"]
    return span, facts


def check_call(call, whole, spans):
    span, facts = best_span(call, whole, spans)
    call["seen_in"] = {}
    problems = []
    for field, name, wanted in wishes(call, whole):
        places = seen_in(field, wanted, facts)
        absent = field in call["not_transmitted"]
        # One name for both models: that it was seen does not say which of them it was.
        told_apart = field != "response_model" or whole["request_model"] != whole["response_model"]
        if absent and places and told_apart:
            problems.append(f"{name} is said not to be transmitted but is in {places}")
        if not absent and not places:
            problems.append(f"{name} = {wanted!r} is nowhere on the span")
        if places and not absent:
            call["seen_in"][name] = places
    first_token = sorted({path.partition("/")[0] for path, _value in facts if FIRST_TOKEN.search(path)})
    if bool(first_token) != call["has_ttft"]:
        problems.append(f"has_ttft is {call['has_ttft']} but {first_token} was seen")
    if first_token:
        call["seen_in"]["has_ttft"] = first_token
    return [f"{call['step']} (span {span['name']!r}): {problem}" for problem in problems]


def check(directory, whole):
    path = directory / "expected.json"
    document = json.loads(path.read_text())
    spans = load_spans(directory)
    problems = []
    for call, whole_call in zip(document["calls"], whole["calls"], strict=True):
        problems += check_call(call, whole_call, spans)
    seen = {}
    for field in ("session_id", "user_id", "agent_name"):
        if document[field]:
            seen[field] = sorted(
                {key for span in spans for key, value in span["facts"] if value == document[field] and "/" not in key}
            )
            if not seen[field]:
                problems.append(f"{field} {document[field]!r} is nowhere")
    document["seen_in"] = seen
    path.write_text(json.dumps(document, indent=2) + "\n")
    return problems


def main():
    directory = Path(sys.argv[1])
    import expected
    import families

    document = json.loads((directory / "expected.json").read_text())
    truth = [json.loads(line) for line in (directory / "truth.jsonl").read_text().splitlines()]
    family = families.FAMILIES[directory.name]
    family.absent, stated = [], family.absent
    whole = expected.expected(directory.name, truth, document["session_id"], document["user_id"])
    family.absent = stated
    for call in whole["calls"]:
        call["exclusive_input"] = family.exclusive_input
    problems = check(directory, whole)
    for problem in problems:
        print(f"{directory.name}: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
