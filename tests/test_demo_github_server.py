"""The sample repository's GitHub, asked by the clients that ask the real one: PyGithub, git, and our own source."""

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path
from typing import Any

import github
import pytest

from db.enums import LinkSignal
from swefactory.checkouts import Checkouts, git_environment, run_git
from swefactory.demo.github_server import github_server
from swefactory.demo.graphql import QueryError, answer
from swefactory.demo.history import DemoHistory, build_history
from swefactory.demo.servers import demo_servers
from tests.fake_github import github_source

TOKEN = "right-token"
FORMER = "lapse-dev/timespan"


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> DemoHistory:
    return build_history(tmp_path_factory.mktemp("history"))


@pytest.fixture(scope="module")
def url(history: DemoHistory) -> Iterator[str]:
    with github_server(history, token=TOKEN, former_names=(FORMER,)) as address:
        yield address


@pytest.fixture
def client(url: str) -> github.Github:
    auth = github.Auth.Token(TOKEN)
    return github.Github(auth=auth, base_url=url, per_page=3, retry=None, seconds_between_requests=0)


def get(url: str, **headers: str) -> tuple[int, Message, Any]:
    """A plain request; an error status is an answer like any other."""
    asked = {"Authorization": f"Bearer {TOKEN}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=asked), timeout=10) as found:
            return found.status, found.headers, json.loads(found.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.loads(error.read() or b"null")


def ask(url: str, query: str, **variables: Any) -> Mapping[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=10) as found:
        answered: Mapping[str, Any] = json.loads(found.read())
    return answered


# ---------------------------------------------------------------- REST


def test_pygithub_reads_the_repository(client: github.Github, history: DemoHistory, url: str) -> None:
    repository = client.get_repo(history.name)
    assert repository.full_name == history.name
    assert repository.default_branch == "main"
    assert repository.clone_url == f"{url}/{history.name}.git"
    assert repository.stargazers_count == history.n_stars


def test_pygithub_pages_through_all_pull_requests(client: github.Github, history: DemoHistory) -> None:
    pulls = {pull.number: pull for pull in client.get_repo(history.name).get_pulls(state="closed")}
    assert len(history.pull_requests) > 3 * client.per_page  # so that paging is seen, and its last page not full
    assert {*pulls} == {pull_request.number for pull_request in history.pull_requests}
    for pull_request in history.pull_requests:
        pull = pulls[pull_request.number]
        assert (pull.title, pull.base.sha, pull.head.sha) == (
            pull_request.title, pull_request.base_commit, pull_request.head_commit
        )  # fmt: skip
        assert pull.merge_commit_sha == pull_request.merge_commit
        assert pull.merged_at == pull_request.merged_at


def test_pygithub_reads_one_pull_request_with_files_and_commits(client: github.Github, history: DemoHistory) -> None:
    pull_request = history.pull_requests[0]
    pull = client.get_repo(history.name).get_pull(pull_request.number)
    assert pull.merged
    assert [file.filename for file in pull.get_files()] == list(pull_request.files)
    assert [commit.sha for commit in pull.get_commits()] == [pull_request.head_commit]


def test_a_pull_requests_diff_is_a_page_that_needs_no_token(client: github.Github, history: DemoHistory) -> None:
    pull_request = history.pull_requests[0]
    pull = client.get_repo(history.name).get_pull(pull_request.number)
    with urllib.request.urlopen(pull.diff_url, timeout=10) as page:
        assert page.read() == run_git(history.bare, "diff", pull_request.base_commit, pull_request.head_commit)
    assert [commit.commit.author.date for commit in pull.get_commits()] == [pull_request.committed_at]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(pull.diff_url.replace(f"/{pull.number}.", "/999."), timeout=10)


def test_pygithub_reads_an_issue_and_its_comments(client: github.Github, history: DemoHistory) -> None:
    issue = history.pull_requests[0].issue
    assert issue is not None
    found = client.get_repo(history.name).get_issue(issue.number)
    assert (found.title, found.body, found.created_at) == (issue.title, issue.body, issue.opened_at)
    comments = [(comment.user.login, comment.body, comment.created_at) for comment in found.get_comments()]
    assert comments == [(c.author, c.body, c.created_at) for c in issue.comments]


def test_what_has_not_changed_is_not_sent_again(url: str, history: DemoHistory) -> None:
    address = f"{url}/repos/{history.name}/pulls/{history.pull_requests[0].number}"
    status, headers, _ = get(address)
    assert status == 200
    assert headers["X-RateLimit-Remaining"]
    assert get(address, If_None_Match=headers["ETag"])[0] == 304
    assert get(address, If_None_Match='"another"')[0] == 200


@pytest.mark.parametrize("token", ["wrong-token", ""])
def test_a_wrong_token_is_refused(url: str, history: DemoHistory, token: str) -> None:
    status, _, body = get(f"{url}/repos/{history.name}", Authorization=f"Bearer {token}")
    assert (status, body["message"]) == (401, "Bad credentials")


def test_any_token_will_do_where_none_is_named(history: DemoHistory) -> None:
    with github_server(history) as open_url:
        assert get(f"{open_url}/repos/{history.name}", Authorization="Bearer whatever")[0] == 200


@pytest.mark.parametrize("path", ["repos/lapse-dev/unknown", "repos/{name}/pulls/999", "repos/{name}/no", "no"])
def test_what_is_not_there_is_404(url: str, history: DemoHistory, path: str) -> None:
    assert get(f"{url}/{path.format(name=history.name)}")[0] == 404


def test_a_former_name_leads_to_the_present_one(client: github.Github, history: DemoHistory) -> None:
    assert client.get_repo(FORMER).full_name == history.name


# ---------------------------------------------------------------- GraphQL

PULLS = """
query Merged($owner: String!, $name: String!, $first: Int = 4, $after: String, $withFiles: Boolean!) {
  repository(owner: $owner, name: $name) {
    merged: pullRequests(states: [MERGED], first: $first, after: $after,
                         orderBy: {field: UPDATED_AT, direction: DESC}) {
      pageInfo { hasNextPage endCursor }
      nodes { ...facts }
    }
  }
}
fragment facts on PullRequest {
  number
  mergedAt
  mergeCommit { oid }
  author { login ... on User { login } }
  files(first: 100) @include(if: $withFiles) { nodes { path } }
  closingIssuesReferences(first: 10) { nodes { number title comments(first: 5) { nodes { body } } } }
}
"""


def pages(url: str, history: DemoHistory, **more: Any) -> Iterator[Mapping[str, Any]]:
    owner, name = history.name.split("/")
    after = None
    while True:
        answered = ask(url, PULLS, owner=owner, name=name, after=after, **more)
        assert "errors" not in answered
        page = answered["data"]["repository"]["merged"]
        yield page
        if not page["pageInfo"]["hasNextPage"]:
            return
        after = page["pageInfo"]["endCursor"]


def test_a_query_with_fragments_variables_and_aliases_pages_by_cursor(url: str, history: DemoHistory) -> None:
    found = list(pages(url, history, withFiles=True))
    nodes = [node for page in found for node in page["nodes"]]
    assert [len(page["nodes"]) for page in found] == [4, 4, 2]
    assert [node["mergedAt"] for node in nodes] == sorted((node["mergedAt"] for node in nodes), reverse=True)
    by_number = {pull_request.number: pull_request for pull_request in history.pull_requests}
    assert {node["number"] for node in nodes} == {*by_number}
    for node in nodes:
        pull_request = by_number[node["number"]]
        assert node["mergeCommit"]["oid"] == pull_request.merge_commit
        assert [file["path"] for file in node["files"]["nodes"]] == list(pull_request.files)
        closes = [issue["number"] for issue in node["closingIssuesReferences"]["nodes"]]
        assert closes == ([pull_request.issue.number] if pull_request.issue and pull_request.is_closing else [])


def test_what_a_directive_leaves_out_is_not_there(url: str, history: DemoHistory) -> None:
    assert not any("files" in node for page in pages(url, history, withFiles=False) for node in page["nodes"])


def test_a_field_that_is_not_there_is_an_error_in_the_answer(url: str, history: DemoHistory) -> None:
    owner, name = history.name.split("/")
    answered = ask(url, "query($o: String!, $n: String!) { repository(owner: $o, name: $n) { shoeSize } }",
                   o=owner, n=name)  # fmt: skip
    assert "shoeSize" in answered["errors"][0]["message"]


def test_a_query_for_an_unknown_repository_is_answered_with_not_found(url: str) -> None:
    answered = ask(url, '{ repository(owner: "no", name: "body") { url } }')
    assert answered["data"] == {"repository": None}
    assert answered["errors"][0]["type"] == "NOT_FOUND"


@pytest.mark.parametrize("query", ["{ a", "query {", "{ a(b: ) }", "{ ...missing }", "{ a ^ }", "{ a(b: $) }"])
def test_a_broken_query_is_refused(query: str) -> None:
    with pytest.raises(QueryError):
        answer(query, {}, {"a": 1})


# ---------------------------------------------------------------- git


def test_git_clones_over_http_with_the_heads_of_all_pull_requests(
    url: str, history: DemoHistory, tmp_path: Path
) -> None:
    target = tmp_path / "clone.git"
    git = ["git", "clone", "--quiet", "--mirror", f"{url}/{history.name}.git", str(target)]
    subprocess.run(git, check=True, capture_output=True, timeout=60, env=git_environment())
    refs = run_git(target, "for-each-ref", "--format=%(objectname) %(refname)")
    assert refs == run_git(history.bare, "for-each-ref", "--format=%(objectname) %(refname)")
    for pull_request in history.pull_requests:
        assert f"{pull_request.head_commit} refs/pull/{pull_request.number}/head".encode() in refs
    run_git(target, "fsck", "--strict")


def test_the_products_own_mirror_fetches_heads_that_no_branch_holds(
    url: str, history: DemoHistory, tmp_path: Path
) -> None:
    """A squashed pull request's commits hang on refs/pull/N/head alone, and are asked for one by one."""
    checkouts = Checkouts(tmp_path / "mirrors", tmp_path / "cache", token=TOKEN)
    address = f"{url}/{history.name}.git"
    heads = [pull_request.head_commit for pull_request in history.pull_requests]
    mirror = checkouts.mirror(history.name, address)
    assert not all(checkouts.commit_exists(mirror, head) for head in heads)
    mirror = checkouts.mirror_with(history.name, address, heads)
    assert all(checkouts.commit_exists(mirror, head) for head in heads)


def test_git_of_another_repository_is_404(url: str, tmp_path: Path) -> None:
    git = ["git", "clone", "--quiet", f"{url}/no/body.git", str(tmp_path / "none")]
    done = subprocess.run(git, capture_output=True, text=True, timeout=60, check=False, env=git_environment())
    assert done.returncode
    assert "not found" in done.stderr


# ---------------------------------------------------------------- our own client


def test_the_products_source_reads_every_pull_request_with_its_issue(url: str, history: DemoHistory) -> None:
    source = github_source(url, TOKEN, page_size=4)
    assert source.repository(history.name).clone_url == f"{url}/{history.name}.git"
    found = {pull.number: pull for page in source.pages(history.name, None, None) for pull in page.pull_requests}
    assert {*found} == {pull_request.number for pull_request in history.pull_requests}
    for pull_request in history.pull_requests:
        record = found[pull_request.number]
        assert (record.base_commit, record.merge_commit) == (pull_request.base_commit, pull_request.merge_commit)
        if pull_request.issue is None:
            assert record.issues == ()
            continue
        (link,) = record.issues
        assert (link.issue.number, link.issue.body) == (pull_request.issue.number, pull_request.issue.body)
        assert [c.body for c in link.issue.comments] == [c.body for c in pull_request.issue.comments]
        assert (LinkSignal.CLOSING_REFERENCE in link.signals) is pull_request.is_closing


def test_the_demos_servers_stand_together_and_are_gone_afterwards(tmp_path: Path) -> None:
    with demo_servers(tmp_path) as servers:
        asked = f"{servers.github_url}/repos/{servers.history.name}"
        assert get(asked, Authorization=f"Bearer {servers.github_token}")[0] == 200
        models = get(f"{servers.model_url}/models", Authorization=f"Bearer {servers.model_api_key}")[2]
        assert [model["id"] for model in models["data"]] == [servers.model]
    with pytest.raises(urllib.error.URLError):
        get(asked)
