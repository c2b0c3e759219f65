"""Task instances as others publish them: lines of JSON in SWE-bench's fields, read one by one. One property: a line is
an instance that can be stored and run, or is refused with a sentence; nothing in it ends the reading.

    instance_id  repo  base_commit  patch  test_patch  FAIL_TO_PASS  PASS_TO_PASS          needed; lists or their JSON
    problem_statement  hints_text  version  environment_setup_commit  created_at  license  taken where they are there,
    pull_number  pr_url  issue_url  issue_numbers  test_files  statement_strips            and null counts as absent

An id ends in its pull request's number, or `pull_number` or `pr_url` says it. ␠ in a test's id is the space that our
exports write so. A patch that lacks its last line end gets it. Files to run are `test_files`, else the test modules of
the test_patch and the files that the lists' ids name. Pure.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from swefactory import model_patches, patches
from swefactory.changed_tests import Surroundings, changed_tests
from swefactory.exports.test_names import original
from swefactory.repository_names import is_name

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")  # it names folders
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_LAST_NUMBER = re.compile(r"-(\d{1,9})$")
_PULL, _ISSUE = (re.compile(rf"/{kind}/(\d{{1,9}})(?:[/?#]|$)") for kind in ("pull", "issues"))
_UNKNOWN_DAY = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_NUMBER = 2**31 - 1  # what the catalog's columns hold


class Unusable(ValueError):
    """Why a line is no instance that could be stored and run."""


@dataclass(frozen=True)
class Published:
    """One instance; texts are what a database keeps, lists are without doubles and in their order."""

    instance_id: str
    repository: str
    number: int
    base_commit: str
    patch: str
    test_patch: str
    test_files: tuple[str, ...]
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    problem_statement: str
    hints_text: str
    version: str
    environment_setup_commit: str
    created_at: datetime  # 1970 where the row names no day
    license: str
    url: str
    issues: tuple[tuple[int, str], ...]  # number, address
    statement_strips: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """What stands in one line of the file: an instance, or why there is none (`instance_id` where it could be read)."""

    number: int
    instance_id: str
    found: Published | Unusable


def read(lines: Iterable[bytes]) -> Iterator[Line]:
    """Every line that is not empty."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _line(number, line)


def _line(number: int, line: bytes) -> Line:
    instance_id = ""
    try:
        row = _object(line)
        told = row.get("instance_id")
        instance_id = told if isinstance(told, str) else ""
        return Line(number, instance_id, published(row))
    except Unusable as why:
        return Line(number, instance_id, why)


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Unusable(f"it is no line of JSON: {error}") from error
    if not isinstance(row, dict):
        raise Unusable("it is no JSON object")
    return row


def published(row: Mapping[str, Any]) -> Published:
    """The instance that a row of JSON values holds. Raises Unusable."""
    instance_id, repository, base_commit = _text(row, "instance_id"), _text(row, "repo"), _text(row, "base_commit")
    if not _ID.fullmatch(instance_id):
        raise Unusable(f"instance_id {instance_id[:80]!r} cannot name a folder")
    if not is_name(repository):
        raise Unusable(f"repo {repository[:80]!r} is no owner/name")
    if not _COMMIT.fullmatch(base_commit):
        raise Unusable(f"base_commit {base_commit[:80]!r} is no whole commit id")
    patch, test_patch = _patch(row, "patch"), _patch(row, "test_patch")
    fail_to_pass, pass_to_pass = _tests(row, "FAIL_TO_PASS"), _tests(row, "PASS_TO_PASS")
    if not fail_to_pass:
        raise Unusable("FAIL_TO_PASS is empty: nothing would prove a fix")
    if both := sorted({*fail_to_pass} & {*pass_to_pass}):
        raise Unusable(f"{both[0]!r} is in FAIL_TO_PASS and in PASS_TO_PASS")
    return Published(
        instance_id=instance_id,
        repository=repository,
        number=_number(row, instance_id),
        base_commit=base_commit,
        patch=patch,
        test_patch=test_patch,
        test_files=_test_files(row, test_patch, (*fail_to_pass, *pass_to_pass)),
        fail_to_pass=fail_to_pass,
        pass_to_pass=pass_to_pass,
        problem_statement=_text(row, "problem_statement", needed=False),
        hints_text=_text(row, "hints_text", needed=False),
        version=_text(row, "version", needed=False),
        environment_setup_commit=_text(row, "environment_setup_commit", needed=False),
        created_at=_time(row.get("created_at")),
        license=_text(row, "license", needed=False) or _text(row, "license_name", needed=False),
        url=_text(row, "pr_url", needed=False),
        issues=_issues(row, repository),
        statement_strips=_texts(row, "statement_strips"),
    )


