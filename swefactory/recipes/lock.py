"""A Recipe becomes a lock, resolved as of the base commit's date. One property: names, versions and hashes, no address.

The bound is the commit's day plus two, because a fix is often developed against releases of the same days; the same
day gives the same bound, so that neighbours share a lock. The checkout itself is taken out of the resolution by an
override: where it is also a dependency of pytest (attrs, pluggy, packaging), it must stay the only copy. A lock is therefore
installed without following dependencies (`uv pip sync`). When it may hold source distributions its first line is

    # exclude-newer: 2019-10-01T00:00:00Z

the bound for their build requirements; the month's end, so that one month's equal locks stay one environment.

Risk: resolving wheels runs nothing. Where no wheel fits, the repair "allow_sdist" lets the resolver build the metadata
of source distributions, which runs *registry* packages' build code on this host, as an ordinary pip install does. It
never runs the repository's. That code gets an environment without our settings and secrets and an empty home; a registry
address that carries credentials is the exception, the resolver needs it.
"""

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uv
from packaging.utils import canonicalize_name

from db.models import RejectReason
from swefactory.errors import InfrastructureError, Rejected, Transient
from swefactory.protocols import EnvironmentSpec, Recipe
from swefactory.recipes.repairs import Request, next_request

_MARGIN = timedelta(days=2)
_MAX_REPAIRS = 12
_TAIL_LINES = 12
_FORMAT = "swefactory environment 1"

# Published before, removed, and uploaded again later: their dates lie. Without this, old pytest falls back to 3.5.
_UPLOADED_AGAIN = {"atomicwrites": datetime(2022, 7, 9, tzinfo=UTC)}
# Building a source distribution needs PEP 517 support, however old the package is.
_BUILD_TOOLS = {"setuptools": datetime(2019, 3, 15, tzinfo=UTC), "wheel": datetime(2019, 3, 15, tzinfo=UTC)}

