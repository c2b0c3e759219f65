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


def fault(kind: str, **facts: Any) -> Reply:
    """A reply that goes wrong:

    status        an HTTP error: status=…, headers={…}, code=… of its JSON
    raw           body=… as it is, with status 200
    truncated     the connection ends in the middle of the answer
    arguments     a tool call whose arguments are text=…
    slow          the answer dribbles out, a byte each every_s=…
    refusal       the model declines, as OpenAI's API says it
    """
    return {"fault": kind, **facts}


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
                reply = model._next(body)
                status, payload = model._answer(reply, body)
                time.sleep(model._delay_s)
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(payload)))
                    for name, value in reply.get("headers", {}).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self._send(reply, payload)
                except OSError:
                    pass  # the client did not wait

            def _send(self, reply: Reply, payload: bytes) -> None:
                if reply.get("fault") == "truncated":
                    self.wfile.write(payload[: len(payload) // 2])
                    self.close_connection = True
                elif reply.get("fault") == "slow":
                    for byte in payload:
                        self.wfile.write(bytes((byte,)))
                        time.sleep(reply["every_s"])
                else:
                    self.wfile.write(payload)

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

    def _next(self, body: dict[str, Any]) -> Reply:
        number = len(self.requests)
        self.requests.append(body)
        return {"number": number, **self._replies[min(number, len(self._replies) - 1)]}

    def _answer(self, reply: Reply, body: dict[str, Any]) -> tuple[int, bytes]:
        kind = reply.get("fault")
        status = self._status if self._status != 200 else int(reply.get("status", 200))
        if status != 200:
            kind = "invalid_request_error" if status < 500 else "server_error"
            error = {"message": reply.get("message", "refused"), "type": kind}
            return status, json.dumps({"error": error | {"code": reply.get("code", status)}}).encode()
        if kind == "raw":
            return 200, str(reply["body"]).encode()
        return 200, json.dumps(self._completion(reply, body)).encode()

    def _completion(self, reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
        number, ends = reply["number"], "stop"
        message: dict[str, Any] = {"role": "assistant", "content": reply.get("text", "")}
        if "tool" in reply:
            function = {"name": reply["tool"], "arguments": json.dumps(reply["arguments"])}
            message["tool_calls"] = [{"id": f"call_{number}", "type": "function", "function": function}]
        if reply.get("fault") == "arguments":
            function = {"name": "terminal", "arguments": reply["text"]}
            message["tool_calls"] = [{"id": f"call_{number}", "type": "function", "function": function}]
        if reply.get("fault") == "refusal":
            message |= {"content": None, "refusal": "I cannot help with that."}
            ends = "content_filter"
        return {
            "id": f"reply-{number}", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": ends}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110,
                      "prompt_tokens_details": {"cached_tokens": 40},
                      "completion_tokens_details": {"reasoning_tokens": 3}},
        }  # fmt: skip
