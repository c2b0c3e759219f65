"""Patches and issue texts that are the same in other clothes, and those that are not."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swefactory.errors import UsageError
from swefactory.likeness import THRESHOLD, bands, patch_digest, signature, similarity
from swefactory.patch_lines import PatchLine, patch_lines


def section(path: str, *lines: str, old: str = "") -> str:
    n_new = sum(line[0] != "-" for line in lines)
    n_old = sum(line[0] != "+" for line in lines)
    names = f"diff --git a/{old or path} b/{path}\n--- a/{old or path}\n+++ b/{path}\n"
    return f"{names}@@ -1,{n_old} +1,{n_new} @@ def f():\n" + "".join(f"{line}\n" for line in lines)


ONE = section(
    "a.py", " def f(x):", "-    return compute(x, strict=True)", "+    return compute(x, strict=False, base=10)"
)
TWO = section("b.py", " kept = 1", "+another_value = one_function(1, 2, 3)")


def test_lines_are_told_by_the_counts_of_their_hunk() -> None:
    patch = section("a b.py", " x", "--- a/old", "+++ b/new", " ") + "\\ No newline at end of file\n" + TWO
    assert list(patch_lines(patch)) == [
        PatchLine("a b.py", " ", "x"), PatchLine("a b.py", "-", "-- a/old"), PatchLine("a b.py", "+", "++ b/new"),
        PatchLine("a b.py", " ", ""), PatchLine("b.py", " ", "kept = 1"),
        PatchLine("b.py", "+", "another_value = one_function(1, 2, 3)"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "same",
    [
        TWO + ONE,
        section("moved/a.py", " other context", *ONE.split("\n")[5:7]) + TWO,
        (ONE + TWO).replace("    ", "\t"),
        (ONE + TWO).replace("strict=True", "strict = True"),
        (ONE + TWO).replace("@@ -1,2 +1,2 @@", "@@ -91,2 +93,2 @@"),
        section("x.py", *ONE.split("\n")[4:7], "+", "+  ", old="a.py") + TWO,
    ],
)
def test_order_paths_context_and_whitespace_make_no_difference(same: str) -> None:
    assert patch_digest(ONE + TWO) == patch_digest(same) != ""


@pytest.mark.parametrize(
    "other", [ONE, ONE + TWO.replace("2, 3", "2, 4"), (ONE + TWO).replace("\n+    return", "\n     return"), TWO + TWO]
)
def test_another_change_has_another_digest(other: str) -> None:
    assert patch_digest(other) != patch_digest(ONE + TWO)


@pytest.mark.parametrize(
    "patch", ["", "GIT binary patch\nliteral 3\nKcmZ\n", section("setup.py", '-version="1.0"', '+version="1.1"')]
)
def test_what_changes_next_to_nothing_has_no_digest(patch: str) -> None:
    assert patch_digest(patch) == ""


def test_any_text_has_a_digest() -> None:
    assert patch_digest(section("a.txt", "+" + "\udcff\ud800\x00" * 20)).startswith("sha256:")


def words(seed: int, n: int) -> list[str]:
    source = random.Random(seed)
    return [f"word{source.randrange(5000)}" for _ in range(n)]


def test_the_estimate_is_as_near_to_the_truth_as_promised() -> None:
    errors = []
    for seed in range(40):
        text = words(seed, 300)
        changed = [f"other{at}" if at % 12 == seed % 12 and at < seed * 7 else word for at, word in enumerate(text)]
        triples = [{tuple(x[at : at + 3]) for at in range(298)} for x in (text, changed)]
        truth = len(triples[0] & triples[1]) / len(triples[0] | triples[1])
        errors.append(similarity(signature(" ".join(text)), signature(" ".join(changed))) - truth)
    assert max(map(abs, errors)) < 4 * 0.0625
    assert abs(sum(errors) / len(errors)) < 0.02


def test_near_duplicates_share_a_band_and_others_do_not() -> None:
    text = words(1, 200)
    near = [*text[:190], *words(2, 6), *text[196:]]
    one, other = signature(" ".join(text)), signature(" ".join(near).upper())
    assert similarity(one, other) >= THRESHOLD
    assert set(bands(one)) & set(bands(other))
    strangers = [signature(" ".join(words(seed, 200))) for seed in range(3, 200)]
    assert not any(set(bands(one)) & set(bands(stranger)) for stranger in strangers)
    assert max(similarity(one, stranger) for stranger in strangers) < 0.2


def test_a_signature_is_the_same_in_every_version() -> None:
    """Stored signatures are compared with new ones: other hash functions or permutations need another prefix."""
    assert signature(" ".join(f"w{n}" for n in range(40)))[:40] == "minhash1:SeG6B3U1KwB2mjsAxkhEDSdWYgPEM+0"


def test_comments_case_and_punctuation_do_not_count() -> None:
    text = "The parser fails on " + " ".join(words(1, 30))
    assert signature(f"<!-- a template --> {text.upper()}!") == signature(text) != ""
    assert signature("too short to say anything") == ""
    assert (bands(""), similarity("", signature(text))) == ((), 0.0)


@given(st.text(max_size=40))
def test_what_is_no_signature_is_refused(text: str) -> None:
    for broken in (f"minhash1:{text}", f"minhash2:{text}", "x" + text):
        with pytest.raises(UsageError, match="no issue signature"):
            bands(broken)
