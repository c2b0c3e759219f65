"""The GitHub source against a GitHub on loopback, well and unwell."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from db.models import LinkSignal, RejectReason
from swefactory.errors import InfrastructureError, Rejected, Transient, UsageError
from swefactory.protocols import PullRequestRecord
from swefactory.sources.github import GitHubSource
from swefactory.sources.payloads import storable
from tests.conftest import free_port
from tests.fake_github import Answer, FakeGitHub, answer, issue_node, node, serving

NAME = "acme/tool"
SECONDARY = {"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}
PRIMARY = {"message": "API rate limit exceeded for user ID 1."}


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with serving(FakeGitHub()) as fake:
        yield fake


def source(fake: FakeGitHub, token: str = "t0ken", page_size: int = 10) -> GitHubSource:
    return GitHubSource(fake.url, token, page_size=page_size, pause_s=0)


def every(fake: FakeGitHub, since: datetime | None = None, **more: int) -> list[PullRequestRecord]:
    return [pr for page in source(fake, **more).pages(NAME, since, None) for pr in page.pull_requests]  # type: ignore[arg-type]


def one(fake: FakeGitHub, **more: object) -> PullRequestRecord:
    fake.nodes = [node(9, **more)]
    [found] = every(fake)
    return found


def test_a_repository_tells_its_facts(github: FakeGitHub) -> None:
    record = source(github).repository(NAME)
    assert (record.name, record.license, record.n_stars, record.is_archived) == (NAME, "MIT", 7, True)
    assert (record.description, record.default_branch) == ("", "main")
    assert github.tokens == {"token t0ken"}


def test_a_renamed_repository_answers_with_its_present_name(github: FakeGitHub) -> None:
    assert source(github).repository("acme/old-tool").name == NAME


def test_a_pull_request_comes_with_all_that_a_candidate_needs(github: FakeGitHub) -> None:
    pr = one(github, closingIssuesReferences={"nodes": [issue_node(3)]})
    assert (pr.number, pr.author, pr.base_commit, pr.head_commit, pr.merge_commit) == (
        9,
        "ada",
        "b" * 40,
        "c" * 40,
        "d" * 40,
    )
    assert pr.first_commit_at == datetime(2024, 1, 2, tzinfo=UTC)
    assert (pr.files, pr.commit_messages) == (("src/x.py",), ("Fix",))
    [link] = pr.issues
    assert (link.issue.title, link.issue.body, link.signals) == ("Issue 3", "It breaks", {LinkSignal.CLOSING_REFERENCE})
    [comment] = link.issue.comments
    assert (comment.author, comment.body, comment.created_at.hour) == ("", "me too", 5)
    assert comment.edited_at == datetime(2024, 1, 9, tzinfo=UTC)


def test_pages_follow_each_other_and_stop_at_what_is_old(github: FakeGitHub) -> None:
    github.nodes = [node(number) for number in range(1, 8)]
    assert [pr.number for pr in every(github, page_size=2)] == [7, 6, 5, 4, 3, 2, 1]
    github.requests.clear()
    assert [pr.number for pr in every(github, datetime(2024, 3, 6, tzinfo=UTC), page_size=2)] == [7, 6]
    assert len(github.requests) == 2


def test_a_crawl_goes_on_at_its_cursor(github: FakeGitHub) -> None:
    github.nodes = [node(number) for number in range(1, 6)]
    first = next(source(github, page_size=2).pages(NAME, None, None))
    rest = [
        pr.number for page in source(github, page_size=2).pages(NAME, None, first.cursor) for pr in page.pull_requests
    ]
    assert rest == [3, 2, 1]


def test_a_cursor_kept_too_long_starts_over(github: FakeGitHub) -> None:
    github.nodes = [node(1)]
    assert [pr.number for page in source(github).pages(NAME, None, "stale") for pr in page.pull_requests] == [1]


def test_null_authors_bodies_and_missing_fields_are_accepted(github: FakeGitHub) -> None:
    holes = {
        "author": None,
        "body": None,
        "mergeCommit": None,
        "files": None,
        "commits": {"nodes": [None, {}]},
        "url": None,
    }
    hollow_issue = issue_node(3, author=None, body=None, comments=None, repository=None, createdAt=None)
    pr = one(github, **holes, closingIssuesReferences={"nodes": [None, hollow_issue]}, updatedAt=None)
    assert (pr.author, pr.body, pr.merge_commit, pr.files, pr.first_commit_at) == ("", "", "", (), None)
    assert pr.updated_at == pr.merged_at
    assert [link.issue.number for link in pr.issues] == [3]
    del github.nodes[0]["title"], github.nodes[0]["closingIssuesReferences"]
    assert every(github)[0].issues == ()


def test_issues_of_other_repositories_are_no_problem_of_this_one(github: FakeGitHub) -> None:
    other = issue_node(3, repository={"nameWithOwner": "acme/other"})
    assert one(github, closingIssuesReferences={"nodes": [other]}).issues == ()


def test_an_issue_only_said_is_read_by_rest_once(github: FakeGitHub) -> None:
    github.issues[5] = {
        "number": 5,
        "title": "Said",
        "body": None,
        "user": None,
        "created_at": "2024-01-01T00:00:00Z",
        "comments": 1,
    }
    github.comments[5] = [{"body": "hm", "created_at": "2024-01-01T00:00:00Z", "user": {"login": "eve"}}]
    github.nodes = [node(8, body="Fixes #5"), node(9, title="Fix #5")]
    newest, oldest = every(github)
    assert [link.issue.title for link in newest.issues + oldest.issues] == ["Said", "Said"]
    assert newest.issues[0].signals == {LinkSignal.KEYWORD_TITLE}
    assert newest.issues[0].issue.comments[0].author == "eve"
    assert [path.partition("?")[0] for _, path in github.requests[1:]] == [
        "/repos/acme/tool/issues/5",
        "/repos/acme/tool/issues/5/comments",
    ]


def test_signals_of_one_link_are_joined(github: FakeGitHub) -> None:
    pr = one(github, body="closes #3", closingIssuesReferences={"nodes": [issue_node(3)]})
    assert pr.issues[0].signals == {LinkSignal.CLOSING_REFERENCE, LinkSignal.KEYWORD_BODY}
    assert len(github.requests) == 1


def test_a_number_that_is_a_pull_request_is_no_link_and_a_lost_issue_one_without_text(github: FakeGitHub) -> None:
    github.issues[5] = {"number": 5, "title": "A pull request", "pull_request": {"url": ""}}
    github.issues[7] = {"number": 70, "title": "transferred"}
    pr = one(github, body="Fixes #5, fixes #6, fixes #7 and fixes #9")
    assert [(link.issue.number, link.issue.title) for link in pr.issues] == [(6, ""), (7, "")]


@pytest.mark.parametrize(
    "fault", [(200, {}, b"<html>Sign in</html>"), (200, {}, b""), (502, {}, b""), answer(SECONDARY, 403)]
)
def test_an_outage_while_reading_an_issue_does_not_empty_it(github: FakeGitHub, fault: Answer) -> None:
    github.issues[5] = {"number": 5, "title": "Said"}
    github.nodes = [node(9, body="Fixes #5")]
    served = github.answer

    def unwell(method: str, path: str, body: bytes) -> Answer | None:
        return fault if "/issues/" in path else served(method, path, body)

    github.answer = unwell  # type: ignore[method-assign]
    with pytest.raises(Transient, match=NAME):
        every(github)


def test_no_text_reaches_the_catalog_that_it_cannot_store(github: FakeGitHub) -> None:
    pr = one(github, title="a\0b\ud83d", body="\ud83d\ude00")
    assert (pr.title, pr.body) == ("ab\ufffd", "😀")
    assert storable("plain é 😀") == "plain é 😀"


@pytest.mark.parametrize(
    ("fault", "wait_s"),
    [
        (answer(SECONDARY, 403, Retry_After="17"), 17),
        (answer(SECONDARY, 429, Retry_After="17"), 17),
        (answer(SECONDARY, 403), 60),
        (answer({}, 403, X_RateLimit_Remaining="0", X_RateLimit_Reset="1"), 1),
        (answer({"message": "Server Error"}, 500), 30),
        (answer({"message": "Server Error"}, 503), 30),
        ((502, {"Content-Type": "text/html"}, b"<html>502 Bad Gateway</html>"), 30),
        ((200, {}, b'{"full_name": "acme/to'), 30),
        ((200, {"Content-Length": "99"}, b'{"full_name": "acme/to'), 30),
        ((200, {}, b""), 30),
        ((200, {"Content-Type": "text/html"}, b"<html>Sign in to this hotel</html>"), 30),
        (answer([1, 2]), 30),
        (None, 30),
    ],
)
@pytest.mark.parametrize("call", ["repository", "pages"])
def test_a_limit_or_an_outage_means_later_and_never_sleeps(
    github: FakeGitHub, fault: Answer | None, wait_s: float, call: str
) -> None:
    github.faults = [fault] * 3
    started = time.monotonic()
    with pytest.raises(Transient, match=NAME) as caught:
        _ = source(github).repository(NAME) if call == "repository" else next(source(github).pages(NAME, None, None))
    assert caught.value.retry_after_s == pytest.approx(wait_s, abs=5)
    assert time.monotonic() - started < 10, "three refusals are answered at once, no wait is slept through"


def test_a_primary_limit_waits_until_githubs_own_reset(github: FakeGitHub) -> None:
    reset_at = str(int(time.time()) + 900)
    github.faults = [answer(PRIMARY, 403, X_RateLimit_Remaining="0", X_RateLimit_Reset=reset_at)] * 3
    with pytest.raises(Transient, match=NAME) as caught:
        source(github).repository(NAME)
    assert caught.value.retry_after_s == pytest.approx(900, abs=30)


@pytest.mark.parametrize(
    "errors",
    [
        [{"type": "RATE_LIMITED", "message": "API rate limit exceeded"}],
        [{"message": "Something went wrong while executing"}],
    ],
)
def test_graphql_complaints_mean_later(github: FakeGitHub, errors: list[dict[str, str]]) -> None:
    github.faults = [answer({"data": None, "errors": errors})] * 3
    with pytest.raises(Transient, match=NAME):
        every(github)


def test_a_page_too_big_for_github_is_asked_for_in_smaller_parts(github: FakeGitHub) -> None:
    github.nodes = [node(number) for number in range(1, 4)]
    github.faults = [answer({"message": "timeout"}, 502), answer({"errors": [{"message": "Something went wrong"}]})]
    assert [pr.number for pr in every(github)] == [3, 2, 1]
    assert github.sizes == [10, 2, 1, 10]


def test_part_of_an_answer_is_taken_when_one_field_failed(github: FakeGitHub) -> None:
    page = {"nodes": [node(1), None], "pageInfo": {"hasNextPage": False, "endCursor": None}}
    data = {"repository": {"nameWithOwner": NAME, "pullRequests": page}}
    github.faults = [answer({"data": data, "errors": [{"type": "NOT_FOUND", "message": "a deleted issue"}]})]
    assert [pr.number for pr in every(github)] == [1]


def test_a_query_that_the_server_does_not_understand_is_our_fault(github: FakeGitHub) -> None:
    github.faults = [answer({"errors": [{"message": "Field 'files' doesn't exist on type 'PullRequest'"}]})]
    with pytest.raises(InfrastructureError, match="Field 'files'"):
        every(github)


def test_a_wrong_token_says_what_to_set(github: FakeGitHub) -> None:
    for call in ("repository", "pages"):
        github.faults = [answer({"message": "Bad credentials"}, 401)]
        with pytest.raises(UsageError, match="SWEFACTORY_GITHUB_TOKEN") as caught:
            _ = source(github).repository(NAME) if call == "repository" else every(github)
        assert "t0ken" not in str(caught.value)


def test_without_a_token_none_is_sent_and_a_limit_of_nothing_asks_for_one(github: FakeGitHub) -> None:
    assert source(github, token="").repository(NAME).name == NAME
    assert github.tokens == {None}
    github.faults = [answer(PRIMARY, 403, X_RateLimit_Limit="0", X_RateLimit_Remaining="0")]
    with pytest.raises(UsageError, match="wants a token"):
        next(source(github, token="").pages(NAME, None, None))


@pytest.mark.parametrize(
    "fault",
    [
        None,
        answer({"message": "Not Found"}, 404),
        answer({"message": "Repository access blocked"}, 451),
        answer({"message": "Resource not accessible by personal access token"}, 403),
    ],
)
def test_an_unknown_or_forbidden_repository_is_a_verdict(github: FakeGitHub, fault: Answer | None) -> None:
    api = source(github)
    for call in (api.repository, lambda name: next(api.pages(name, None, None))):
        github.faults = [fault] if fault else []
        with pytest.raises(Rejected, match="acme/nothing") as caught:
            call("acme/nothing")
        assert caught.value.reason is RejectReason.REPOSITORY_NOT_FOUND


def test_a_server_that_is_not_there_means_later() -> None:
    with pytest.raises(Transient, match="acme/tool"):
        GitHubSource(f"http://127.0.0.1:{free_port()}", "t", pause_s=0).repository(NAME)


@pytest.mark.parametrize(
    ("path", "graphql"), [("", "/graphql"), ("/api/v3", "/api/graphql"), ("/api/v3/", "/api/graphql")]
)
def test_graphql_is_beside_rest_where_github_puts_it(github: FakeGitHub, path: str, graphql: str) -> None:
    github.nodes = [node(1)]
    api = GitHubSource(github.url + path, "t", pause_s=0)
    assert api.repository(NAME).name == NAME
    assert len(next(api.pages(NAME, None, None)).pull_requests) == 1
    assert github.requests == [("GET", f"{path.rstrip('/')}/repos/acme/tool"), ("POST", graphql)]