# ---------------------------------------------------------------- fields


def _text(row: Mapping[str, Any], name: str, *, needed: bool = True) -> str:
    value = row.get(name)
    if value is None and not needed:
        return ""
    if not isinstance(value, str):
        raise Unusable(f"{name} is {'absent' if value is None else f'no text but {type(value).__name__}'}")
    if needed and not value.strip():
        raise Unusable(f"{name} is empty")
    return _storable(name, value)


def _storable(name: str, value: str) -> str:
    """NUL and lone surrogates are what no database keeps as text."""
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise Unusable(f"{name} holds what is no text: NUL or half a character")
    return value


def _texts(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list of texts, or one as JSON in a text; without doubles."""
    value = row.get(name)
    if value is None:
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Unusable(f"{name} is a text and no JSON: {error}") from error
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Unusable(f"{name} is no list of texts")
    return tuple(dict.fromkeys(_storable(name, each) for each in value))


def _tests(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    if row.get(name) is None:
        raise Unusable(f"{name} is absent")
    found = _texts(row, name)
    if not all(word.strip() for word in found):
        raise Unusable(f"{name} holds an empty id")
    return tuple(dict.fromkeys(original(word) for word in found))


def _patch(row: Mapping[str, Any], name: str) -> str:
    text = _text(row, name)
    text = text if text.endswith("\n") else text + "\n"
    try:
        patches.file_changes(text)
        list(model_patches.changes(text))
    except (patches.PatchUnreadable, model_patches.PatchUnreadable) as error:
        raise Unusable(f"{name} does not parse: {error}") from error
    return text


def _number(row: Mapping[str, Any], instance_id: str) -> int:
    told = row.get("pull_number")
    if isinstance(told, int) and not isinstance(told, bool):
        number = told
    else:
        found = _PULL.search(_text(row, "pr_url", needed=False)) or _LAST_NUMBER.search(instance_id)
        if found is None:
            raise Unusable("its pull request cannot be told: the id does not end in -NUMBER; give pull_number")
        number = int(found[1])
    if not 0 < number <= _MOST_NUMBER:
        raise Unusable(f"{number} is no pull request's number")
    return number


def _time(value: object) -> datetime:
    """ISO 8601 or milliseconds since 1970."""
    if value is None:
        return _UNKNOWN_DAY
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000, UTC)
        found = datetime.fromisoformat(str(value))
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise Unusable(f"created_at {str(value)[:40]!r} is no time") from error


def _issues(row: Mapping[str, Any], repository: str) -> tuple[tuple[int, str], ...]:
    """Of the same repository, by number."""
    address = _text(row, "issue_url", needed=False)
    told = row.get("issue_numbers")
    found = {n: "" for n in told if isinstance(n, int) and 0 < n <= _MOST_NUMBER} if isinstance(told, list) else {}
    match = _ISSUE.search(address)
    if match and f"/{repository.lower()}/issues/" in address.lower() and 0 < int(match[1]) <= _MOST_NUMBER:
        found[int(match[1])] = address
    return tuple(sorted(found.items()))


def _test_files(row: Mapping[str, Any], test_patch: str, test_ids: Iterable[str]) -> tuple[str, ...]:
    found = set(_texts(row, "test_files"))
    if not found:
        found = set(changed_tests(patches.file_changes(test_patch), {}, Surroundings()).modules)
        found |= {file for test_id in test_ids if (file := test_id.partition("::")[0]).endswith(".py")}
    for path in found:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or path.startswith("-"):
            raise Unusable(f"the test file {path[:80]!r} is not below the repository's root")
    if not found:
        raise Unusable("no test module is known: none is in test_patch, and no test's id names its file")
    return tuple(sorted(found))
