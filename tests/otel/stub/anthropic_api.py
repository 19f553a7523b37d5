"""The Anthropic Messages API as far as the story needs it: plain, streamed, with a tool, with a cache, and refusals."""

import json

import story
from story import Reply


def messages(request, number, unique):
    refused = refusal(request, unique)
    if refused:
        return refused
    response_id = f"msg_{unique}"
    usage = story.anthropic_usage(number)
    tool_calls = []
    if request.get("tools") and not any(has_tool_result(message) for message in request["messages"]):
        tool_calls = [{"id": f"toolu_{unique}", "name": story.TOOL_NAME, "arguments": story.TOOL_ARGUMENTS}]
    stop_reason = "tool_use" if tool_calls else "end_turn"
    truth = story.truth(
        "anthropic.messages",
        request,
        response_id=response_id,
        usage=usage,
        finish_reason=stop_reason,
        tool_calls=tool_calls,
    )
    if tool_calls:
        content = [
            {"type": "tool_use", "id": call["id"], "name": call["name"], "input": call["arguments"]} for call in tool_calls
        ]
    else:
        content = [{"type": "text", "text": story.STREAMED_TEXT if request.get("stream") else story.FINAL_TEXT}]
    body = {
        "id": response_id,
        "type": "message",
        "role": "assistant",
        "model": story.answered_model(request["model"]),
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": messages_usage(usage),
    }
    if request.get("stream"):
        return Reply(truth, chunks=message_chunks(body), headers=headers(unique))
    return Reply(truth, body=body, headers=headers(unique))


def has_tool_result(message):
    content = message["content"]
    return isinstance(content, list) and any(block.get("type") == "tool_result" for block in content)


def messages_usage(usage):
    return {
        "input_tokens": usage.input_total - usage.cache_read - usage.cache_write,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {"ephemeral_5m_input_tokens": usage.cache_write, "ephemeral_1h_input_tokens": 0},
        "output_tokens": usage.output_total,
        "service_tier": "standard",
    }


def message_chunks(body):
    # As the real stream does: the first count of output tokens is not the last.
    begun = {**body, "content": [], "stop_reason": None, "usage": {**body["usage"], "output_tokens": 1}}
    events = [("message_start", {"message": begun}), ("ping", {})]
    for index, block in enumerate(body["content"]):
        if block["type"] == "tool_use":
            empty = {**block, "input": {}}
            arguments = json.dumps(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in (arguments[:6], arguments[6:])]
        else:
            empty = {**block, "text": ""}
            deltas = [{"type": "text_delta", "text": word} for word in story.words(block["text"])]
        events.append(("content_block_start", {"index": index, "content_block": empty}))
        events += [("content_block_delta", {"index": index, "delta": delta}) for delta in deltas]
        events.append(("content_block_stop", {"index": index}))
    ended = {"stop_reason": body["stop_reason"], "stop_sequence": None}
    events.append(("message_delta", {"delta": ended, "usage": {"output_tokens": body["usage"]["output_tokens"]}}))
    events.append(("message_stop", {}))
    return [f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n" for name, data in events]


def refusal(request, unique):
    if request["model"] in story.BAD_REQUEST_MODELS:
        status, kind, message = 400, "invalid_request_error", f"The model {request['model']} cannot be used."
    elif request["model"] in story.RATE_LIMITED_MODELS:
        status, kind, message = 429, "rate_limit_error", "Too many requests."
    else:
        return None
    truth = story.truth(
        "anthropic.messages", request, response_id=None, usage=story.Usage(0, 0), finish_reason=None, status=status
    )
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": f"req_{unique}"}
    return Reply(truth, status=status, body=body, headers=headers(unique))


def headers(unique):
    return {"request-id": f"req_{unique}"}
