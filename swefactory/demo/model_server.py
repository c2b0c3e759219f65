"""A scripted model behind OpenAI's chat completions API: for the demo, not for benchmarks.

Stateless: what it says next depends on how many assistant messages the conversation holds and which issue it is about.
It solves "negative spans" (#1), makes a plausible mistake on "60 minutes" (#6), and gives up on anything else.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from swefactory.demo.loopback import QuietHandler, serving

MODEL = "scripted"
_CHARACTERS_PER_TOKEN = 4

Call = tuple[str, str, Mapping[str, Any]]  # what it says, the tool, the tool's arguments
Script = Callable[[Sequence[Mapping[str, Any]]], Call]  # what comes next after these messages

_FORMATTING = "/testbed/src/lapse/formatting.py"

_TRY = "python -c 'from datetime import timedelta as t; import lapse; print(lapse.clock(t(minutes=-90)))'"

_SOLVES: Sequence[Call] = (
    ("Let me see what there is.", "terminal", {"command": "git status --short; ls; cat src/lapse/formatting.py"}),
    (
        "Let me see it fail first.",
        "terminal",
        {"command": _TRY},
    ),
    (
        "divmod rounds down, so the sign has to come off first, as iso() does it.",
        "file_editor",
        {
            "command": "str_replace",
            "path": _FORMATTING,
            "old_str": "    seconds = int(span.total_seconds())\n    hours, seconds = divmod(seconds, 3600)",
            "new_str": '    sign = "-" if span.total_seconds() < 0 else ""\n'
            "    hours, seconds = divmod(int(abs(span).total_seconds()), 3600)",
        },
    ),
    (
        "Now the sign goes in front.",
        "file_editor",
        {
            "command": "str_replace",
            "path": _FORMATTING,
            "old_str": 'return f"{hours}:{minutes:02}:{seconds:02}"',
            "new_str": 'return f"{sign}{hours}:{minutes:02}:{seconds:02}"',
        },
    ),
    (
        "Check it, and the tests that are here.",
        "terminal",
        {"command": f"{_TRY} && python -m pytest -q"},
    ),
    ("", "finish", {"message": "clock() now takes the sign off first and puts it back in front."}),
)

_FAILS: Sequence[Call] = (
    ("Let me look at the function.", "terminal", {"command": "cat src/lapse/formatting.py"}),
    (
        "Rounding gives the sixty. Without rounding it cannot.",
        "file_editor",
        {
            "command": "str_replace",
            "path": _FORMATTING,
            "old_str": "count = round(rest / size) if last and rest >= size / 2 else int(rest // size)",
            "new_str": "count = int(rest // size)",
        },
    ),
    ("Are the tests still green?", "terminal", {"command": "python -m pytest -q"}),
    ("", "finish", {"message": "humanize() no longer rounds up, so it cannot say 60 minutes."}),
)

_GIVES_UP: Sequence[Call] = (("", "finish", {"message": "This script knows nothing about that issue."}),)

_SCRIPTS: Sequence[tuple[str, Sequence[Call]]] = (
    ("clock() of a negative span is wrong", _SOLVES),
    ('says "1 hour, 60 minutes"', _FAILS),
)


def reply(messages: Sequence[Mapping[str, Any]]) -> Call:
    """What the script says next in a conversation."""
    text = json.dumps(messages, ensure_ascii=False).replace('\\"', '"')
    scripts = [script for issue, script in _SCRIPTS if issue in text]
    script = scripts[0] if scripts else _GIVES_UP
    n_said = sum(message.get("role") == "assistant" for message in messages)
    call: Call = script[min(n_said, len(script) - 1)]
    return call


@contextmanager
def model_server(
    *, api_key: str = "", status: int = 200, address: tuple[str, int] = ("127.0.0.1", 0), script: Script = reply
) -> Iterator[str]:
    """Serves while the context is open; gives the base URL. A `status` other than 200 refuses every request; `script`
    says what comes next in a conversation, and is asked from several threads at once."""

    class Handler(_Handler):
        wanted_key = api_key
        refusal = status
        next_call = staticmethod(script)

    with serving(Handler, address) as url:
        yield f"{url}/v1"


class _Handler(QuietHandler):
    wanted_key: str
    refusal: int
    next_call: Script

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.refusal != 200:
            self._send(self.refusal, {"error": {"message": "refused, as this server was told to", "type": "refusal"}})
        elif self.wanted_key and self.headers.get("Authorization") != f"Bearer {self.wanted_key}":
            self._send(401, {"error": {"message": "wrong API key", "type": "authentication_error"}})
        else:
            messages = json.loads(body)["messages"]
            self._send(200, _completion(self.next_call(messages), messages, len(body)))

    def _send(self, status: int, found: Mapping[str, Any]) -> None:
        content = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _completion(next_call: Call, messages: Sequence[Mapping[str, Any]], n_bytes: int) -> dict[str, Any]:
    said, tool, arguments = next_call
    number = sum(message.get("role") == "assistant" for message in messages)
    call = {"name": tool, "arguments": json.dumps({**arguments, "security_risk": "LOW"})}
    message = {
        "role": "assistant",
        "content": said,
        "tool_calls": [{"id": f"call_{number}", "type": "function", "function": call}],
    }
    n_prompt, n_said = n_bytes // _CHARACTERS_PER_TOKEN, len(json.dumps(message)) // _CHARACTERS_PER_TOKEN
    usage = {"prompt_tokens": n_prompt, "completion_tokens": n_said, "total_tokens": n_prompt + n_said}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
    return {
        "id": f"chatcmpl-{number}", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice],
        "usage": usage,
    }  # fmt: skip
