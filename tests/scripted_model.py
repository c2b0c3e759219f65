"""An OpenAI-compatible chat server that plays a list of replies, one a request, and keeps what it was asked."""

import json
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = dict[str, Any]


def call(tool: str, **arguments: Any) -> Reply:
    """A reply that calls one tool."""
    return {"tool": tool, "arguments": {"security_risk": "LOW", **arguments}}


def finish() -> Reply:
    return {"tool": "finish", "arguments": {"message": "done"}}


def say(text: str) -> Reply:
    """A reply without a tool call."""
    return {"text": text}


class ScriptedModel:
    """Serves `replies`, then the last one for ever. A `status` other than 200 refuses; `delay_s` precedes answers."""

    def __init__(self, replies: Sequence[Reply], *, status: int = 200, delay_s: float = 0) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._replies, self._status, self._delay_s = list(replies), status, delay_s
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                model.headers.append(dict(self.headers))
                payload = json.dumps(model._answer(body)).encode()
                time.sleep(model._delay_s)
                try:
                    self.send_response(model._status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(payload)))
                    self.end_headers()
                    self.wfile.write(payload)
                except OSError:
                    pass  # the client did not wait

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "ScriptedModel":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        number = len(self.requests)
        self.requests.append(body)
        if self._status != 200:
            return {"error": {"message": "refused", "type": "invalid_request_error", "code": self._status}}
        reply = self._replies[min(number, len(self._replies) - 1)]
        message: dict[str, Any] = {"role": "assistant", "content": reply.get("text", "")}
        if "tool" in reply:
            function = {"name": reply["tool"], "arguments": json.dumps(reply["arguments"])}
            message["tool_calls"] = [{"id": f"call_{number}", "type": "function", "function": function}]
        return {
            "id": f"reply-{number}", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }  # fmt: skip
