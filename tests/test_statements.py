"""What a solver is told of an issue, and which issues say too little."""

from datetime import UTC, datetime, timedelta

import pytest

from db.enums import RejectReason
from swefactory.errors import Rejected
from swefactory.prose import n_words
from swefactory.statements import Comment, IssueText, Solution, Statement, statement

OPENED = datetime(2024, 3, 1, tzinfo=UTC)
FIRST_COMMIT, MERGED = OPENED + timedelta(days=2), OPENED + timedelta(days=9)
SHA = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
SOLUTION = Solution("acme/tool", 421, (SHA,), FIRST_COMMIT, MERGED, "")
BODY = "Parsing `1_000` raises ValueError in version 2.0, although Python itself reads such numbers.\n"


def issue(body: str = BODY, *comments: Comment, title: str = "Underscores", number: int = 400) -> IssueText:
    return IssueText(number, title, body, OPENED, comments)


def said(body: str, after: timedelta) -> Comment:
    return Comment(FIRST_COMMIT + after, body)


def made(*issues: IssueText, min_words: int = 10, solution: Solution = SOLUTION) -> Statement:
    return statement(issues, solution, min_words=min_words)


def reason(*issues: IssueText, min_words: int = 10, solution: Solution = SOLUTION) -> RejectReason:
    with pytest.raises(Rejected) as caught:
        statement(issues, solution, min_words=min_words)
    assert "acme/tool#421" in caught.value.detail
    return caught.value.reason


def test_titles_and_bodies_are_the_statement_and_earlier_comments_the_hints() -> None:
    second, moment = timedelta(seconds=1), timedelta(0)
    one = issue(BODY, said("late\r\n", second), said("at the commit", moment), said("second", -second))
    two = issue("More.", said("first", -2 * second), said("  ", -3 * second), title="Also", number=401)
    assert made(one, two) == Statement(f"Underscores\n{BODY}\nAlso\nMore.\n", "first\nsecond\n")


def test_without_a_first_commit_there_are_no_hints() -> None:
    solution = Solution("acme/tool", 421, (SHA,), None, MERGED, "")
    assert made(issue(BODY, said("early", -timedelta(days=1))), solution=solution).hints_text == ""


def test_what_was_stripped_is_told_by_text_and_rule() -> None:
    leaking = issue(f"{BODY}Fixed in #12\n", said(f"see {SHA[:8]}", -timedelta(days=1)))
    assert made(leaking) == Statement(
        f"Underscores\n{BODY}\n", "", ("hints_text:names_fixing_commit", "problem_statement:says_where_fixed")
    )


def test_too_few_words_are_rejected_and_counted_over_title_and_body() -> None:
    short = issue("It does not work.", title="Broken parser")
    assert reason(short, min_words=7) is RejectReason.STATEMENT_TOO_SHORT
    assert made(short, min_words=6).problem_statement == "Broken parser\nIt does not work.\n"


def test_words_that_only_a_leak_had_make_it_a_leak() -> None:
    leaking = issue("This is fixed in #12, thanks to all who helped us to find the cause.", title="Broken parser")
    assert reason(leaking) is RejectReason.STATEMENT_LEAKS_FIX


@pytest.mark.parametrize(
    "body",
    [
        "![screenshot](https://example.org/a.png)",
        '<img width="600" src="https://example.org/a.png">',
        "### Steps to reproduce\r\n\r\n- [x] I searched\r\n\r\n<!-- Describe\nit well -->\r\n![](https://e.org/a)\r\n",
        "https://example.org/a-forum-thread",
        "**Screenshots**\n\n_No response_\n\n<details><summary></summary>\n\n![a][b]\n</details>\n",
    ],
)
def test_images_links_and_templates_alone_say_nothing(body: str) -> None:
    title = "A title of more than ten words that alone would have been long enough to pass"
    assert reason(issue(body, title=title)) is RejectReason.STATEMENT_IMAGES_ONLY
    assert made(issue(f"{body}\n\nIt fails.", title=title)).stripped == ()


def test_code_and_tracebacks_are_words() -> None:
    assert n_words("```\nTraceback (most recent call last):\n  File 'a.py', line 1\n```") == 9
    assert (
        n_words("## Steps\n- [ ] one\n---\n<!-- two three -->\n![four](https://five.org)\n[six](https://seven.org)")
        == 1
    )


def test_issues_without_any_text_are_none() -> None:
    assert reason(issue(" ", title="")) is RejectReason.ISSUE_WITHOUT_TEXT
    assert made(issue(" ", title="", number=3), issue()).problem_statement == f"Underscores\n{BODY}\n"


def test_an_issue_that_was_opened_after_the_merge_is_left_out() -> None:
    late = IssueText(500, "After the fact", "Changelog entry for the fix", MERGED)
    assert reason(late) is RejectReason.ISSUE_OPENED_AFTER_MERGE
    assert made(late, issue()).problem_statement == f"Underscores\n{BODY}\n"
    unknown = Solution("acme/tool", 421, (), FIRST_COMMIT, None, "")
    assert made(late, min_words=3, solution=unknown).problem_statement.startswith("After")
