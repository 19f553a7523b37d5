#!/usr/bin/env python3
"""A stub of the OpenAI, Anthropic and Bedrock APIs that knows what it charged.

It answers like the real services do, in one fixed story (a tool call on the first turn, an answer on the second, a streamed
answer, an embedding, a refusal), and writes for each call the usage that is true to a JSON-lines file. That file is the
oracle: whatever a client library reports about the call is compared with it.

It uses nothing but the standard library and nothing of AgentLens, so that it cannot share a mistake with what it judges.

    server.py --port 18080 --log truth.jsonl

What stands before `/v1/` or `/model/` in the path is logged as `caller`, so one stub can serve several drivers and keep them apart:
`http://127.0.0.1:18080/langfuse/v1/chat/completions` is a call of `langfuse`.
"""

import argparse
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic_api
import bedrock_api
import openai_api

# Between two chunks of a stream, so that a time to first token differs from zero and from the whole duration.
CHUNK_DELAY_S = 0.005
FIRST_CHUNK_DELAY_S = 0.03

ROUTES = {
    "/v1/chat/completions": openai_api.chat,
    "/v1/responses": openai_api.responses,
    "/v1/embeddings": openai_api.embeddings,
    "/v1/messages": anthropic_api.messages,
}


class TruthLog:
    """Appends one line for each call, and numbers the calls."""

    def __init__(self, path):
        self._file = open(path, "a", encoding="utf-8")
        self._lock = threading.Lock()
        self._count = 0
        # Ids are unique across runs too: a server that merges calls by response id must never merge two runs.
        self._run = secrets.token_hex(6)

    def next_call(self):
        with self._lock:
            self._count += 1
            return self._count, f"{self._run}{self._count:04d}"

    def write(self, row):
        with self._lock:
            self._file.write(json.dumps(row, sort_keys=True) + "\n")
            self._file.flush()


def route(path):
    """Who calls, and what answers it."""
    path = path.split("?")[0]
    if "/model/" in path:
        caller = path.partition("/model/")[0]
        return caller, lambda *call: bedrock_api.converse(path, *call)
    caller, found, rest = path.partition("/v1/")
    return caller, ROUTES.get(found + rest)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args):
        pass

    def do_GET(self):
        if self.path == "/health":
            self._send_json(200, {"status": "ok"}, {})
        else:
            self._send_json(404, {"error": {"message": f"no such path: {self.path}"}}, {})

    def do_POST(self):
        request_bytes = self.rfile.read(int(self.headers.get("content-length", 0)))
        caller, answer = route(self.path)
        if answer is None:
            # Said loudly: a client that calls something else is a call missing from the oracle.
            print(f"stub: no such path: {self.path}", flush=True)
            self._send_json(404, {"error": {"message": f"no such path: {self.path}"}}, {})
            return
        number, unique = self.server.truth.next_call()
        reply = answer(json.loads(request_bytes), number, unique)
        # Before the answer: a driver that has its answer finds the line in the log.
        self.server.truth.write({"caller": caller.strip("/"), "number": number, **reply.truth})
        if reply.chunks is None:
            self._send_json(reply.status, reply.body, reply.headers)
        else:
            self._send_stream(reply.chunks, reply.headers)

    def _send_json(self, status, body, headers):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _send_stream(self, chunks, headers):
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        for name, value in {"content-type": "text/event-stream", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        time.sleep(FIRST_CHUNK_DELAY_S)
        for chunk in chunks:
            data = chunk if isinstance(chunk, bytes) else chunk.encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
            time.sleep(CHUNK_DELAY_S)
        self.wfile.write(b"0\r\n\r\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", required=True)
    arguments = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    server.truth = TruthLog(arguments.log)
    server.serve_forever()


if __name__ == "__main__":
    main()
