"""The scripts that graders outside run: eval.sh for SWE-bench, test.sh for Harbor; their text is in images/.

One property: they restore what steers the tests, apply the test_patch and run the test files as a validation does, and
nothing in a patch or a file's name can end a quotation.
"""

import base64
import hashlib
import shlex
from collections.abc import Sequence
from functools import lru_cache

from swefactory.image_files import image_text
from swefactory.model_patches import protected_paths

START, END = ">>>>> Start Test Output", ">>>>> End Test Output"
_SPACING = {ord(c): None for c in "\t\n"}
_APPLY = "git apply --verbose --whitespace=nowarn -"


def eval_script(test_patch: str, test_files: Sequence[str]) -> str:
    """SWE-bench's eval_script: what it prints between its two markers is read by `parse_log_pytest`."""
    return _eval_script(test_patch, tuple(test_files))


@lru_cache(maxsize=1)  # whether an instance has one is asked right before its row is made
def _eval_script(test_patch: str, test_files: tuple[str, ...]) -> str:
    return _filled("swebench-eval.sh", test_patch, test_files, APPLY=_applied(test_patch))


def harbor_test(test_patch: str, test_files: Sequence[str]) -> str:
    """Harbor's tests/test.sh for a verifier of its own; test.patch and tests.json lie beside it."""
    return _filled("harbor-test.sh", test_patch, test_files)


def harbor_solve() -> str:
    """Harbor's solution/solve.sh; gold.patch lies beside it."""
    return image_text("harbor-solve.sh")


def _filled(name: str, test_patch: str, test_files: Sequence[str], **more: str) -> str:
    """A template of images/ with its @NAMES@ filled in, each once: what is filled in is not looked at again."""
    protected = [f":(top,literal){path}" for path in sorted(protected_paths(test_patch))]
    restore = image_text("restore-tests.sh").replace("@PROTECTED@", _words(protected))
    values = {"RESTORE": restore.rstrip("\n"), "FILES": _words(test_files), **more}
    first, *parts = image_text(name).split("@")
    # between two marks stands a name; every other @ of the template would be a slip and raises KeyError
    return first + "".join(values[part] if n % 2 == 0 else part for n, part in enumerate(parts))


def _words(words: Sequence[str]) -> str:
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    """A shell word in ASCII where need be: a name may hold any byte but NUL."""
    if word.isascii() and word.isprintable():
        return shlex.quote(word)
    data = word.encode("utf-8", "surrogateescape")
    plain = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-:(),")
    return "$'" + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in data) + "'"


def _applied(patch: str) -> str:
    """The patch in a here-document: as it is where a reader can see all of it, else in base64."""
    data = patch.encode("utf-8", "surrogateescape")
    mark = f"EOF_{hashlib.sha256(data).hexdigest()[:16]}"
    if _is_plain(patch, mark):
        return f"{_APPLY} <<'{mark}'\n{patch.removesuffix(chr(10))}\n{mark}"
    return f"base64 -d <<'{mark}' | {_APPLY}\n{base64.encodebytes(data).decode().rstrip()}\n{mark}"


def _is_plain(patch: str, mark: str) -> bool:
    """Whether it survives as text: harnesses split scripts into lines and look for the markers in them."""
    visible = patch.translate(_SPACING).isprintable()
    return visible and patch.endswith("\n") and not any(word in patch for word in (mark, START, END))
