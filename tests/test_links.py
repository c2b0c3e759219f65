"""Which issues a text says to close."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.models import LinkSignal
from swefactory.links import closing_references, confidence, linked_issues

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
