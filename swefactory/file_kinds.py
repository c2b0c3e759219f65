"""What a file is for, by its path alone. One property: a pure function of the path, the same for every source.

Which file is a test's follows SWE-bench (a path with the word test, tests, e2e or testing), but by whole words and
with one exception: `testing` counts only at the top, as numpy/testing or click/testing.py are the product. Data of
tests is what lies in their folders, and what snapshot and recording tools write. What a name leaves open is decided
by the file's content, see `changed_tests`.
"""

import enum
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

_TEST_WORDS = frozenset(("test", "tests", "e2e"))
_TEST_FOLDERS = frozenset(("unittest", "unittests", "testcases", "testdata", "testfiles", "testsuite", "__snapshots__"))
_DATA_FOLDERS = frozenset(("cassettes", "golden", "goldens", "snapshots"))  # of tests unless they hold Python
_DATA_SUFFIXES = frozenset((".ambr", ".snap", ".golden"))
_DATA_NAME = re.compile(r".+\.(?:approved|received)\.\w+")  # approval tests: what they expect, what they got
_DOCS_FOLDERS = frozenset(("doc", "docs", "documentation", "changelog.d", "changes", "newsfragments", "news"))
_DOCS_SUFFIXES = frozenset((".md", ".rst", ".adoc", ".markdown"))
_DOCS_STEMS = frozenset((
    "authors", "changelog", "changes", "citation", "contributing", "contributors", "copying", "history", "licence",
    "license", "news", "notice", "readme", "release-notes", "thanks",
))  # fmt: skip
_PYTHON_SUFFIXES = frozenset((".py", ".pyx", ".pxd", ".pxi"))
_EXTENSION_SUFFIXES = frozenset((".c", ".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp", ".hxx"))
_MODULE = re.compile(r"[Tt]ests?(?:[_A-Z].*|\d*)|.+_tests?")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")


class FileKind(enum.StrEnum):
    """What a changed file is for."""

    TEST = "test"
    DOCS = "docs"
    SOURCE = "source"


def is_test_path(path: str) -> bool:
    """Whether a file belongs to the tests by its path: modules, conftest, helpers and data in their folders."""
    return is_conftest(path) or in_test_folder(path) or is_test_data(path) or is_named_as_test(path)


def is_conftest(path: str) -> bool:
    return PurePosixPath(path).name == "conftest.py"


def in_test_folder(path: str) -> bool:
    return test_folder(path) is not None


def test_folder(path: str) -> str | None:
    """The outermost folder above a file that is the tests' by its name."""
    folders = path.split("/")[:-1]
    for n, folder in enumerate(folders):
        if _is_test_folder(folder) or (n == 0 and "testing" in _words(folder)):
            return "/".join(folders[: n + 1])
    return None


def is_named_as_test(path: str) -> bool:
    """Whether the file's own name says that it is a test."""
    return bool(_words(PurePosixPath(path).stem) & _TEST_WORDS)


def is_test_data(path: str) -> bool:
    """Whether it is what a tool for snapshots, approvals or recordings of tests writes."""
    file = PurePosixPath(path)
    if is_python(path):
        return False
    is_in_folder = any(folder.lower() in _DATA_FOLDERS for folder in file.parts[:-1])
    return is_in_folder or file.suffix.lower() in _DATA_SUFFIXES or bool(_DATA_NAME.fullmatch(file.name))


def is_test_module(path: str) -> bool:
    """Whether pytest, told to run this file, could find tests in it by the usual names."""
    file = PurePosixPath(path)
    return file.suffix == ".py" and bool(_MODULE.fullmatch(file.stem))


def is_docs(path: str) -> bool:
    """Whether a file only explains: documentation folders, texts, changelogs, licences."""
    file = PurePosixPath(path)
    stem = file.name.split(".", 1)[0].lower()
    if any(folder.lower() in _DOCS_FOLDERS for folder in file.parts[:-1]):
        return not is_python(path) or file.parts[0].lower() in ("doc", "docs", "documentation")
    return file.suffix.lower() in _DOCS_SUFFIXES or (stem in _DOCS_STEMS and not is_python(path))


def is_python(path: str) -> bool:
    """Whether it is Python code that runs; stubs do not."""
    return PurePosixPath(path).suffix.lower() in _PYTHON_SUFFIXES


def is_extension_source(path: str) -> bool:
    """Whether an extension module is compiled from such a file; Cython's count as Python."""
    return PurePosixPath(path).suffix.lower() in _EXTENSION_SUFFIXES


def kind_of(path: str) -> FileKind:
    """What a file is for; a test in the docs folder is a test."""
    if is_test_path(path):
        return FileKind.TEST
    return FileKind.DOCS if is_docs(path) else FileKind.SOURCE


def touches_tests(paths: Iterable[str]) -> bool:
    return any(is_test_path(path) for path in paths)


def _is_test_folder(folder: str) -> bool:
    return bool(_words(folder) & _TEST_WORDS) or folder.lower() in _TEST_FOLDERS


def _words(name: str) -> set[str]:
    found = {word.lower() for word in _WORD.findall(name)}
    return found | {word.rstrip("0123456789") for word in found}
