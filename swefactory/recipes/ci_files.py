"""A project's own automation as jobs: which Pythons, which steps, which variables. One property: files only.

    .github/workflows/*.yml   jobs.*.strategy.matrix with include and exclude, expressions of matrix, env and literals
    .travis.yml               python:, env:, jobs.include
    .gitlab-ci.yml            image:, parallel.matrix, extends
    appveyor.yml              environment.matrix
    .circleci/config.yml      jobs.*.docker.image, workflows.*.jobs.*.matrix.parameters
    azure-pipelines.yml and others: any value below a key that speaks of Python

YAML is loaded with every scalar as text: `on:` must not become True, nor 3.10 become 3.1.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from swefactory.recipes.files import read_text, strings, table, text
from swefactory.recipes.python_names import factors, images, versions
from swefactory.recipes.shell import commands_that_test

_KEYS = re.compile(r"python|tox|session|image|^py$|^env$", re.IGNORECASE)
_SCRIPTS = frozenset(
    (
        "run", "script", "command", "before_script", "before_install", "install", "test_script", "build_script", "bash",
        "powershell", "pwsh", "cmd", "after_install", "pre_build", "commands",
    )
)  # fmt: skip
_OTHERS = (
    "azure-pipelines.yml", ".azure-pipelines.yml", ".azure-pipelines/azure-pipelines.yml", "bitbucket-pipelines.yml",
    ".cirrus.yml", ".drone.yml", ".woodpecker.yml", ".semaphore/semaphore.yml",
)  # fmt: skip
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # the same in C, where it is built
_MAX_COMBINATIONS = 400
_MAX_DEPTH = 20


@dataclass(frozen=True)
class CiJob:
    """One job. `origin` is the file and the job's key in it; `packages` what it asks apt for other than by a step."""

    origin: str
    pythons: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()

    @property
    def runs_tests(self) -> bool:
        """Whether one of its steps runs tests."""
        return any(commands_that_test(script) for script in self.scripts)


def read_jobs(tree: Path) -> tuple[CiJob, ...]:
    """Every job of every file known; those that run tests first, files in the order of this page."""
    folder = tree / ".github" / "workflows"
    names = sorted(path.name for path in folder.glob("*.y*ml")) if folder.is_dir() else []
    readers: list[tuple[str, Callable[[str, Mapping[str, object]], Iterator[CiJob]]]] = [
        *((f".github/workflows/{name}", _github) for name in names),
        (".travis.yml", _travis),
        (".gitlab-ci.yml", _gitlab),
        *((name, _appveyor) for name in ("appveyor.yml", ".appveyor.yml")),
        (".circleci/config.yml", _circle),
        *((name, _other) for name in _OTHERS),
    ]
    jobs = [job for path, reader in readers for job in reader(path, table(load_yaml(read_text(tree, path))))]
    return tuple(sorted(jobs, key=lambda job: not job.runs_tests))


def load_yaml(source: str) -> object:
    """The document with every scalar as text; None when it does not parse."""
    try:
        document: object = yaml.load(source, Loader=_LOADER)  # noqa: S506  builds strings, lists and dicts only
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    return document


def _scalars(node: object, named: bool = False, depth: int = 0) -> Iterator[str]:
    """The texts below a key that speaks of Python, tox or an image. Depth is bounded: YAML may refer to itself."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(node, Mapping):
        for key, value in node.items():
            if named and isinstance(value, Mapping | list):
                yield str(key)  # azure's matrix: {py38: {...}}
            yield from _scalars(value, named or bool(_KEYS.search(str(key))), depth + 1)
    elif isinstance(node, list):
        for item in node:
            yield from _scalars(item, named, depth + 1)
    elif isinstance(node, str) and named:
        yield node


def _scripts(node: object, depth: int = 0) -> Iterator[str]:
    """The shell texts of a node: steps are told by their key."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in _SCRIPTS and (lines := _shell_lines(value)):
                yield "\n".join(lines)
            else:
                yield from _scripts(value, depth + 1)
    elif isinstance(node, list):
        for item in node:
            yield from _scripts(item, depth + 1)


