"""A stand-in for the model providers: one local HTTP server that speaks enough of each one's protocol.

The real provider libraries talk to it, so what the SDK's instrumentation captures is what it captures in the field.
`requests` holds what came in: instrumentation must not change what a program sends.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


TOOL_ARGUMENTS = '{"city": "Zürich", "days": 3}'

OPENAI_CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "gpt-4o-2024-08-06",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Grüezi 👋"}}],
    "usage": {"prompt_tokens": 21, "completion_tokens": 8, "total_tokens": 29},
}

OPENAI_TOOL_CALL = OPENAI_CHAT | {
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": TOOL_ARGUMENTS},
                    }
                ],
            },
        }
    ],
}

OPENAI_STREAM = [
    {
        "id": "chatcmpl-2",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": part}, "finish_reason": None}],
    }
    for part in ("Hello", " there")
]

ANTHROPIC_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-20250514",
    "content": [
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "toolu_1", "name": "search", "input": {"query": "rust", "limit": 5}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 34, "output_tokens": 13},
}

OLLAMA_CHAT = {
    "model": "llama3.2",
    "created_at": "2026-11-22T10:00:00Z",
    "message": {"role": "assistant", "content": "Hi from a llama"},
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 11,
    "eval_count": 6,
}

BEDROCK_INVOKE = {
    "content": [{"type": "text", "text": "Hi from Bedrock"}],
    "usage": {"input_tokens": 17, "output_tokens": 5},
}

BEDROCK_CONVERSE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Conversed"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 19, "outputTokens": 3, "totalTokens": 22},
    "metrics": {"latencyMs": 40},
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(Request(path, {k.lower(): v for k, v in self.headers.items()}, body))
        if path.endswith("/chat/completions"):
            self._answer_openai(body)
        elif path == "/v1/messages":
            self._answer(ANTHROPIC_MESSAGE)
        elif path == "/api/chat":
            self._answer(OLLAMA_CHAT)
        elif path.endswith("/invoke"):
            self._answer(BEDROCK_INVOKE)
        elif path.endswith("/converse"):
            self._answer(BEDROCK_CONVERSE)
        else:
            self._answer({"error": f"nothing at {path}"}, status=404)

    def _answer_openai(self, body: dict[str, Any]) -> None:
        if body.get("stream"):
            events = [f"data: {json.dumps(chunk)}\n\n" for chunk in OPENAI_STREAM]
            self._write("".join([*events, "data: [DONE]\n\n"]).encode(), "text/event-stream", 200)
        else:
            self._answer(OPENAI_TOOL_CALL if body.get("tools") else OPENAI_CHAT)

    def _answer(self, value: object, status: int = 200) -> None:
        self._write(json.dumps(value).encode(), "application/json", status)

    def _write(self, content: bytes, content_type: str, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet: the tests say what is wrong."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    requests: list[Request]


class Providers:
    def __enter__(self) -> Providers:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.requests = []
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def requests(self) -> list[Request]:
        return self._server.requests
