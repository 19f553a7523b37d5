"""Bedrock's Converse API as far as the story needs it: plain, streamed, with a tool, with a cache, and refusals."""

import json
import struct
import urllib.parse
import zlib

import story
from story import Reply


def converse(path, request, number, unique):
    _, _, rest = path.partition("/model/")
    name, _, action = rest.rpartition("/")
    model = urllib.parse.unquote(name)
    request = {**request, "model": model, "stream": action == "converse-stream"}
    refused = refusal(request, unique)
    if refused:
        return refused
    usage = story.anthropic_usage(number)
    tool_calls = []
    if request.get("toolConfig") and not any(has_tool_result(message) for message in request["messages"]):
        tool_calls = [{"id": f"tooluse_{unique}", "name": story.TOOL_NAME, "arguments": story.TOOL_ARGUMENTS}]
    stop_reason = "tool_use" if tool_calls else "end_turn"
    # Converse neither names the answer nor the model that gave it.
    truth = story.truth(
        "bedrock.converse", request, response_id=None, usage=usage, finish_reason=stop_reason, tool_calls=tool_calls
    )
    truth["response_model"] = None
    if request["stream"]:
        return Reply(truth, chunks=events(stop_reason, usage), headers={**headers(unique), "content-type": EVENT_STREAM})
    if tool_calls:
        content = [
            {"toolUse": {"toolUseId": call["id"], "name": call["name"], "input": call["arguments"]}} for call in tool_calls
        ]
    else:
        content = [{"text": story.FINAL_TEXT}]
    body = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": stop_reason,
        "usage": converse_usage(usage),
        "metrics": {"latencyMs": 40},
    }
    return Reply(truth, body=body, headers=headers(unique))


EVENT_STREAM = "application/vnd.amazon.eventstream"


def has_tool_result(message):
    return any("toolResult" in block for block in message["content"])


def converse_usage(usage):
    """The kinds of input are counted apart here, and the total contains all of them."""
    return {
        "inputTokens": usage.input_total - usage.cache_read - usage.cache_write,
        "outputTokens": usage.output_total,
        "totalTokens": usage.input_total + usage.output_total,
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_write,
    }


def events(stop_reason, usage):
    said = [("messageStart", {"role": "assistant"})]
    for word in story.words(story.STREAMED_TEXT):
        said.append(("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}}))
    said.append(("contentBlockStop", {"contentBlockIndex": 0}))
    said.append(("messageStop", {"stopReason": stop_reason}))
    said.append(("metadata", {"usage": converse_usage(usage), "metrics": {"latencyMs": 40}}))
    return [frame(name, data) for name, data in said]


def frame(name, data):
    """One message of AWS' binary event stream."""
    payload = json.dumps(data).encode()
    encoded = b""
    for key, value in ((":event-type", name), (":content-type", "application/json"), (":message-type", "event")):
        encoded += bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    prelude = struct.pack(">II", 16 + len(encoded) + len(payload), len(encoded))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + encoded + payload
    return message + struct.pack(">I", zlib.crc32(message))


def refusal(request, unique):
    if request["model"] not in story.BAD_REQUEST_MODELS:
        return None
    truth = story.truth(
        "bedrock.converse", request, response_id=None, usage=story.Usage(0, 0), finish_reason=None, status=400
    )
    body = {"message": f"The model {request['model']} cannot be used."}
    return Reply(truth, status=400, body=body, headers={**headers(unique), "x-amzn-errortype": "ValidationException"})


def headers(unique):
    return {"x-amzn-requestid": f"req_{unique}"}