def _shell_lines(value: object) -> tuple[str, ...]:
    """The texts of a step: one text, a list of them, or a list of {sh: text} and the like."""
    if isinstance(value, str):
        return (value,)
    items = value if isinstance(value, list) else []
    return tuple(
        item if isinstance(item, str) else text(table(item).get("cmd") or table(item).get("sh")) for item in items
    )


def _named(node: object) -> tuple[str, ...]:
    """The Pythons that values below speaking keys name."""
    return tuple(v for found in _scalars(node) for v in (*versions([found]), *factors(found), *images(found)))


def _texts(node: object) -> dict[str, str]:
    return {name: value for name, value in table(node).items() if isinstance(value, str)}


# ---------------------------------------------------------------- GitHub Actions


def _github(path: str, document: Mapping[str, object]) -> Iterator[CiJob]:
    for key in table(document, "jobs"):
        job = table(document, "jobs", key)
        variables = {**_texts(document.get("env")), **_texts(job.get("env"))}
        found: list[str] = []
        scripts: list[str] = []
        packages: list[str] = []
        inner: dict[str, str] = {}
        for combination in _combinations(job):
            known = {**combination, **{f"env.{name}": value for name, value in variables.items()}}
            found += _github_pythons(job, known)
            scripts += [evaluated(script, known) for script in _scripts(job.get("steps"))]
            inner |= {
                name: evaluated(value, known) for name, value in _step_variables(job).items() if name not in inner
            }
            packages += _action_packages(job, known)
        variables = {name: evaluated(value, {}) for name, value in variables.items()}
        yield CiJob(
            f"{path} jobs.{key}", tuple(dict.fromkeys(found)), tuple(dict.fromkeys(scripts)),
            {**inner, **variables}, tuple(dict.fromkeys(packages)),
        )  # fmt: skip


def _github_pythons(job: Mapping[str, object], known: Mapping[str, str]) -> list[str]:
    """From setup-python's input; else from the container's image; else from what the matrix says of Python or tox."""
    steps = [table(step) for step in _list(job.get("steps"))]
    asked = [
        evaluated(text(table(step, "with").get("python-version")), known)
        for step in steps
        if re.search(r"setup-(python|uv|micromamba|miniconda)|pypi|python", text(step.get("uses")))
    ]
    found = [version for value in asked for version in versions(value.split())]
    container = job.get("container")
    image = evaluated(text(container) or text(table(container).get("image")), known)
    speaking = [value for name, value in known.items() if re.search(r"python|tox|nox|\bpy\b|session|name", name)]
    return (
        found
        or list(images(image))
        or [v for value in speaking for v in (*versions([value]), *factors(value))]
        or [v for value in _scalars(job.get("with")) for v in versions(re.split(r"[\s,\[\]\"']+", value))]
    )


def _step_variables(job: Mapping[str, object]) -> dict[str, str]:
    """The variables of the steps that run tests."""
    steps = [table(step) for step in _list(job.get("steps"))]
    found = [_texts(step.get("env")) for step in steps if commands_that_test(text(step.get("run")))]
    return {name: value for part in found for name, value in part.items()}


def _action_packages(job: Mapping[str, object], known: Mapping[str, str]) -> list[str]:
    """Packages of the actions that install from apt."""
    steps = [table(step) for step in _list(job.get("steps"))]
    wanted = [text(table(step, "with").get("packages")) for step in steps if "apt" in text(step.get("uses"))]
    return [name for value in wanted for name in evaluated(value, known).split()]


def _list(node: object) -> list[object]:
    return node if isinstance(node, list) else []


