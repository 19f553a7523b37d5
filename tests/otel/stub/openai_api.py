"""The OpenAI API as far as the story needs it: chat completions, responses, embeddings, and refusals."""

import base64
import json
import struct

import story
from story import Reply


def chat(request, number, unique):
    refused = refusal("openai.chat", request, unique)
    if refused:
        return refused
    response_id = f"chatcmpl-{unique}"
    usage = story.openai_usage(number)
    tool_calls = []
    if request.get("tools") and not any(message["role"] == "tool" for message in request["messages"]):
        tool_calls = [tool_call(f"call_{unique}")]
    finish_reason = "tool_calls" if tool_calls else "stop"
    truth = story.truth(
        "openai.chat", request, response_id=response_id, usage=usage, finish_reason=finish_reason, tool_calls=tool_calls
    )
    head = {
        "id": response_id,
        "created": story.CREATED_S,
        "model": story.answered_model(request["model"]),
        "service_tier": "default",
        "system_fingerprint": "fp_stub",
    }
    if request.get("stream"):
        return Reply(truth, chunks=chat_chunks(request, head, tool_calls, finish_reason, usage), headers=headers(unique))
    message = {"role": "assistant", "content": None if tool_calls else story.FINAL_TEXT, "refusal": None, "annotations": []}
    if tool_calls:
        message["tool_calls"] = [chat_tool_call(call) for call in tool_calls]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    body = {**head, "object": "chat.completion", "choices": [choice], "usage": chat_usage(usage)}
    return Reply(truth, body=body, headers=headers(unique))


def chat_chunks(request, head, tool_calls, finish_reason, usage):
    deltas = [{"role": "assistant", "content": None if tool_calls else "", "refusal": None}]
    for index, call in enumerate(tool_calls):
        begun = {**chat_tool_call(call), "index": index}
        arguments = begun["function"]["arguments"]
        begun["function"] = {"name": call["name"], "arguments": ""}
        deltas.append({"tool_calls": [begun]})
        for part in (arguments[:6], arguments[6:]):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    if not tool_calls:
        deltas += [{"content": word} for word in story.words(story.STREAMED_TEXT)]
    with_usage = (request.get("stream_options") or {}).get("include_usage")
    head = {**head, "object": "chat.completion.chunk", **({"usage": None} if with_usage else {})}
    chunks = [{**head, "choices": [choice_delta(delta, None)]} for delta in deltas]
    chunks.append({**head, "choices": [choice_delta({}, finish_reason)]})
    if with_usage:
        chunks.append({**head, "choices": [], "usage": chat_usage(usage)})
    return [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]


def choice_delta(delta, finish_reason):
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def tool_call(call_id):
    return {"id": call_id, "name": story.TOOL_NAME, "arguments": story.TOOL_ARGUMENTS}


def chat_tool_call(call):
    return {
        "id": call["id"],
        "type": "function",
        "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
    }


def chat_usage(usage):
    return {
        "prompt_tokens": usage.input_total,
        "completion_tokens": usage.output_total,
        "total_tokens": usage.input_total + usage.output_total,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def responses(request, number, unique):
    refused = refusal("openai.responses", request, unique)
    if refused:
        return refused
    response_id = f"resp_{unique}"
    usage = story.openai_usage(number)
    items = request["input"] if isinstance(request.get("input"), list) else []
    tool_calls = []
    if request.get("tools") and not any(item.get("type") == "function_call_output" for item in items):
        tool_calls = [tool_call(f"call_{unique}")]
    truth = story.truth(
        "openai.responses",
        request,
        response_id=response_id,
        usage=usage,
        finish_reason="tool_calls" if tool_calls else "stop",
        tool_calls=tool_calls,
    )
    if tool_calls:
        output = [responses_tool_call(call, unique) for call in tool_calls]
    else:
        output = [responses_message(story.STREAMED_TEXT if request.get("stream") else story.FINAL_TEXT, unique)]
    body = responses_body(request, response_id, output, usage)
    if request.get("stream"):
        return Reply(truth, chunks=responses_chunks(body), headers=headers(unique))
    return Reply(truth, body=body, headers=headers(unique))


def responses_body(request, response_id, output, usage):
    return {
        "id": response_id,
        "object": "response",
        "created_at": story.CREATED_S,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": request.get("instructions"),
        "max_output_tokens": request.get("max_output_tokens"),
        "metadata": {},
        "model": story.answered_model(request["model"]),
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": "low", "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": request.get("tool_choice") or "auto",
        "tools": request.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": usage.input_total,
            "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
            "output_tokens": usage.output_total,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.input_total + usage.output_total,
        },
        "user": None,
    }


