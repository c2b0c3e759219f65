"""Lists of benchmark instances, read and written. One property: a list that is not whole stops the run.

    {"format": "swefactory-benchmark-list", "version": 1, "name": "swe-bench-lite", "n_rows": 323}
    {"base_commit": "d16b…", "benchmark": "swe-bench-lite", "instance_id": "astropy__astropy-12907", "issue_signature":
     "minhash1:…", "patch_digest": "sha256:…", "pull_number": 12907, "repo": "astropy/astropy"}

JSONL, a header and then a row an instance, by instance_id. `base_commit`, `patch_digest` and `issue_signature` may be
missing where they are not known. The header's count shows a file that was cut off; its `incomplete_repositories` are
those of which the benchmark has more instances (`n_published` in all) than are listed: all of theirs count as listed.
"""

import hashlib
import json
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swefactory.errors import UsageError
from swefactory.likeness import bands, patch_digest, signature

SHIPPED = ("swe-bench-dev", "swe-bench-lite", "swe-bench-verified")
_FORMAT, _VERSION = "swefactory-benchmark-list", 1
_NUMBER = re.compile(r"-(\d+)$")
_REPO = r"^[A-Za-z0-9][\w.-]*/[\w.-]+$"


class Row(BaseModel):
    """One benchmark instance."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    benchmark: str = Field(min_length=1)
    instance_id: str = Field(min_length=1)
    repo: str = Field(pattern=_REPO)
    pull_number: int = Field(ge=1)
    base_commit: str = Field(default="", pattern=r"^(?:[0-9a-f]{40})?$")
    patch_digest: str = Field(default="", pattern=r"^(?:sha256:[0-9a-f]{64})?$")
    issue_signature: str = Field(default="", pattern=r"^(?:minhash1:\S+)?$")


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    format: str
    version: int
    name: str = Field(min_length=1)
    n_rows: int = Field(ge=1)
    n_published: int | None = None
    incomplete_repositories: list[Annotated[str, Field(pattern=_REPO)]] = []


@dataclass(frozen=True)
class ListId:
    """A benchmark list as it was in force."""

    name: str
    sha256: str
    n_rows: int


Index = Mapping[Hashable, tuple[Row, ...]]


@dataclass(frozen=True)
class BenchmarkList:
    """One list, whole. Its rows are found by (repository in lower case, number), base commit, digest and band."""

    id: ListId
    n_published: int
    incomplete_repositories: frozenset[str]  # in lower case
    rows: tuple[Row, ...] = field(repr=False)
    by_pull_request: Index = field(repr=False, compare=False)
    by_base_commit: Index = field(repr=False, compare=False)
    by_patch: Index = field(repr=False, compare=False)
    by_band: Index = field(repr=False, compare=False)

    @classmethod
    def load(cls, paths: Iterable[Path]) -> tuple[Self, ...]:
        """Every list in the order of its name, or none: raises UsageError for a missing, unreadable, empty or malformed
        one, for two of one name, and for no path at all."""
        lists = sorted((cls._read(path) for path in paths), key=lambda known: known.id.name)
        names = [known.id.name for known in lists]
        if not lists:
            raise UsageError("there is no benchmark list to compare with; install swefactory again")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"two benchmark lists are called {twice[0]!r}; give SWEFACTORY_BENCHMARKS one of them")
        return tuple(lists)

    @classmethod
    def _read(cls, path: Path) -> Self:
        try:
            content = path.read_bytes()
            header, rows = _parsed(content.decode())
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            return cls._indexed(header, digest, rows)
        except OSError as error:
            raise _unusable(path, f"it cannot be read ({error.strerror})") from error
        except (ValueError, UsageError) as error:  # pydantic's and json's errors are ValueErrors
            raise _unusable(path, _first_line(error)) from error

    @classmethod
    def _indexed(cls, header: _Header, digest: str, rows: tuple[Row, ...]) -> Self:
        return cls(
            ListId(header.name, digest, len(rows)),
            header.n_published or len(rows),
            frozenset(name.lower() for name in header.incomplete_repositories),
            rows,
            by_pull_request=_index(rows, lambda row: ((row.repo.lower(), row.pull_number),)),
            by_base_commit=_index(rows, lambda row: (row.base_commit,) if row.base_commit else ()),
            by_patch=_index(rows, lambda row: (row.patch_digest,) if row.patch_digest else ()),
            by_band=_index(rows, lambda row: bands(row.issue_signature)),
        )


@lru_cache(maxsize=4)
def load_lists(extra: str = "") -> tuple[BenchmarkList, ...]:
    """The lists that are delivered, and the ':'-separated files of the setting `benchmarks`; of these, one that has the
    name of a delivered list takes its place. Read once a process. Raises UsageError."""
    folder = Path(__file__).parent / "benchmarks"
    shipped = BenchmarkList.load(folder / f"{name}.jsonl" for name in SHIPPED)
    paths = [Path(path) for path in extra.split(":") if path]
    more = BenchmarkList.load(paths) if paths else ()
    taken = {known.id.name for known in more}
    lists = [*more, *(known for known in shipped if known.id.name not in taken)]
    return tuple(sorted(lists, key=lambda known: known.id.name))


def index_instances(path: Path, name: str) -> tuple[Row, ...]:
    """A row for each line of a SWE-bench-style JSONL file: `instance_id`, `repo`, `base_commit`, and where they are
    known `pull_number`, `patch` and `problem_statement`. Raises UsageError that names the line."""
    rows = []
    try:
        lines = [line for line in path.read_text().split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_indexed_row(json.loads(line), name))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}, line {number}, is no instance of a benchmark: {_first_line(error)}") from error
    return tuple(sorted(rows, key=lambda row: row.instance_id))


def write_list(
    path: Path, name: str, rows: Iterable[Row], *, n_published: int | None = None, incomplete: Iterable[str] = ()
) -> ListId:
    """Writes a list that `BenchmarkList.load` reads. Raises UsageError when it would not be one."""
    ordered = sorted(rows, key=lambda row: row.instance_id)
    head = {"format": _FORMAT, "version": _VERSION, "name": name, "n_rows": len(ordered), "n_published": n_published}
    try:
        header = _Header.model_validate(head | {"incomplete_repositories": sorted(incomplete)})
        dumped = [model.model_dump(exclude_defaults=True) for model in (header, *ordered)]
        text = "".join(f"{json.dumps(row, sort_keys=True)}\n" for row in dumped)
        _parsed(text)
        path.write_text(text)
    except (OSError, ValueError) as error:
        raise UsageError(f"the list {path} cannot be written: {_first_line(error)}") from error
    return ListId(name, f"sha256:{hashlib.sha256(text.encode()).hexdigest()}", len(ordered))


def _parsed(text: str) -> tuple[_Header, tuple[Row, ...]]:
    """Raises ValueError, whose first line says what is wrong and where."""
    head, *lines = text.removesuffix("\n").split("\n")
    if not head.strip():
        raise ValueError("it is empty")
    header = _Header.model_validate_json(head)
    if (header.format, header.version) != (_FORMAT, _VERSION):
        raise ValueError(f"it is {header.format} {header.version}, not {_FORMAT} {_VERSION}")
    rows = tuple(_row(number, line) for number, line in enumerate(lines, 2))
    if len(rows) != header.n_rows:
        raise ValueError(f"it has {len(rows)} rows, its header says {header.n_rows}")
    ids = [row.instance_id for row in rows]
    if ids != sorted(set(ids)):
        raise ValueError("its rows are not in the order of instance_id, each once")
    return header, rows


def _row(number: int, line: str) -> Row:
    try:
        row = Row.model_validate_json(line)
        bands(row.issue_signature)  # raises for a signature that is none
        return row
    except (ValidationError, UsageError) as error:
        raise ValueError(f"line {number}: {_first_line(error)}") from error


def _indexed_row(instance: Mapping[str, Any], name: str) -> Row:
    instance_id, number = instance["instance_id"], instance.get("pull_number")
    if number is None:
        found = _NUMBER.search(instance_id)
        if found is None:
            raise ValueError(f"it has no pull_number, and {instance_id!r} does not end with one")
        number = int(found[1])
    return Row(
        benchmark=name,
        instance_id=instance_id,
        repo=instance["repo"],
        pull_number=number,
        base_commit=instance.get("base_commit") or "",
        patch_digest=patch_digest(instance.get("patch") or ""),
        issue_signature=signature(instance.get("problem_statement") or ""),
    )


def _index(rows: Iterable[Row], keys: Callable[[Row], Iterable[Hashable]]) -> Index:
    found: dict[Hashable, list[Row]] = {}
    for row in rows:
        for key in keys(row):
            found.setdefault(key, []).append(row)
    return {key: tuple(known) for key, known in found.items()}


def _unusable(path: Path, why: str) -> UsageError:
    return UsageError(
        f"the benchmark list {path} cannot be used: {why}; nothing is mined without it. Correct the file or "
        "SWEFACTORY_BENCHMARKS, or install swefactory again if it is a delivered one"
    )


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg']}"
    return f"no {error}" if isinstance(error, KeyError) else str(error).split("\n")[0]
