"""An OpenAI-compatible embedding endpoint that does as it is told."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class EmbeddingEndpoint:
    """`dimension`, `status`, `delay` and `answer` may be changed at any time."""

    def __init__(self, dimension: int = 2003) -> None:
        self.dimension = dimension
        self.status = 200
        self.delay = 0.0
        self.answer: Any = None
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.asked.append({"path": self.path, **body})
                endpoint.keys.append(self.headers.get("Authorization"))
                time.sleep(endpoint.delay)
                answer = endpoint.answer
                if answer is None:
                    vectors = [endpoint.vector(text) for text in body["input"]]
                    # In any order: the index says whose it is.
                    data = [{"index": n, "embedding": v} for n, v in enumerate(vectors)]
                    answer = {"data": data[::-1]}
                content = json.dumps(answer).encode()
                self.send_response(endpoint.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def vector(self, text: str) -> list[float]:
        """Words as places: texts that share words are near."""
        numbers = [0.01] * self.dimension
        for word in text.lower().replace("?", "").split():
            numbers[
                int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % self.dimension
            ] += 1
        return numbers

    def close(self) -> None:
        """Be gone: connections are refused."""
        self._server.shutdown()
        self._server.server_close()