def _combinations(job: Mapping[str, object]) -> list[dict[str, str]]:
    """The matrix of a job: the product of its lists without `exclude`, extended or lengthened by `include`.

    Follows GitHub's own rule: an include entry is added to every combination whose own values it does not change;
    when there is none, it is a combination by itself. Keys come as "matrix.name".
    """
    matrix = _unfolded(table(job, "strategy").get("matrix"))
    axes = {
        name: axis
        for name, values in matrix.items()
        if name not in ("include", "exclude") and (axis := _list(_from_json(values)))
    }
    product = itertools.islice(itertools.product(*axes.values()), _MAX_COMBINATIONS)
    plain = [dict(zip(axes, values, strict=True)) for values in product] if axes else []
    excluded = [table(entry) for entry in _list(_from_json(matrix.get("exclude")))]
    plain = [found for found in plain if not any(_covers(entry, found) for entry in excluded if entry)]
    whole = [dict(found) for found in plain]
    for entry in map(table, _list(_from_json(matrix.get("include")))):
        own = {name: value for name, value in entry.items() if name in axes}
        matched = [i for i, found in enumerate(plain) if _covers(own, found)]
        for i in matched:
            whole[i] |= entry
        if not matched and entry:
            whole.append(dict(entry))
    return [dict(_flat("matrix", found)) for found in whole] or [{}]


def _unfolded(matrix: object) -> Mapping[str, object]:
    found = _from_json(matrix)
    return found if isinstance(found, Mapping) else {}


def _from_json(value: object) -> object:
    """A literal fromJSON('…') as what it says; anything else as it is."""
    found = (
        re.search(r"fromJSON\(\s*'(.*?)'\s*\)", value, re.IGNORECASE | re.DOTALL) if isinstance(value, str) else None
    )
    if not found:
        return value
    try:
        return _as_text(json.loads(found.group(1)))
    except (ValueError, RecursionError):
        return None


def _as_text(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _as_text(inner) for name, inner in value.items()}
    return [_as_text(item) for item in value] if isinstance(value, list) else str(value)


def _covers(entry: Mapping[str, object], found: Mapping[str, object]) -> bool:
    return all(found.get(name) == value for name, value in entry.items())


def _flat(prefix: str, node: object, depth: int = 0) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping) and depth < _MAX_DEPTH:
        for name, value in node.items():
            yield from _flat(f"{prefix}.{name}", value, depth + 1)
    elif isinstance(node, str):
        yield prefix, node


def evaluated(value: str, known: Mapping[str, str]) -> str:
    """`value` with its ${{ expressions }} replaced: of `a || 'b'` the first side that is known; empty for the rest."""

    def one(found: re.Match[str]) -> str:
        for written in re.split(r"\|\||&&", found.group(1)):
            side = written.strip().strip("()").strip()
            if quoted := re.fullmatch(r"'([^']*)'", side):
                return quoted.group(1)
            name = re.sub(r"\[\s*'([^']+)'\s*\]", r".\1", side)
            if name in known:
                return known[name]
        return ""

    return _EXPRESSION.sub(one, value)


# ---------------------------------------------------------------- the others


def _travis(path: str, document: Mapping[str, object]) -> Iterator[CiJob]:
    if not document:
        return
    environment = document.get("env")
    shared = [*strings(environment), *strings(table(environment).get("global"))]
    matrices = [_list(table(document, name).get("include")) or _list(document.get(name)) for name in ("matrix", "jobs")]
    entries = [table(entry) for found in matrices for entry in found]
    excluded = [table(entry) for name in ("matrix", "jobs") for entry in _list(table(document, name).get("exclude"))]
    named = [*_values(document.get("python")), *(v for entry in entries for v in _values(entry.get("python")))]
    tox = [str(value) for node in (environment, *entries) for value in _strings_below(node) if "TOXENV" in value]
    gone = {v for entry in excluded if set(entry) == {"python"} for v in _values(entry.get("python"))}
    variables = {name: value for line in shared for name, value in _assigned(line)}
    yield CiJob(
        f"{path} python",
        tuple(v for v in (*versions(v for v in named if v not in gone), *(f for line in tox for f in factors(line)))),
        tuple(dict.fromkeys(_scripts(document))),
        variables,
        tuple(_strings_below(table(document, "addons", "apt").get("packages")))
        + tuple(_strings_below(table(document, "addons").get("apt_packages"))),
    )


def _values(node: object) -> list[str]:
    return [node] if isinstance(node, str) else [item for item in _list(node) if isinstance(item, str)]