_PASSED = re.compile(
    r"^(PATH|LANG|LC_ALL|SSL_CERT_FILE|SSL_CERT_DIR|SSL_CLIENT_CERT|REQUESTS_CA_BUNDLE|(https?|all|no)_proxy"
    r"|UV_(DEFAULT_INDEX|INDEX|INDEX_URL|EXTRA_INDEX_URL|INDEX_STRATEGY|FIND_LINKS|CONFIG_FILE|INSECURE_HOST|HTTP_TIMEOUT"
    r"|NATIVE_TLS|SYSTEM_CERTS|OFFLINE|INDEX_\w+_(USERNAME|PASSWORD)))$",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(
    r"error sending request|dns error|[Cc]onnection refused|operation timed out|HTTP status (?:server error|5\d\d|429)"
)


@dataclass(frozen=True)
class Locked:
    """A lock: requirements text with hashes, and the names of the repairs it took, in order."""

    text: str
    n_packages: int
    as_of: datetime
    repairs: tuple[str, ...] = ()


def resolve(recipe: Recipe, *, cache_dir: Path, timeout_s: float, interpreter: str = "") -> Locked:
    """Resolves the recipe as of its date. `interpreter` is a program of its Python version on this host; without one
    the version number alone decides. Raises Rejected(DEPENDENCIES_UNRESOLVABLE), Transient when the registry is
    away."""
    bound = bound_of(recipe.as_of)
    request = Request(
        requirements=recipe.requirements,
        constraints=recipe.constraints,
        requires=frozenset(recipe.layout.requires),
        before=_stamp(bound),
        lifted={name: _stamp(day) for name, day in _UPLOADED_AGAIN.items() if day > bound},
    )
    applied: list[str] = []
    while True:
        code, lock, log = _compile(request, recipe, cache_dir, timeout_s, interpreter)
        if code == 0:
            text = _build_bound(bound) + _checked(lock) if request.allow_sdist else _checked(lock)
            return Locked(text, len(package_names(lock)), bound, (*recipe.repairs, *applied))
        if _UNREACHABLE.search(log):
            raise Transient(f"the package registry cannot be reached: {_tail(log, 2)}; check the network", 60)
        repaired = next_request(request, log) if len(applied) < _MAX_REPAIRS else None
        if repaired is None:
            raise Rejected(RejectReason.DEPENDENCIES_UNRESOLVABLE, _tail(log, _TAIL_LINES))
        name, request = repaired
        applied.append(name)


def bound_of(as_of: datetime) -> datetime:
    """The moment before which a release must have been published: midnight UTC, two days after the commit's day."""
    return as_of.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + _MARGIN


def _build_bound(bound: datetime) -> str:
    """The first line of a lock that may hold source distributions."""
    month_end = (bound.replace(day=1) + timedelta(days=32)).replace(day=1)
    return f"# exclude-newer: {_stamp(max(month_end, *_BUILD_TOOLS.values()))}\n"


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


def _compile(
    request: Request, recipe: Recipe, cache_dir: Path, timeout_s: float, interpreter: str
) -> tuple[int, str, str]:
    """One run of the resolver in an empty folder: exit code, lock, log."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="swefactory-lock-") as folder:
        _write_inputs(Path(folder), request, recipe)
        command = [uv.find_uv_bin(), *_arguments(request, recipe, cache_dir, interpreter)]
        try:
            done = subprocess.run(
                command, cwd=folder, env=_environment(os.environ, folder), capture_output=True, text=True,
                timeout=timeout_s, errors="replace", check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Transient(f"resolving {recipe.layout.name} took longer than {timeout_s:.0f} s", 300) from error
        return done.returncode, done.stdout, done.stderr.replace(folder, "")


def _write_inputs(folder: Path, request: Request, recipe: Recipe) -> None:
    own = canonicalize_name(recipe.layout.name)
    (folder / "home").mkdir()
    (folder / "requirements.in").write_text("".join(f"{line}\n" for line in request.requirements))
    (folder / "constraints.txt").write_text("".join(f"{line}\n" for line in request.constraints))
    (folder / "overrides.txt").write_text(f'{own} ; python_version < "0"\n')  # never: the checkout is the only copy


def _arguments(request: Request, recipe: Recipe, cache_dir: Path, interpreter: str) -> list[str]:
    lifted = dict(request.lifted)
    if request.allow_sdist:
        lifted = {**{n: _stamp(day) for n, day in _BUILD_TOOLS.items() if _stamp(day) > request.before}, **lifted}
    python = ["--python", interpreter] if interpreter else ["--python-version", recipe.python_version]
    wheels = sorted(request.wheels_only) if request.allow_sdist else [":all:"]
    return [
        "pip", "compile", "requirements.in", "--constraints", "constraints.txt", "--overrides", "overrides.txt",
        *python, "--no-python-downloads", "--cache-dir", str(cache_dir.resolve()), "--exclude-newer", request.before,
        *(f"--exclude-newer-package={name}={day}" for name, day in sorted(lifted.items())),
        *(f"--only-binary={name}" for name in wheels),
        "--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate", "--no-progress", "--color=never",
        "--quiet",
    ]  # fmt: skip


def _environment(ours: Mapping[str, str], folder: str) -> dict[str, str]:
    """Only what reaches the registry: no token, no setting of ours, and an empty home."""
    passed = {name: value for name, value in ours.items() if _PASSED.match(name)}
    return {**passed, "HOME": f"{folder}/home", "TMPDIR": folder, "PYTHONDONTWRITEBYTECODE": "1"}


def _checked(lock: str) -> str:
    if "://" in lock:
        raise InfrastructureError("the resolver wrote an address into a lock; is a requirement not cleaned?")
    return lock


def _tail(log: str, n_lines: int) -> str:
    return "\n".join([line for line in log.splitlines() if line.strip()][-n_lines:])
