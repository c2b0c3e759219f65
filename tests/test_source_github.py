"""The GitHub source against a GitHub on loopback, well and unwell."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from db.enums import LinkSignal, RejectReason
from swefactory.errors import InfrastructureError, Rejected, Transient, UsageError
from swefactory.protocols import ApiUsage, PullRequestRecord
from swefactory.sources.github import GitHubSource
from swefactory.sources.payloads import storable
from tests.conftest import free_port
from tests.fake_github import (
    Answer,
    FakeGitHub,
    MemoryAnswers,
    MemoryQuotas,
    answer,
    closed_by,
    closes,
    comment,
    commit,
    github_source,
    issue_node,
    node,
    serving,
)

NAME = "acme/tool"
SECONDARY = {"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}
PRIMARY = {"message": "API rate limit exceeded for user ID 1."}


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with serving(FakeGitHub()) as fake:
        yield fake


def source(fake: FakeGitHub, token: str = "t0ken", page_size: int = 10) -> GitHubSource:
    return github_source(fake.url, token, page_size=page_size)


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
    github.issues[3] = issue_node(3)
    pr = one(github, closingIssuesReferences=[closes(3)])
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
    assert [path for method, path in github.requests if method == "POST"] == ["/graphql"] * 2


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
        "commits": [{"commit": None}],
        "url": None,
    }
    github.issues[3] = issue_node(3, author=None, body=None, comments=None, repository=None, createdAt=None)
    github.issues[3]["timelineItems"] = None
    hollow = {"number": 3, "repository": None}
    pr = one(github, **holes, closingIssuesReferences=[hollow], updatedAt=None)
    assert (pr.author, pr.body, pr.merge_commit, pr.files, pr.first_commit_at) == ("", "", "", (), None)
    assert pr.updated_at == pr.merged_at
    assert [link.issue.number for link in pr.issues] == [3]
    github.nodes[0].update(title=None, closingIssuesReferences=None)
    assert every(github)[0].issues == ()


def test_issues_of_other_repositories_are_no_problem_of_this_one(github: FakeGitHub) -> None:
    github.issues[3] = issue_node(3)
    assert one(github, closingIssuesReferences=[closes(3, "acme/other")]).issues == ()


def test_the_issues_of_a_page_are_read_by_one_query(github: FakeGitHub) -> None:
    github.issues[5] = issue_node(5, title="Said", body=None, author=None)
    github.nodes = [node(8, body="Fixes #5"), node(9, title="Fix #5")]
    newest, oldest = every(github)
    assert [link.issue.title for link in newest.issues + oldest.issues] == ["Said", "Said"]
    assert (newest.issues[0].signals, oldest.issues[0].signals) == (
        {LinkSignal.KEYWORD_TITLE},
        {LinkSignal.KEYWORD_BODY},
    )
    assert [method for method, _ in github.requests] == ["GET", "POST", "POST"]


def test_signals_of_one_link_are_joined(github: FakeGitHub) -> None:
    github.issues[3] = issue_node(3)
    pr = one(github, body="closes #3", closingIssuesReferences=[closes(3)])
    assert pr.issues[0].signals == {LinkSignal.CLOSING_REFERENCE, LinkSignal.KEYWORD_BODY}


def test_a_number_that_is_a_pull_request_is_no_link_and_a_lost_issue_one_without_text(github: FakeGitHub) -> None:
    github.issues[7] = issue_node(7, repository={"nameWithOwner": "acme/other"})
    github.nodes = [node(5, body="Fixes #4"), node(9, body="Fixes #5, fixes #6, fixes #7 and fixes #9")]
    newest = every(github)[0]
    assert [(link.issue.number, link.issue.title) for link in newest.issues] == [(6, ""), (7, "")]


def test_a_mention_is_a_link_when_the_pull_request_or_its_commits_closed_the_issue(github: FakeGitHub) -> None:
    ours = {"nameWithOwner": "acme/tool"}
    github.issues = {
        1: issue_node(1, timelineItems=[closed_by(number=9, repository=ours)]),
        2: issue_node(2, timelineItems=[closed_by(oid="c" * 40)]),
        3: issue_node(3, timelineItems=[closed_by(oid="d" * 40)]),
        4: issue_node(4, timelineItems=[closed_by(number=8, repository=ours)]),
        5: issue_node(5, timelineItems=[closed_by(number=9, repository={"nameWithOwner": "acme/other"})]),
        6: issue_node(6, timelineItems=[{"__typename": "ClosedEvent", "closer": None}]),
    }
    pr = one(github, body="See #1, #2, #3, #4, #5 and #6")
    assert {link.issue.number: link.signals for link in pr.issues} == {n: {LinkSignal.CLOSER} for n in (1, 2, 3)}


def test_a_list_of_many_numbers_is_no_reason_to_read_them_all(github: FakeGitHub) -> None:
    one(github, body="Release: " + ", ".join(f"#{number}" for number in range(100, 130)))
    assert [method for method, _ in github.requests] == ["GET", "POST"]


def test_changelog_entries_are_evidence(github: FakeGitHub) -> None:
    github.issues[3] = issue_node(3)
    github.nodes = [node(8), node(9)]
    asked: list[list[int]] = []

    def cited(records: Sequence[PullRequestRecord]) -> dict[int, frozenset[int]]:
        asked.append([record.number for record in records])
        return {9: frozenset({3, 8})}

    [page] = source(github).pages(NAME, None, None, cited=cited)
    assert asked == [[9, 8]]
    assert [(link.issue.number, link.signals) for link in page.pull_requests[0].issues] == [(3, {LinkSignal.CHANGELOG})]


def test_files_commits_and_comments_beyond_the_first_hundred_are_read_too(github: FakeGitHub) -> None:
    github.page_limit = 2
    github.issues[3] = issue_node(3, comments=[comment(f"{hour}", f"2024-01-01T0{hour}:00:00Z") for hour in range(5)])
    files = [{"path": f"src/{letter}.py"} for letter in "abcde"]
    commits = [commit("one"), commit("two"), commit("Fixes #3", "e" * 40)]
    pr = one(github, files=files, commits=commits)
    assert pr.files == tuple(f"src/{letter}.py" for letter in "abcde")
    assert pr.commit_messages == ("one", "two", "Fixes #3")
    assert [found.body for found in pr.issues[0].issue.comments] == ["0", "1", "2", "3", "4"]


def test_pull_requests_are_hydrated_by_number(github: FakeGitHub) -> None:
    github.nodes = [node(number) for number in range(1, 8)]
    github.issues[20] = issue_node(20)
    api = source(github, page_size=2)
    pages = list(api.pages(NAME, None, None, numbers=[2, 4, 6, 20, 99]))
    assert [[pr.number for pr in page.pull_requests] for page in pages] == [[2, 4], [6], []]
    assert [page.cursor for page in pages] == ["2", "4", None]
    [last] = api.pages(NAME, None, "4", numbers=[2, 4, 6, 20, 1])
    assert [pr.number for pr in last.pull_requests] == [1]


def test_a_repository_that_has_not_changed_costs_nothing(github: FakeGitHub) -> None:
    github.nodes = [node(number) for number in range(1, 4)]
    api = source(github)
    api.repository(NAME)
    [first] = api.pages(NAME, None, None)
    assert (first.covered_until, len(first.pull_requests)) == (datetime(2024, 3, 3, tzinfo=UTC), 3)
    assert api.usage() == ApiUsage(n_rest=2, n_rest_free=0, n_graphql=1, n_graphql_points=2)
    api.repository(NAME)
    [second] = api.pages(NAME, first.covered_until, None)
    assert second.pull_requests == ()
    assert api.usage() == ApiUsage(n_rest=0, n_rest_free=2)
    github.nodes.append(node(4))
    [third] = api.pages(NAME, first.covered_until, None)
    assert [pr.number for pr in third.pull_requests] == [4, 3]


def test_an_update_of_this_minute_is_looked_at_once_more(github: FakeGitHub) -> None:
    at = datetime.now(UTC).replace(microsecond=0)
    github.nodes = [node(1, updatedAt=at.isoformat())]
    [page] = source(github).pages(NAME, None, None)
    assert page.covered_until == at - timedelta(seconds=1)


def test_each_repository_has_its_own_credential_and_each_its_own_answers(github: FakeGitHub) -> None:
    quotas, answers = MemoryQuotas(), MemoryAnswers()
    api = github_source(github.url, "one", "two", "three", quotas=quotas, answers=answers)
    for _ in range(2):
        for name in (NAME, "acme/old-tool"):
            api.repository(name)
    assert len(answers.kept) == 2
    assert github.tokens <= {"token one", "token two", "token three"}
    assert github.n_free == 2, "the answer after a redirection is kept too"


def test_nothing_is_asked_while_the_quota_says_wait(github: FakeGitHub) -> None:
    quotas = MemoryQuotas()
    api = github_source(github.url, "t0ken", quotas=quotas)
    github.faults = [answer(SECONDARY, 403, Retry_After="17")]
    with pytest.raises(Transient):
        api.repository(NAME)
    for call in (lambda: api.repository(NAME), lambda: next(api.pages(NAME, None, None))):
        with pytest.raises(Transient, match=NAME) as caught:
            call()
        assert caught.value.retry_after_s == 17
    assert len(github.requests) == 1


def test_a_repository_lost_for_a_moment_is_asked_for_again(github: FakeGitHub) -> None:
    github.nodes = [node(1)]
    github.faults = [answer({"message": "Not Found"}, 404)]
    assert source(github).repository(NAME).name == NAME
    github.query_faults = [answer({"message": "Not Found"}, 404)]
    assert [pr.number for pr in every(github)] == [1]


def test_issues_that_github_gives_up_on_are_read_in_smaller_parts(github: FakeGitHub) -> None:
    github.issues = {number: issue_node(number) for number in range(10, 14)}
    github.nodes = [node(1, body="Fixes #10, fixes #11, fixes #12, fixes #13")]
    page, *_ = (served for served in [github.answer])

    def unwell(method: str, path: str, body: bytes, etag: str = "") -> Answer | None:
        found = page(method, path, body, etag)
        too_many = body.count(b"issueOrPullRequest") > 2
        return answer({"data": None, "errors": [{"message": "Something went wrong"}]}) if too_many else found

    github.answer = unwell  # type: ignore[method-assign]
    assert [link.issue.number for link in every(github)[0].issues] == [10, 11, 12, 13]


@pytest.mark.parametrize(
    "fault", [(200, {}, b"<html>Sign in</html>"), (200, {}, b""), (502, {}, b""), answer(SECONDARY, 403)]
)
def test_an_outage_while_reading_an_issue_does_not_empty_it(github: FakeGitHub, fault: Answer) -> None:
    github.issues[5] = issue_node(5, title="Said")
    github.nodes = [node(9, body="Fixes #5")]
    served = github.answer

    def unwell(method: str, path: str, body: bytes, etag: str = "") -> Answer | None:
        return fault if b"issueOrPullRequest" in body else served(method, path, body, etag)

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
    github.faults = [fault] * 6
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
    github.query_faults = [answer({"data": None, "errors": errors})] * 3
    with pytest.raises(Transient, match=NAME):
        every(github)


def test_a_page_too_big_for_github_is_asked_for_in_smaller_parts(github: FakeGitHub) -> None:
    github.nodes = [node(number) for number in range(1, 4)]
    github.query_faults = [
        answer({"message": "timeout"}, 502),
        answer({"errors": [{"message": "Something went wrong"}]}),
    ]
    assert [pr.number for pr in every(github)] == [3, 2, 1]
    assert github.sizes == [10, 2, 1, 10]


def test_part_of_an_answer_is_taken_when_one_field_failed(github: FakeGitHub) -> None:
    hollow = node(1, files=None, commits=None, closingIssuesReferences=None)
    page = {"nodes": [hollow, None], "pageInfo": {"hasNextPage": False, "endCursor": None}}
    data = {"repository": {"nameWithOwner": NAME, "pullRequests": page}}
    github.query_faults = [answer({"data": data, "errors": [{"type": "NOT_FOUND", "message": "a deleted issue"}]})]
    assert [pr.number for pr in every(github)] == [1]


def test_a_query_that_the_server_does_not_understand_is_our_fault(github: FakeGitHub) -> None:
    github.query_faults = [answer({"errors": [{"message": "Field 'files' doesn't exist on type 'PullRequest'"}]})]
    with pytest.raises(InfrastructureError, match="Field 'files'"):
        every(github)


def test_a_wrong_token_says_what_to_set(github: FakeGitHub) -> None:
    for call in ("repository", "pages"):
        github.faults = [answer({"message": "Bad credentials"}, 401)] * 2  # once is doubted
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
    github.faults = [fault] * 2 if fault else []
    with pytest.raises(Rejected, match="acme/nothing") as caught:
        api.repository("acme/nothing")
    assert caught.value.reason is RejectReason.REPOSITORY_NOT_FOUND


def test_only_a_repositorys_own_address_says_that_there_is_none(github: FakeGitHub) -> None:
    with pytest.raises(Transient, match="asked again later"):
        next(source(github).pages("acme/nothing", None, None))


def test_a_server_that_is_not_there_means_later() -> None:
    with pytest.raises(Transient, match="acme/tool"):
        github_source(f"http://127.0.0.1:{free_port()}", "t").repository(NAME)


@pytest.mark.parametrize(
    ("path", "graphql"), [("", "/graphql"), ("/api/v3", "/api/graphql"), ("/api/v3/", "/api/graphql")]
)
def test_graphql_is_beside_rest_where_github_puts_it(github: FakeGitHub, path: str, graphql: str) -> None:
    github.nodes = [node(1)]
    api = github_source(github.url + path, "t")
    assert api.repository(NAME).name == NAME
    assert len(next(api.pages(NAME, None, None)).pull_requests) == 1
    assert [(method, path.partition("?")[0]) for method, path in github.requests] == [
        ("GET", f"{path.rstrip('/')}/repos/acme/tool"),
        ("GET", f"{path.rstrip('/')}/repos/acme/tool/pulls"),
        ("POST", graphql),
    ]
