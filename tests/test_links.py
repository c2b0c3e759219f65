"""Which issues a text says to close."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.enums import LinkSignal
from swefactory.changelogs import changelog_issues, is_changelog
from swefactory.links import closing_references, confidence, linked_issues, mentioned_issues

NAMES = {"acme/tool"}


@pytest.mark.parametrize(
    "text",
    [
        "Fixes #12",
        "fix #12",
        "FIXED: #12",
        "closes #12.",
        "Close #12, please",
        "(resolves #12)",
        "resolved GH-12",
        "This closes acme/tool#12",
        "closes Acme/Tool#12",
        "Fixes https://github.com/acme/tool/issues/12",
        "Fixes https://github.com/acme/tool/issues/12#issuecomment-1",
        "fixes [#12](https://github.com/acme/tool/issues/12)",
        "Fix issue #12",
        "closes\n#12",
        "- [x] closes **#12**",
        "> quoted\n\nfixes #12",
        "`code` fixes #12 `code`",
        "```\ncode\n```\nfixes #12",
    ],
)
def test_a_closing_keyword_before_a_reference_is_a_link(text: str) -> None:
    assert closing_references(text, NAMES) == (12,)


@pytest.mark.parametrize(
    "text",
    [
        "#12",
        "see #12",
        "like in #12 this fixes",
        "refs #12",
        "prefixes #12",
        "hot-fix #12",
        "fixes 12",
        "fixes #12th",
        "fixes #0",
        "fixes # 12",
        "fixes other/tool#12",
        "fixes https://github.com/other/tool/issues/12",
        "fixes https://github.com/acme/tool/pull/12",
        "fixes tool#12",
        "does not fix #12",
        "doesn't really fix #12",
        "This won't close #12",
        "`fixes #12`",
        "``fixes `x` #12``",
        "```\nfixes #12\n```",
        "~~~ python\nfixes #12",
        "````\n```\nfixes #12\n````",
        "<!-- fixes #12 -->",
        "<!-- fixes #12",
        "<code>fixes #12</code>",
        "> fixes #12",
        "~~fixes #12~~",
        "",
    ],
)
def test_anything_else_is_no_link(text: str) -> None:
    assert closing_references(text, NAMES) == ()


def test_numbers_come_once_each_in_the_order_of_the_text() -> None:
    assert closing_references("Fixes #9. Closes #3 and fixes #9.", NAMES) == (9, 3)


def test_a_renamed_repository_answers_to_both_names() -> None:
    assert closing_references("fixes old/name#5 and fixes acme/tool#6", {"acme/tool", "old/name"}) == (5, 6)


def test_signals_tell_where_a_link_was_said() -> None:
    found = linked_issues(NAMES, "Fix #1", "closes #1, closes #2", ["fixes #3", "nothing"])
    assert found == {
        1: {LinkSignal.KEYWORD_TITLE, LinkSignal.KEYWORD_BODY},
        2: {LinkSignal.KEYWORD_BODY},
        3: {LinkSignal.KEYWORD_COMMIT},
    }


def test_more_signals_are_surer_than_one_and_none_is_certain() -> None:
    every = {frozenset({signal}): confidence({signal}) for signal in LinkSignal}
    assert all(0.5 < value < 1 for value in every.values())
    assert confidence(set(LinkSignal)) > max(every.values())
    assert confidence(set(LinkSignal)) < 1


@given(st.text(alphabet="`~<>!-#12fixes \n*[]()/'", max_size=300))
def test_no_text_breaks_it(text: str) -> None:
    closing_references(text, NAMES)


@pytest.mark.parametrize(
    "text", ["a" * 65_000, "fix " * 16_000, "not" + " " * 65_000, "`" * 3 + "a`" * 30_000, "<!--" * 16_000]
)
def test_a_hostile_text_takes_no_time(text: str) -> None:
    started = time.perf_counter()
    assert closing_references(text, NAMES) == ()
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Fixes #1, #2 and #3.", (1, 2, 3)),
        ("Closes #1 and #2", (1, 2)),
        ("fixes #1, GH-2, acme/tool#3\nNext line #4", (1, 2, 3)),
        ("fixes [#1](https://github.com/acme/tool/issues/1), [#2](https://github.com/acme/tool/issues/2)", (1, 2)),
        ("fixes #1, other/tool#2", (1,)),
        ("Fixes #1, #2 comes later", (1,)),
        ("Fixes #1, see #2", (1,)),
        ("- ```\n  fixes #12\n  ```", ()),
    ],
)
def test_a_list_after_one_keyword_counts_where_the_sentence_ends_with_it(text: str, numbers: tuple[int, ...]) -> None:
    assert closing_references(text, NAMES) == numbers


def test_a_mention_is_any_number_of_this_repository() -> None:
    text = (
        "#1, GH-2, acme/tool#3, https://github.com/acme/tool/issues/4, x/y#5 &#6; a#7 `#8` https://x.org/x/y/issues/9"
    )
    assert mentioned_issues(text, NAMES) == {1, 2, 3, 4}


_WRAPPERS = ("```\n{}\n```", "~~~\n{}\n~~~", "<!-- {} -->", "`{}`", "> {}", "<code>{}</code>", "<pre>{}</pre>")


@given(
    st.sampled_from(_WRAPPERS),
    st.text(alphabet="abc ,.#", max_size=20),
    st.sampled_from(["fixes #12", "Closes GH-12, #13", "resolved https://github.com/acme/tool/issues/12"]),
)
def test_nothing_in_code_quotes_or_comments_is_a_link(wrapper: str, words: str, text: str) -> None:
    wrapped = f"Before.\n\n{wrapper.format(f'{words} {text}')}\n\nAfter."
    assert closing_references(wrapped, NAMES) == ()
    assert mentioned_issues(wrapped, NAMES) == frozenset()


def changelog(path: str, added: str = "", *, removed: str = "", state: str = "") -> str:
    lines = [f"-{line}" for line in removed.splitlines()] + [f"+{line}" for line in added.splitlines()]
    old = "/dev/null" if state == "new" else f"a/{path}"
    new = "/dev/null" if state == "deleted" else f"b/{path}"
    mode = f"{state} file mode 100644\n" if state else ""
    header = f"diff --git a/{path} b/{path}\n{mode}index 1..2\n--- {old}\n+++ {new}\n@@ -1 +1 @@\n"
    return header + "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ("- Fix. :issue:`12`", {12}),
        ("- Fix. {issue}`12` {pr}`13`", {12}),
        ("- Fix. :issue:`12, 13`, :issue:`#14`, :issue:`other/tool#15`", {12, 13, 14}),
        ("- Fix (#12, GH-13).", {12, 13}),
        ("- Fix ([#12](https://github.com/acme/tool/issues/12))", {12}),
        ("- Fix. `#12 <https://github.com/acme/tool/issues/12>`_", {12}),
        ("- Fix. `#12 <https://github.com/acme/tool/pull/12>`_", set()),
        ("- Fix ([#12](https://github.com/acme/tool/pull/12)), :pr:`13`, PR #14, by @ada in #15", set()),
        ("- Fix. https://github.com/other/tool/issues/12, other/tool#13, &#39;", set()),
        ("- " + ", ".join(f"#{number}" for number in range(1, 20)), set()),
    ],
)
def test_an_added_line_of_a_changelog_cites_its_issues(line: str, numbers: set[int]) -> None:
    assert changelog_issues(changelog("CHANGES.rst", line), NAMES) == numbers
    assert changelog_issues(changelog("CHANGES.rst", removed=line), NAMES) == frozenset()
    assert changelog_issues(changelog("CHANGES.rst", line, removed=line), NAMES) == frozenset()
    assert changelog_issues(changelog("src/code.py", line), NAMES) == frozenset()


@pytest.mark.parametrize(
    ("path", "numbers"),
    [
        ("newsfragments/123.bugfix.rst", {123}),
        ("changelog.d/123.change.md", {123}),
        ("changes/123.feature", {123}),
        ("docs/changelog/123.bugfix.2.rst", {123}),
        ("news/123.fix", {123}),
        ("newsfragments/+abc.rst", set()),
        ("docs/changes/2.7.rst", set()),
        ("news/2023.md", set()),
    ],
)
def test_a_new_fragment_is_named_after_its_issue(path: str, numbers: set[int]) -> None:
    assert is_changelog(path)
    assert changelog_issues(changelog(path, "Words.", state="new"), NAMES) == numbers
    assert changelog_issues(changelog(path, removed="Words.", state="deleted"), NAMES) == frozenset()


def test_a_release_that_collects_fragments_is_no_evidence() -> None:
    collected = changelog("CHANGES.rst", "- Words. (#123)") + changelog(
        "news/123.fix", removed="Words.", state="deleted"
    )
    assert changelog_issues(collected, NAMES) == frozenset()


@given(st.text(alphabet="diff --git a/CHANGES.rst b+-@#1:`pr issue\n", max_size=300))
def test_no_diff_breaks_it(text: str) -> None:
    changelog_issues(text, NAMES)
