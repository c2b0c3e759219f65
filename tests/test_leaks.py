"""What tells the solution goes, line by line and block by block; nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swefactory.leaks import FixingPatch, Leaks, strip

SHA = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
PATCH = """\
diff --git a/src/tool/core.py b/src/tool/core.py
--- a/src/tool/core.py
+++ b/src/tool/core.py
@@ -1,4 +1,6 @@
 def parse(text, strict=False):
-    return int(text.strip())
+    cleaned = text.strip().replace("_", "")
+    return int(cleaned, base=detect_base(cleaned))
+    pass
     # the end
 import os
diff --git a/docs/changes.rst b/docs/changes.rst
--- a/docs/changes.rst
+++ b/docs/changes.rst
@@ -1 +1,2 @@
 Changes
+Parsing numbers with underscores works now
"""
LEAKS = Leaks("acme/tool", 421, (SHA,), FixingPatch.of(PATCH))
BEFORE, AFTER = "It fails on underscores.\n", "\nPlease help.\n"


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("See #421", "names_pull_request"),
        ("(GH-421)", "names_pull_request"),
        ("acme/tool#421 is open", "names_pull_request"),
        ("Acme/Tool#421 is open", "names_pull_request"),
        ("https://github.com/acme/tool/pull/421", "names_pull_request"),
        ("[this](https://github.com/ACME/tool/pull/421/files#diff-1)", "names_pull_request"),
        ("https://api.github.com/repos/acme/tool/pulls/421", "names_pull_request"),
        (f"try {SHA}", "names_fixing_commit"),
        (f"try {SHA[:7]}.", "names_fixing_commit"),
        (f"try {SHA[:12].upper()}", "names_fixing_commit"),
        (f"https://github.com/acme/tool/commit/{SHA}", "names_fixing_commit"),
        ("Fixed in #12", "says_where_fixed"),
        ("This is fixed by #12.", "says_where_fixed"),
        ("This has been fixed in abcdef0", "says_where_fixed"),
        ("It was already resolved in 2.1.0 via a backport", "says_where_fixed"),
        ("EDIT: fixed on main", "says_where_fixed"),
        ("**Update**: this was fixed in release 2.1", "says_where_fixed"),
        ("@ann this should be fixed in master now", "says_where_fixed"),
        ("Thanks! It's fixed in https://github.com/acme/tool/pull/12", "says_where_fixed"),
        ("- closed by acme/other#3", "says_where_fixed"),
        ("I would write return int(cleaned, base=detect_base( cleaned )) there", "quotes_fix"),
        ("and `cleaned = text.strip().replace('_', '')` helps", "quotes_fix"),
    ],
)
def test_a_line_that_tells_goes_and_its_neighbours_stay(line: str, rule: str) -> None:
    assert strip(f"{BEFORE}{line}\n{AFTER}", LEAKS) == (BEFORE + AFTER, {rule})


@pytest.mark.parametrize(
    "text",
    [
        "See #42 and #4210 and acme/tool#4211",
        "other/tool#421 and https://github.com/other/tool/pull/421",
        "https://example.org/#421 and color: &#421; and x#421",
        "version #421.5",
        "I thought this was fixed in #12, but it still fails",
        "Was this fixed in 2.1.0?",
        "It was supposed to be fixed in #12",
        "This isn't fixed in 2.1.0",
        "We run a version that fixed in place what others copy",
        "It happens in 2.1.0 with a commit of mine, abcdef0",
        f"{SHA[:6]} is too short, {SHA[1:9]} starts elsewhere, x{SHA[:9]} is a name",
        "`#421` is a color",
        "```python\nx = '#421'\n```",
        "```python\ndef parse(text, strict=False):\n    return int(text.strip())\n    pass\nimport os\n```",
        "parsing numbers with underscores works now in my fork",
        "    pass\n    pass\n",
    ],
)
def test_what_tells_nothing_stays(text: str) -> None:
    assert strip(text, LEAKS) == (text, frozenset())


@pytest.mark.parametrize(
    "block",
    [
        "```diff\n-    return int(text.strip())\n+    cleaned = text.strip().replace('_', '')\n```\n",
        "```suggestion\r\n\tcleaned = text.strip().replace( '_', '')\r\n```\r\n",
        "~~~ py\n# perhaps\nreturn int(cleaned, base=detect_base(cleaned))\n~~~\n",
        "> ```\n> return int(cleaned, base=detect_base(cleaned))\n> ```\n",
        "````\n```\nreturn int(cleaned, base=detect_base(cleaned))\n```\n````\n",
    ],
)
def test_a_block_that_holds_the_fix_goes_whole(block: str) -> None:
    assert strip(BEFORE + block + AFTER, LEAKS) == (BEFORE + AFTER, {"quotes_fix"})


def test_of_a_long_patch_one_line_in_a_code_block_is_chance() -> None:
    added = [f"value_{letter} = compute_{letter}(one, two)" for letter in "abcdefgh"]
    patch = "diff --git a/t.py b/t.py\n--- a/t.py\n+++ b/t.py\n@@ -0,0 +1,8 @@\n" + "".join(f"+{x}\n" for x in added)
    leaks = Leaks("acme/tool", 421, (), FixingPatch.of(patch))
    one, two = f"```\n{added[3]}\n```\n", f"```\n{added[3]}\n{added[5]}\n```\n"
    assert strip(one, leaks) == (one, frozenset())
    assert strip(two, leaks) == ("", {"quotes_fix"})


def test_lines_that_the_patch_moves_or_that_explain_are_none_of_the_fix() -> None:
    patch = PATCH.replace("-    return int(text.strip())", "-        return int(cleaned, base=detect_base(cleaned))")
    assert FixingPatch.of(patch).lines == {"cleaned=text.strip().replace('_','')"}


def test_a_number_that_counts_steps_names_no_pull_request() -> None:
    leaks = Leaks("acme/tool", 3, ())
    assert strip("Step #3\n", leaks) == ("Step #3\n", frozenset())
    assert strip("acme/tool#3\n", leaks) == ("", {"names_pull_request"})


WORDS = st.text(alphabet=st.characters(exclude_characters="#"), max_size=60)


@given(st.lists(WORDS | st.sampled_from(["```", "~~~py", "> ```", "", "\r", "#7", "## Steps", "\t"]), max_size=20))
def test_a_text_without_a_leak_comes_through_byte_for_byte(parts: list[str]) -> None:
    leaks = Leaks("acme/a-name-that-is-not-generated", 987654321, ("f" * 40,), FixingPatch(frozenset({"x" * 99})))
    for separator in ("\n", "\r\n", " "):
        text = separator.join(parts)
        assert strip(text, leaks) == (text, frozenset())


PARTS = [*"ab\n", "fixed in #12", "#421", f" {SHA} ", "```", "\n```diff\n", "```\n", "> "]


@given(st.lists(st.sampled_from(PARTS), max_size=30))
def test_what_is_left_is_a_part_of_the_text_and_has_no_leak(parts: list[str]) -> None:
    text = "".join(parts)
    left, rules = strip(text, LEAKS)
    rest = iter(text.split("\n"))
    assert all(line in rest for line in left.split("\n") if line), "lines were changed or swapped"
    assert bool(rules) == (left != text)
    assert SHA not in left
