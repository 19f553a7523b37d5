#!/usr/bin/env python3
"""Reads sessions back from a running AgentLens server and compares them with the stub's log, to the token.

    AGENTLENS_API_KEY=... live_check.py BASE_URL TRUTH_LOG RUN FAMILY...

What is stored is processed a moment after it is accepted, so each session is asked for until it is as it must be, or the
time is up; then the difference is told and the exit status is 1.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True
import families

TIMEOUT_S = 60
POLL_S = 0.25


def get(base_url, path):
    request = urllib.request.Request(
        base_url + path, headers={"Authorization": f"Bearer {os.environ['AGENTLENS_API_KEY']}"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def nodes(tree):
    for node in tree:
        yield node
        yield from nodes(node.get("children", []))


def compare(session, trace, truth, family, user_id):
    """Every difference between what the server says and what is true, one sentence each."""
    answered = [row for row in truth if row["status"] == 200]
    model_calls = [row for row in answered if row["api"] != "openai.embeddings"]
    tool_calls = sum(len(row["tool_calls"]) for row in truth) if family.tool else 0
    wanted = {
        "totalInputTokens": sum(row["input_total"] for row in truth),
        "totalOutputTokens": sum(row["output_total"] for row in truth),
        "toolCallCount": tool_calls,
        "userId": user_id,
    }
    if family.agent_name:
        wanted["agentId"] = family.agent_name
    differences = [
        f"{field} is {session.get(field)!r} and should be {value!r}"
        for field, value in wanted.items()
        if session.get(field) != value
    ]
    # A refused call and an embedding may or may not be called a model call; a container must not.
    count = session.get("llmCallCount")
    if not isinstance(count, int) or not len(model_calls) <= count <= len(truth):
        differences.append(f"llmCallCount is {count!r} and should be {len(model_calls)} to {len(truth)}")
    return differences + compare_trace(trace, truth)


def compare_trace(trace, truth):
    differences = []
    tree = trace.get("tree", [])
    steps = list(nodes(tree))
    if len(tree) != 1:
        differences.append(f"the trace has {len(tree)} roots ({[node.get('name') for node in tree]}) and should have 1")
    if len(steps) <= len(truth):
        differences.append(f"the trace has {len(steps)} steps, which cannot hold {len(truth)} calls and their agent")
    if not any(row.get("hasError") for row in steps):
        differences.append("no step of the trace is an error, though one call was refused")
    if trace.get("chainValid") is not True:
        differences.append(f"chainValid is {trace.get('chainValid')!r}")
    return differences


def await_session(base_url, session_id, truth, family, user_id):
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            session = get(base_url, f"/api/sessions/{session_id}")
            trace = get(base_url, f"/api/sessions/{session_id}/trace")
            differences = compare(session, trace, truth, family, user_id)
        except (urllib.error.URLError, TimeoutError) as error:
            # Also a 404: the session may not be there yet.
            differences = [f"cannot be read: {error}"]
        if not differences or time.monotonic() > deadline:
            return differences
        time.sleep(POLL_S)


def main():
    base_url, truth_path, run, *names = sys.argv[1:]
    truth = [json.loads(line) for line in Path(truth_path).read_text().splitlines()]
    failed = False
    for name in names:
        rows = [row for row in truth if row["caller"] == name]
        family = families.FAMILIES[name]
        if len(rows) != len(family.steps):
            differences = [f"the stub saw {len(rows)} calls where the story has {len(family.steps)}"]
        else:
            differences = await_session(base_url, f"live-{run}-{name}", rows, family, f"user-{run}")
        for difference in differences:
            print(f"live: {name}: {difference}", file=sys.stderr)
        failed = failed or bool(differences)
        if not differences:
            print(f"live: {name}: {len(rows)} calls, every token as the stub counted it")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
