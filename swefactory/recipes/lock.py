"""A Recipe becomes a lock, resolved as of the base commit's date. One property: names, versions, hashes, no address.

The bound is the commit's day plus two, because a fix is often developed against releases of the same days; the same
day gives the same bound, so that neighbours share a lock. The checkout itself is taken out of the resolution by an
override: where it is also a dependency of pytest (attrs, pluggy, packaging), it must stay the only copy. A lock is
therefore installed without following dependencies (`uv pip sync`). When source distributions are in it, "allow_sdist"
is among its repairs and its first line is

    # exclude-newer: 2019-10-01T00:00:00Z

the bound for their build requirements; the month's end, so that one month's equal locks stay one environment. Who
installs the lock lifts that bound for the packages in it, setuptools and wheel aside, which are within it.

A release without a fitting wheel is resolved, and later installed, from its source distribution, which runs the build
code of that *registry* package, as an ordinary pip install does; never the repository's. Refusing source distributions
is no answer: the resolver then takes older releases without a word (pytest 3.5 in 2019, because atomicwrites has no
wheel), and a repository that means harm can name any package. So uv runs in a sandbox, through SandboxBackend.run_uv,
and of what it leaves only lines that are pins and hashes become a lock.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta

from packaging.utils import canonicalize_name

from db.enums import RejectReason
from swefactory.errors import InfrastructureError, Rejected, Transient
from swefactory.machine_faults import fault_of
from swefactory.protocols import Attempt, Recipe
from swefactory.recipes.python_choice import RELEASES
from swefactory.recipes.repairs import ALL, Repair, Request, changes, next_request
from swefactory.recipes.requirements import name_of
from swefactory.sandbox_protocols import EnvironmentSpec, RunUv, UvRun

_MARGIN = timedelta(days=2)
_MAX_REPAIRS = 12
_TAIL_LINES = 12
_EVER = "2999-01-01T00:00:00Z"
_FORMAT = "swefactory environment 1"
_LOCK = "lock.txt"
_LOCK_LINE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+( ; [ !\"$-?A-\[\]-~]+)?( \\)?|    --hash=sha256:[0-9a-f]{64}( \\)?|"
)

# Published before, removed, and uploaded again later: their dates lie. Without this, old pytest falls back to 3.5.
_UPLOADED_AGAIN = {"atomicwrites": datetime(2022, 7, 9, tzinfo=UTC)}
# Our plugin needs pytest 3, which is of August 2016, and py 1.4.29 of 2015, the one thing which that requires.
_PYTEST_3 = dict.fromkeys(("pytest", "py"), datetime(2016, 9, 30, tzinfo=UTC))
# Building a source distribution needs build tools that know PEP 517 and this Python, however old the package is.
_BUILD_TOOLS = ("setuptools", "wheel")
_PEP_517 = datetime(2019, 3, 15, tzinfo=UTC)

_UNREACHABLE = re.compile(
    r"error sending request|dns error|[Cc]onnection refused|operation timed out|HTTP status (?:server error|5\d\d|429)"
)


@dataclass(frozen=True)
class Locked:
    """A lock: requirements text with hashes, and the repairs it took, in order, with what each changed."""

    text: str
    n_packages: int
    as_of: datetime
    repairs: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()

    @property
    def has_sources(self) -> bool:
        """Whether a release in it has no wheel that fits."""
        return self.text.startswith("# exclude-newer:")


class Unresolved(Rejected):
    """The registry of that day has no answer; `log` holds all that the resolver said."""

    def __init__(self, detail: str, log: str) -> None:
        super().__init__(RejectReason.DEPENDENCIES_UNRESOLVABLE, detail)
        self.log = log


def resolve(recipe: Recipe, *, run_uv: RunUv, timeout_s: float, repairs: Sequence[Repair] = ALL) -> Locked:
    """Resolves the recipe as of its date, with no other repairs than these. Raises Unresolved, Transient when the
    registry is away, and what `run_uv` raises."""
    bound = bound_of(recipe.as_of)
    run = _Resolver(recipe, run_uv, timeout_s)
    request = Request(
        requirements=recipe.requirements,
        constraints=recipe.constraints,
        requires=frozenset(recipe.layout.requires),
        before=_stamp(bound),
        lifted={name: _stamp(day) for name, day in _lifted(recipe.python_version).items() if day > bound},
    )
    applied: list[Attempt] = []
    while True:
        code, lock, log = run.compile(request)
        if code == 0:
            names = (*recipe.repairs, *(attempt.name for attempt in applied))
            return replace(_locked(lock, bound, names, run), attempts=tuple(applied))
        if _UNREACHABLE.search(log):
            raise Transient(f"the package registry cannot be reached: {_tail(log, 2)}; check the network", 60)
        repaired = next_request(request, log, repairs) if len(applied) < _MAX_REPAIRS else None
        if repaired is None:
            tried = "".join(f"\nrepair {attempt.name}: {attempt.detail}" for attempt in applied)
            raise Unresolved(_tail(log, _TAIL_LINES) + tried, log)
        name, changed = repaired
        applied.append(Attempt("repair", name, worked=True, detail=changes(request, changed)))
        request = changed


def built_from_source(
    locked: Locked, names: Sequence[str], recipe: Recipe, *, run_uv: RunUv, timeout_s: float
) -> list[str]:
    """Those of the packages `names` of a lock whose release has no wheel for this Python."""
    run = _Resolver(recipe, run_uv, timeout_s)
    pins = {name_of(pin): pin for pin in _pins(locked.text)}
    wanted = {name: Request((pins[name],), (), before=_EVER) for name in names if name in pins}
    return [name for name, one in wanted.items() if run.compile(one, "--no-deps", "--only-binary=:all:")[0] != 0]


def _pins(lock: str) -> tuple[str, ...]:
    return tuple(line.rstrip("\\ ") for line in lock.splitlines() if re.match(r"[A-Za-z0-9]", line))


def bound_of(as_of: datetime) -> datetime:
    """The moment before which a release must have been published: midnight UTC, two days after the commit's day."""
    return as_of.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + _MARGIN