def _strings_below(node: object, depth: int = 0) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(node, str):
        yield node
    for inner in node.values() if isinstance(node, Mapping) else _list(node):
        yield from _strings_below(inner, depth + 1)


def _assigned(line: str) -> Iterator[tuple[str, str]]:
    for found in re.finditer(r"(\w+)=(\"[^\"]*\"|'[^']*'|\S+)", line):
        yield found.group(1), found.group(2).strip("\"'")


def _gitlab(path: str, document: Mapping[str, object]) -> Iterator[CiJob]:
    shared = {
        **{name: document[name] for name in ("image", "variables", "before_script") if name in document},
        **table(document, "default"),
    }
    for key, node in document.items():
        job = _extended(document, table(node), shared)
        if key.startswith(".") or not {"script", "trigger"} & set(job) or key in ("default", "before_script"):
            continue
        matrix = [dict(table(entry)) for entry in _list(table(job, "parallel").get("matrix"))]
        values = [value for entry in matrix for value in _strings_below(entry)]
        image = text(job.get("image")) or text(table(job, "image").get("name"))
        named = [*images(image), *_named({**matrix[0], "python": values} if matrix else {}), *_named(job)]
        yield CiJob(
            f"{path} {key}", tuple(dict.fromkeys(named)), tuple(dict.fromkeys(_scripts(job))),
            {**_texts(shared.get("variables")), **_texts(job.get("variables"))},
        )  # fmt: skip


def _extended(
    document: Mapping[str, object], job: Mapping[str, object], shared: Mapping[str, object], depth: int = 0
) -> dict[str, object]:
    """A job over what it extends, over the defaults."""
    below: dict[str, object] = dict(shared)
    for name in _values(job.get("extends")) if depth < _MAX_DEPTH else []:
        below |= _extended(document, table(document.get(name)), {}, depth + 1)
    return {**below, **job}


def _appveyor(path: str, document: Mapping[str, object]) -> Iterator[CiJob]:
    if not document:
        return
    environment = table(document, "environment")
    values = list(_strings_below(environment))
    digits = [f"{v[0]}.{v[1:]}" for value in values for v in re.findall(r"Python-?(\d{2,3})(?=\D|$)", value)]
    named = [*digits, *(v for value in values for v in (*versions([value]), *factors(value)))]
    yield CiJob(f"{path} environment", tuple(dict.fromkeys(versions(named))), tuple(dict.fromkeys(_scripts(document))))


def _circle(path: str, document: Mapping[str, object]) -> Iterator[CiJob]:
    """Jobs with their images; a workflow's matrix gives a job its Pythons by name."""
    matrices: dict[str, list[str]] = {}
    for entry in _entries(table(document, "workflows")):
        for name, node in entry.items():
            parameters = table(node, "matrix", "parameters")
            found = [v for key, value in parameters.items() for v in _circle_versions(key, value)]
            matrices.setdefault(name, []).extend(found)
    for key in table(document, "jobs"):
        job = table(document, "jobs", key)
        named = [*matrices.get(key, []), *(v for value in _strings_below(job.get("docker")) for v in images(value))]
        yield CiJob(
            f"{path} jobs.{key}", tuple(dict.fromkeys(named)), tuple(dict.fromkeys(_scripts(job))),
            _texts(job.get("environment")),
        )  # fmt: skip


def _entries(workflows: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    for workflow in workflows.values():
        for entry in _list(table(workflow).get("jobs")):
            yield table(entry)


def _circle_versions(key: str, value: object) -> list[str]:
    values = list(_strings_below(value))
    return (
        [v for item in values for v in (*versions([item]), *factors(item), *images(item))] if _KEYS.search(key) else []
    )


def _other(path: str, document: Mapping[str, object]) -> Iterator[CiJob]:
    """A file of which only the keys are understood."""
    if not document:
        return
    named = [*_named(document), *(v for job in _strings_below(document) for v in images(job))]
    yield CiJob(path, tuple(dict.fromkeys(named)), tuple(dict.fromkeys(_scripts(document))))
