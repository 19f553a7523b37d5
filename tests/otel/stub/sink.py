#!/usr/bin/env python3
"""An OTLP/HTTP receiver that keeps what it is sent and says yes.

Each request becomes NNN.body (as it came, still compressed) and one line in requests.jsonl: path, content type, content
encoding, user agent, and of the authorization its scheme only, never the secret.

    sink.py --port 18081 --directory DIRECTORY
"""

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args):
        pass

    def do_GET(self):
        self._answer(200, "text/plain", b"ok")

    def do_POST(self):
        body = self._read_body()
        content_type = self.headers.get("content-type", "")
        with self.server.lock:
            self.server.count += 1
            number = self.server.count
            directory = self.server.directory
            (directory / f"{number:03d}.body").write_bytes(body)
            row = {
                "number": number,
                "path": self.path,
                "content_type": content_type,
                "content_encoding": self.headers.get("content-encoding"),
                "user_agent": self.headers.get("user-agent"),
                "authorization_scheme": (self.headers.get("authorization") or "").partition(" ")[0] or None,
                "other_headers": sorted(
                    name.lower() for name in self.headers if name.lower().startswith(("x-", "langsmith-"))
                ),
            }
            with open(directory / "requests.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        is_json = content_type.startswith("application/json")
        # An empty Export*ServiceResponse is zero bytes in protobuf and an empty object in JSON.
        self._answer(200, content_type, b"{}" if is_json else b"")

    def _read_body(self):
        if "content-length" in self.headers:
            return self.rfile.read(int(self.headers["content-length"]))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status, content_type, body):
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    server.directory = arguments.directory
    server.lock = threading.Lock()
    server.count = 0
    server.serve_forever()


if __name__ == "__main__":
    main()
