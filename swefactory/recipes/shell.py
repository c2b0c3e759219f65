"""Shell text of other people's automation, read for what it installs and which tests it runs. One property: never run.

Only simple commands are understood: `sudo apt-get install -y a b && pip install .[test]` is two. What a shell would
have to compute (`$VERSION`, backticks) is left out word by word.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_SEPARATORS = re.compile(r"\s*(?:&&|\|\||;|\||\n)\s*")
_ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*=")
_PYTHON = re.compile(r"^(?:.*/)?(?:python|py)[\d.]*(?:\.exe)?$")
_PIP = re.compile(r"^(?:.*/)?pip[\d.]*(?:\.exe)?$")
_APT_NAME = re.compile(r"^[a-z0-9][a-z0-9+.-]+$")
_WRAPPERS = {
    "sudo": 0, "env": 0, "command": 0, "exec": 0, "time": 0, "travis_retry": 0, "travis_wait": 1, "then": 0, "else": 0,
    "do": 0, "xvfb-run": 0, "!": 0, "if": 0, "eatmydata": 0, "cmd": 0, "eval": 0, "call": 0, "-": 0, "{": 0, "(": 0,
}  # fmt: skip
_RUNNERS = {("uv", "run"), ("poetry", "run"), ("pdm", "run"), ("pipenv", "run"), ("hatch", "run"), ("rye", "run")}
_OTHER_JOBS = re.compile(r"^(docs?|lint|style|typing|mypy|flake8|manifest|build|release|pre-commit|coverage-report)\b")
# Options of pip and its like that take the next word.
_WITH_VALUE = frozenset(
    (
        "-i", "--index-url", "--extra-index-url", "-f", "--find-links", "-t", "--target", "--progress-bar",
        "--timeout", "--retries", "--cache-dir", "--python", "--python-version", "--platform", "--only-binary",
        "--no-binary", "--prefix", "--src", "--root", "--trusted-host", "--log", "--resolution", "--exclude-newer",
        "--index", "--default-index", "--directory", "--project", "--config-file", "-p", "--config-settings",
        "--with", "--with-requirements", "-C",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Installs:
    """What a command installs: lines as requirements files spell them (`-r file`, `.[extra]`), and names of groups."""

    lines: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


def commands(script: str) -> Iterator[tuple[str, ...]]:
    """The simple commands of a script as words, without what only wraps them: sudo, variables, `uv run`."""
    joined = re.sub(r"[\\^]\s*\n\s*", " ", script)
    for part in _SEPARATORS.split(joined):
        words = _words(part)
        while words and (bare := _unwrapped(words)) != words:
            words = bare
        if words:
            yield tuple(words)


def assignments(script: str) -> dict[str, str]:
    """The variables that a script exports or sets in front of a command."""
    found: dict[str, str] = {}
    for part in _SEPARATORS.split(script):
        words = _words(part)
        if words[:1] == ["export"]:
            words = words[1:]
        for word in words:
            if not _ASSIGNMENT.match(word):
                break
            name, _, value = word.partition("=")
            found[name] = value
    return found


def _words(part: str) -> list[str]:
    try:
        return shlex.split(part, comments=True)
    except ValueError:
        return part.split()


def _unwrapped(words: list[str]) -> list[str]:
    if _ASSIGNMENT.match(words[0]):
        return words[1:]
    if words[0] in _WRAPPERS:
        rest = words[1 + _WRAPPERS[words[0]] :]
        while rest and words[0] in ("sudo", "env", "xvfb-run") and rest[0].startswith("-"):
            rest = rest[1:]
        return rest
    if tuple(words[:2]) in _RUNNERS:
        rest = words[2:]
        while rest and rest[0].startswith("-"):
            rest = rest[2:] if rest[0] in _WITH_VALUE else rest[1:]
        return rest
    if words[0] == "coverage" and words[1:2] == ["run"]:
        if "-m" in words:
            return words[words.index("-m") + 1 :]
        script = next((n for n, word in enumerate(words) if n > 1 and word.endswith(".py")), None)
        return words if script is None else ["python", *words[script:]]
    if _PYTHON.match(words[0]) and words[1:3] == ["-m", "coverage"]:
        return words[2:]
    return words


# ---------------------------------------------------------------- what is installed


def installs(script: str) -> Installs:
    """Everything that the pip, uv, poetry, pdm and pipenv commands of a script install."""
    found = [_installed(words) for words in commands(script)]
    return Installs(
        tuple(line for part in found for line in part.lines), tuple(name for part in found for name in part.groups)
    )


def _installed(words: Sequence[str]) -> Installs:
    match list(words):
        case [python, "-m", "pip", "install", *rest] if _PYTHON.match(python):
            return paired(rest)
        case [pip, "install", *rest] if _PIP.match(pip):
            return paired(rest)
        case ["uv", "pip", ("install" | "sync") as verb, *rest]:
            return paired(["-r", *rest] if verb == "sync" and rest and not rest[0].startswith("-") else rest)
        case [("uv" | "pdm" | "poetry") as tool, ("sync" | "install") as verb, *rest]:
            return _synced(tool, verb, rest)
        case [("pipenv"), "install", *rest]:
            return Installs((), ("pipenv", "dev") if "--dev" in rest or "-d" in rest else ("pipenv",))
        case _:
            return Installs()


def paired(arguments: Iterable[str]) -> Installs:
    """["-r", "tests.txt", "-e", ".", "-U", "pip"] as the lines a requirements file would have, and `--group` names."""
    lines: list[str] = []
    groups: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, _, value = argument.partition("=")
        if name in ("-r", "-c", "-e", "--requirement", "--constraint", "--editable"):
            lines.append(f"{name} {value or next(rest, '')}".strip())
        elif re.match(r"^-[rc](?=[^-=\s])", argument):
            lines.append(f"{argument[:2]} {argument[2:]}")
        elif name == "--group":
            groups.append((value or next(rest, "")).rpartition(":")[2])
        elif argument in _WITH_VALUE:
            next(rest, "")
        elif not argument.startswith("-") and "$" not in argument and "`" not in argument:
            lines.append(argument)
    return Installs(tuple(lines), tuple(filter(None, groups)))


def _synced(tool: str, verb: str, arguments: Sequence[str]) -> Installs:
    """The groups and extras of `uv sync`, `poetry install` and `pdm install`; `dev` comes with the first two."""
    groups = [] if tool == "pdm" or {"--no-dev", "--only", "--without"} & set(arguments) else ["dev"]
    extras: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, _, value = argument.partition("=")
        if name in ("--group", "--with", "--only", "--only-group", "-G", "-dG"):
            groups += re.split(r"[,\s]+", value or next(rest, ""))
        elif name in ("--extra", "--extras", "-E"):
            extras += re.split(r"[,\s]+", value or next(rest, ""))
        elif name in ("--all-extras", "--all-groups", "-d", "--dev"):
            groups.append("dev")
    lines = (f".[{','.join(filter(None, extras))}]",) if any(extras) else (".",)
    return Installs(lines, tuple(filter(None, groups)))


def apt_packages(script: str) -> tuple[str, ...]:
    """The packages of `apt-get install` and its like, in their order, without versions."""
    found: list[str] = []
    for words in commands(script):
        if words[0] not in ("apt-get", "apt", "aptitude") or "install" not in words:
            continue
        rest = iter(words[words.index("install") + 1 :])
        for word in rest:
            if word in ("-t", "-o", "--target-release"):
                next(rest, "")
            elif not word.startswith("-") and _APT_NAME.match(name := word.partition("=")[0].partition("/")[0]):
                found.append(name)
    return tuple(dict.fromkeys(found))


# ---------------------------------------------------------------- what is tested


def commands_that_test(script: str) -> tuple[tuple[str, ...], ...]:
    """The commands of a script that run tests, themselves or through tox, nox, hatch or make."""
    return tuple(words for words in commands(script) if _runs_tests(words))


def _runs_tests(words: Sequence[str]) -> bool:
    match list(words):
        case ["tox" | "nox", *rest] if any(_OTHER_JOBS.match(word) for word in rest):
            return False
        case [
            ("pytest" | "py.test" | "unittest" | "tox" | "nox" | "nosetests" | "trial" | "stestr" | "nose2" | "green"),
            *rest,
        ]:
            return "--version" not in rest
        case [python, "-m", ("pytest" | "py.test" | "tox" | "nox" | "unittest" | "nose" | "twisted.trial"), *_] if (
            _PYTHON.match(python)
        ):
            return True
        case [python, "setup.py", *rest] if _PYTHON.match(python):
            return bool({"test", "pytest", "nosetests"} & set(rest))
        case [python, file, "test", *_] if _PYTHON.match(python) and file.endswith("manage.py"):
            return True
        case [file, "test", *_] if file.endswith("manage.py") or file in ("django-admin", "django-admin.py"):
            return True
        case [python, "-m", "django", "test", *_] if _PYTHON.match(python):
            return True
        case ["make", *rest]:
            return any(re.match(r"^(tests?|check|unit|pytest|coverage)", word) for word in rest)
        case ["hatch", ("test" | "run" | "env"), *_]:
            return True
        case [python, file, *_] if _PYTHON.match(python):
            return bool(re.search(r"(^|/)(run)?_?tests?\w*\.py$", file))
        case ["uvx" | "pipx", *rest]:
            return any(word.startswith(("tox", "nox", "hatch")) for word in rest)
        case [file, *_]:
            named = r"^(\./)?(scripts?|ci|tools|bin)/(run[-_]?)?tests?(\.sh)?$|^(\./)?(\w+/)*run_?tests?\.py$"
            return bool(re.search(named, file))
        case _:
            return False
