"""When two patches or two issue texts are the same. One property: what is stored compares in any later version.

    patch_digest   sha256:…      of the lines added and removed, without whitespace; files in any order, paths left out
    signature      minhash1:…    64 MinHash values of the text's three-word shingles, base64
    bands          (0, 9f…) …    12 keys of 5 values each: two texts to compare share one of them

Estimated similarity has a standard error of at most 0.0625, of 0.05 at the threshold of 0.8. Texts that similar share a
band with a probability of 0.99, texts of a similarity of 0.1 with one of 0.0001, so that a catalog of 100,000 instances
yields about a dozen to compare. Pure.
"""

import base64
import hashlib
import re
import struct

from swefactory.errors import UsageError
from swefactory.patch_lines import patch_lines

THRESHOLD = 0.8
_N_PERMUTATIONS, _N_BANDS, _N_ROWS = 64, 12, 5
_SHINGLE_WORDS = 3
_FEWEST_WORDS = 20  # below, a text is a title or a template's remains, and two that agree need not be one issue
_LEAST_CHANGE = 40  # characters: "x = 1" for "x = 2", or a version number, is changed alike in many repositories
_PREFIX = "minhash1:"
_PACKED = struct.Struct(f"<{_N_PERMUTATIONS}I")

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_WORD = re.compile(r"\w+")


def patch_digest(patch: str) -> str:
    """sha256:… of what a patch changes; "" where it changes too little text to be told from another."""
    files: dict[str, list[str]] = {}
    for line in patch_lines(patch):
        text = "".join(line.text.split())
        if line.sign != " " and text:
            files.setdefault(line.path, []).append(line.sign + text)
    if sum(len(text) - 1 for lines in files.values() for text in lines) < _LEAST_CHANGE:
        return ""
    parts = sorted(_sha256("\n".join(lines)) for lines in files.values())
    return f"sha256:{_sha256(' '.join(parts))}"


def signature(text: str) -> str:
    """The MinHash of an issue text in storable form; "" for a text too short to compare."""
    # Imported late: it brings scipy along, which costs more than the whole command line.
    from datasketch import MinHash

    words = _WORD.findall(_COMMENT.sub(" ", text).lower())
    if len(words) < _FEWEST_WORDS:
        return ""
    shingles = {" ".join(words[at : at + _SHINGLE_WORDS]) for at in range(len(words) - _SHINGLE_WORDS + 1)}
    minhash = MinHash(num_perm=_N_PERMUTATIONS, seed=1)
    minhash.update_batch([shingle.encode() for shingle in sorted(shingles)])
    return _PREFIX + base64.b64encode(_PACKED.pack(*(int(value) for value in minhash.hashvalues))).decode()


def bands(issue_signature: str) -> tuple[tuple[int, str], ...]:
    """(band, digest) keys to look near-duplicates up by; none for "". Raises UsageError for what is no signature."""
    if not issue_signature:
        return ()
    values = _values(issue_signature)
    rows = [values[band * _N_ROWS : (band + 1) * _N_ROWS] for band in range(_N_BANDS)]
    return tuple((band, _sha256(" ".join(map(str, row)))[:16]) for band, row in enumerate(rows))


def similarity(one: str, other: str) -> float:
    """The estimated Jaccard similarity of the two texts' shingles, 0..1; 0 where one has no signature."""
    if not one or not other:
        return 0.0
    pairs = zip(_values(one), _values(other), strict=True)
    return sum(a == b for a, b in pairs) / _N_PERMUTATIONS


def _values(issue_signature: str) -> tuple[int, ...]:
    try:
        if not issue_signature.startswith(_PREFIX):
            raise ValueError(f"it does not start with {_PREFIX}")
        return _PACKED.unpack(base64.b64decode(issue_signature.removeprefix(_PREFIX), validate=True))
    except (ValueError, struct.error) as error:
        raise UsageError(f"{issue_signature[:24]!r}… is no issue signature of this version: {error}") from error


def _sha256(text: str) -> str:
    """Of any text: what was no UTF-8 stands in it as surrogates."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