def _lifted(python_version: str) -> dict[str, datetime]:
    """The packages whose own bound is later than the lock's, where the lock's is earlier than these days."""
    tools_day = max(_PEP_517, datetime.combine(RELEASES[python_version], time(), UTC))
    return _UPLOADED_AGAIN | _PYTEST_3 | dict.fromkeys(_BUILD_TOOLS, tools_day)


def _build_bound(bound: datetime, python_version: str) -> str:
    """The first line of a lock that may hold source distributions."""
    month_end = (bound.replace(day=1) + timedelta(days=32)).replace(day=1)
    return f"# exclude-newer: {_stamp(max(month_end, _lifted(python_version)['setuptools']))}\n"


def package_names(lock: str) -> tuple[str, ...]:
    """The canonical names of the packages in a lock, in its order."""
    found = (re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)==", line) for line in lock.splitlines())
    return tuple(canonicalize_name(match.group(1)) for match in found if match)


def digest_of(python_version: str, lock: str, system_packages: Sequence[str]) -> str:
    """The name of an environment: "sha256:…" over a version of this format and everything that goes into it."""
    lines = [_FORMAT, f"python {python_version}", *(f"system {name}" for name in sorted(set(system_packages))), lock]
    return f"sha256:{hashlib.sha256('\n'.join(lines).encode()).hexdigest()}"


def spec_of(recipe: Recipe, locked: Locked) -> EnvironmentSpec:
    """What a sandbox needs to make this environment."""
    system = tuple(sorted(set(recipe.system_packages)))
    digest = digest_of(recipe.python_version, locked.text, system)
    return EnvironmentSpec(digest, recipe.python_version, locked.text, system)


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True)
class _Resolver:
    """uv, for one recipe: each run is a process of its own in an empty folder."""

    recipe: Recipe
    run_uv: RunUv
    timeout_s: float

    def compile(self, request: Request, *options: str) -> tuple[int, str, str]:
        """Exit code, lock, log."""
        name, version = self.recipe.layout.name, self.recipe.python_version
        run = self.run_uv(
            [*_arguments(request), *options],
            files=_inputs(request, self.recipe), writes=_LOCK, python_version=version, timeout_s=self.timeout_s,
        )  # fmt: skip
        if run.result.timed_out:
            raise Transient(f"resolving {name} took longer than {self.timeout_s:.0f} s", 300)
        code, log = run.result.exit_code, run.result.output.decode(errors="replace")
        if code is None:
            raise InfrastructureError(f"the resolver was killed while it resolved {name}: {_tail(log, 2)}; try again")
        if why := fault_of(run.result):
            raise InfrastructureError(f"the resolver gave no answer for {name}: {why}; see that the disk has room")
        return code, _checked(run) if code == 0 else "", log


def _arguments(request: Request) -> list[str]:
    return [
        "pip", "compile", "requirements.in", "--constraints", "constraints.txt", "--overrides", "overrides.txt",
        "--output-file", _LOCK, "--exclude-newer", request.before,
        *(f"--exclude-newer-package={name}={day}" for name, day in sorted(request.lifted.items())),
        *(f"--only-binary={name}" for name in sorted(request.wheels_only)),
        "--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate", "--color=never", "--quiet",
    ]  # fmt: skip


def _locked(lock: str, bound: datetime, repairs: tuple[str, ...], run: _Resolver) -> Locked:
    """The lock, marked when some of its releases have no wheel that fits."""
    n_packages = len(package_names(lock))
    pins = _pins(lock)
    request = Request(pins, (), before=_EVER)
    if not pins or run.compile(request, "--no-deps", "--only-binary=:all:")[0] == 0:
        return Locked(lock, n_packages, bound, repairs)
    return Locked(_build_bound(bound, run.recipe.python_version) + lock, n_packages, bound, (*repairs, "allow_sdist"))


def _inputs(request: Request, recipe: Recipe) -> dict[str, str]:
    own = canonicalize_name(recipe.layout.name)
    return {
        "requirements.in": "".join(f"{line}\n" for line in request.requirements),
        "constraints.txt": "".join(f"{line}\n" for line in request.constraints),
        "overrides.txt": f'{own} ; python_version < "0"\n',  # never: the checkout is the only copy
    }


def _checked(run: UvRun) -> str:
    """The lock, when each of its lines may be in one. What was built beside uv could have written another."""
    lock = "no file" if run.written is None else run.written.decode(errors="replace")
    strange = next((line for line in lock.split("\n") if not _LOCK_LINE.fullmatch(line)), None)
    if strange is None:
        return lock
    if run.built:
        detail = f"a package that was built left in place of a lock what belongs in none: {strange!r:.200}"
        raise Rejected(RejectReason.DEPENDENCIES_UNRESOLVABLE, detail)
    raise InfrastructureError(f"the resolver wrote {strange!r:.200} into a lock; is a requirement not cleaned?")


def _tail(log: str, n_lines: int) -> str:
    return "\n".join([line for line in log.splitlines() if line.strip()][-n_lines:])