def responses_tool_call(call, unique):
    return {
        "id": f"fc_{unique}",
        "type": "function_call",
        "status": "completed",
        "call_id": call["id"],
        "name": call["name"],
        "arguments": json.dumps(call["arguments"]),
    }


def responses_message(text, unique):
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": f"msg_{unique}", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def responses_chunks(body):
    begun = {**body, "status": "in_progress", "output": [], "usage": None}
    events = [("response.created", {"response": begun}), ("response.in_progress", {"response": begun})]
    for index, item in enumerate(body["output"]):
        events += responses_item_events(index, item)
    events.append(("response.completed", {"response": body}))
    return [
        f"event: {name}\ndata: {json.dumps({'type': name, 'sequence_number': number, **data})}\n\n"
        for number, (name, data) in enumerate(events)
    ]


def responses_item_events(index, item):
    at = {"output_index": index, "item_id": item["id"]}
    if item["type"] == "function_call":
        begun = {**item, "status": "in_progress", "arguments": ""}
        middle = [
            ("response.function_call_arguments.delta", {**at, "delta": item["arguments"]}),
            ("response.function_call_arguments.done", {**at, "arguments": item["arguments"], "name": item["name"]}),
        ]
    else:
        begun = {**item, "status": "in_progress", "content": []}
        part = item["content"][0]
        at = {**at, "content_index": 0}
        middle = [("response.content_part.added", {**at, "part": {**part, "text": ""}})]
        middle += [
            ("response.output_text.delta", {**at, "delta": word, "logprobs": []}) for word in story.words(part["text"])
        ]
        middle.append(("response.output_text.done", {**at, "text": part["text"], "logprobs": []}))
        middle.append(("response.content_part.done", {**at, "part": part}))
    return [
        ("response.output_item.added", {"output_index": index, "item": begun}),
        *middle,
        ("response.output_item.done", {"output_index": index, "item": item}),
    ]


def embeddings(request, number, unique):
    refused = refusal("openai.embeddings", request, unique)
    if refused:
        return refused
    usage = story.embedding_usage(number)
    texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
    # The real service sends no id with an embedding, so there is none to find on the wire either.
    truth = story.truth("openai.embeddings", request, response_id=None, usage=usage, finish_reason=None)
    vector = [0.25, -0.5, 0.75, 1.0]
    if request.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<4f", *vector)).decode()
    body = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index, _ in enumerate(texts)],
        "model": story.answered_model(request["model"]),
        "usage": {"prompt_tokens": usage.input_total, "total_tokens": usage.input_total},
    }
    return Reply(truth, body=body, headers=headers(unique))


def refusal(api, request, unique):
    if request["model"] in story.BAD_REQUEST_MODELS:
        status, kind, message = 400, "invalid_request_error", f"The model {request['model']} cannot be used."
    elif request["model"] in story.RATE_LIMITED_MODELS:
        status, kind, message = 429, "rate_limit_exceeded", "Too many requests."
    else:
        return None
    truth = story.truth(api, request, response_id=None, usage=story.Usage(0, 0), finish_reason=None, status=status)
    body = {"error": {"message": message, "type": kind, "param": "model", "code": kind}}
    return Reply(truth, status=status, body=body, headers=headers(unique))


def headers(unique):
    return {"x-request-id": f"req_{unique}", "openai-processing-ms": "12"}
