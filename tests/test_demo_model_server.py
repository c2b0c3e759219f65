"""The scripted model: it solves one task instance, fails another with a plausible mistake, and gives up on the rest.

Its edits are made in the real sample and its tests are run, so the script and the sample cannot drift apart.
"""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from swefactory.checkouts import run_git
from swefactory.demo.history import DemoHistory, DemoPullRequest, build_history
from swefactory.demo.model_server import MODEL, model_server

KEY = "right-key"
SOLVED, FAILED, UNKNOWN = 2, 7, 10  # pull requests, as the demo's command has them
MAX_TURNS = 30

type Json = dict[str, Any]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with model_server(api_key=KEY) as address:
        yield address


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> DemoHistory:
    return build_history(tmp_path_factory.mktemp("history"))


def post(url: str, messages: Sequence[Mapping[str, Any]], key: str = KEY) -> tuple[int, Json]:
    body = json.dumps({"model": MODEL, "messages": messages}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/chat/completions", body, headers), timeout=10) as ok:
            return ok.status, json.loads(ok.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def pull_request(history: DemoHistory, number: int) -> DemoPullRequest:
    return next(p for p in history.pull_requests if p.number == number)


def problem(history: DemoHistory, number: int) -> str:
    """The issue as a task instance states it: SWE-bench's title, then body."""
    issue = pull_request(history, number).issue
    assert issue is not None
    return f"{issue.title}\n{issue.body}"


def conversation(url: str, statement: str) -> list[tuple[str, Json]]:
    """Every call the model makes, the tool and its arguments, until it finishes."""
    messages: list[Json] = [{"role": "system", "content": "Solve it."}, {"role": "user", "content": statement}]
    calls: list[tuple[str, Json]] = []
    while len(calls) < MAX_TURNS:
        status, answered = post(url, messages)
        assert status == 200
        message = answered["choices"][0]["message"]
        (call,) = message["tool_calls"]
        calls.append((call["function"]["name"], json.loads(call["function"]["arguments"])))
        if calls[-1][0] == "finish":
            return calls
        messages += [message, {"role": "tool", "tool_call_id": call["id"], "content": "ok"}]
    raise AssertionError(f"no finish within {MAX_TURNS} turns")


def edited(history: DemoHistory, number: int, calls: Sequence[tuple[str, Json]], folder: Path) -> Path:
    """The base commit's files with the model's edits, made as OpenHands' file editor makes them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    archive = run_git(history.bare, "archive", "--format=tar", pull_request(history, number).base_commit)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True, timeout=60)
    for tool, arguments in calls:
        if tool == "file_editor":
            assert arguments["command"] == "str_replace"
            path = folder / Path(arguments["path"]).relative_to("/testbed")
            before = path.read_text()
            assert before.count(arguments["old_str"]) == 1  # the editor refuses anything else
            path.write_text(before.replace(arguments["old_str"], arguments["new_str"]))
    return folder


def formatting_tests_pass(history: DemoHistory, number: int, tree: Path) -> bool:
    """The tests of the merged fix, on the model's tree. lapse.formatting needs nothing of the registry, so neither
    does this: its package's __init__ would import marshmallow, and is left out."""
    test = run_git(history.bare, "show", f"{pull_request(history, number).head_commit}:tests/test_formatting.py")
    (tree / "tests" / "test_formatting.py").write_bytes(test)
    (tree / "src" / "lapse" / "__init__.py").write_text("from lapse.formatting import clock, humanize, iso\n")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_formatting.py"]
    ran = subprocess.run(
        command, cwd=tree, env={**environ, "PYTHONPATH": "src"}, capture_output=True, timeout=60, check=False
    )
    assert ran.returncode in (0, 1), ran.stdout
    return ran.returncode == 0


@pytest.mark.parametrize(("number", "resolves"), [(SOLVED, True), (FAILED, False)])
def test_it_solves_one_instance_and_fails_another(
    url: str, history: DemoHistory, tmp_path: Path, number: int, *, resolves: bool
) -> None:
    calls = conversation(url, problem(history, number))
    unchanged = edited(history, number, (), tmp_path / "tree")
    assert not formatting_tests_pass(history, number, unchanged)
    assert formatting_tests_pass(history, number, edited(history, number, calls, tmp_path / "tree")) is resolves
    assert any(tool == "file_editor" for tool, _ in calls)  # it tries, in both cases


def test_it_looks_around_before_it_edits(url: str, history: DemoHistory) -> None:
    tools = [tool for tool, _ in conversation(url, problem(history, SOLVED))]
    assert tools[0] == "terminal"
    assert tools.index("terminal") < tools.index("file_editor") < tools.index("finish")
    assert {*tools} <= {"terminal", "file_editor", "finish"}


def test_it_gives_up_on_every_other_instance_and_says_so(url: str, history: DemoHistory) -> None:
    ((tool, arguments),) = conversation(url, problem(history, UNKNOWN))
    assert tool == "finish"
    assert "knows nothing" in arguments["message"]


def test_the_same_conversation_gets_the_same_answer(url: str, history: DemoHistory) -> None:
    """It keeps no state, so any number of rollouts can share it."""
    messages = [{"role": "user", "content": problem(history, SOLVED)}]
    other = [{"role": "user", "content": problem(history, FAILED)}]
    first, _, again = post(url, messages), post(url, other), post(url, messages)
    assert first == again


def test_a_conversation_that_goes_on_after_the_end_is_finished_again(url: str, history: DemoHistory) -> None:
    said = [{"role": "assistant", "content": "…"}] * MAX_TURNS
    _, answered = post(url, [{"role": "user", "content": problem(history, SOLVED)}, *said])
    assert answered["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "finish"


def test_the_problem_is_known_in_a_list_of_content_parts_too(url: str, history: DemoHistory) -> None:
    parts = [{"type": "text", "text": f"Please solve this.\n\n{problem(history, FAILED)}"}]
    _, answered = post(url, [{"role": "user", "content": parts}])
    assert answered["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "terminal"


def test_tokens_are_counted(url: str) -> None:
    _, short = post(url, [{"role": "user", "content": "hello"}])
    _, longer = post(url, [{"role": "user", "content": "hello " * 1000}])
    assert 0 < short["usage"]["prompt_tokens"] < longer["usage"]["prompt_tokens"]
    for answered in (short, longer):
        usage = answered["usage"]
        assert usage["completion_tokens"] > 0
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_wrong_key_is_refused(url: str) -> None:
    status, answered = post(url, [{"role": "user", "content": "hello"}], key="wrong-key")
    assert status == 401
    assert "error" in answered


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_fault_asked_for_is_given_to_every_request(status: int) -> None:
    with model_server(status=status) as faulty:
        assert [post(faulty, [{"role": "user", "content": "hello"}])[0] for _ in range(2)] == [status, status]


def test_it_is_gone_when_its_context_ends() -> None:
    with model_server() as address:
        assert post(address, [{"role": "user", "content": "hello"}])[0] == 200
    with pytest.raises(urllib.error.URLError):
        post(address, [])
