"""The candidate stage strips and records leaks, drops benchmarks and doubles: on a real catalog and repositories."""

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from db.engine import session
from db.enums import InstanceStatus, RejectReason
from db.models import Issue, IssueTextBand, PullRequest, Repository, TaskInstance
from swefactory.benchmark_lists import index_instances, write_list
from swefactory.config import Settings
from swefactory.errors import UsageError
from tests.fake_sources import day
from tests.test_stage_candidates import FIX, World

BODY = (
    "The parser fails on numbers with underscores although the language itself reads them since version three six, "
    "and every other tool of ours does so as well; see the attached program, which prints a traceback and then ends.\n"
)
NEW = "def f():\n    return compute_the_answer(of_everything=True, base=10)\n"
CHANGE = {**FIX, "src/tool.py": NEW}


@pytest.fixture
def world(catalog: Engine, tmp_path: Path) -> World:
    made = World(catalog, tmp_path)
    made.settings = Settings(min_statement_words=10)
    return made


def test_a_leak_is_stripped_and_recorded(world: World) -> None:
    head = world.change(CHANGE)
    hint = f"I would write\n```py\n{NEW}```\nthere"
    world.set(
        Issue,
        body=f"{BODY}See {head[:10]} for it.\n",
        comments=[{"author": "a", "created_at": day(1).isoformat(), "edited_at": None, "body": hint}],
    )
    world.set(Repository, license="MIT")
    instance = world.made()
    assert instance.problem_statement == f"It breaks\n{BODY}\n"
    assert instance.hints_text == "I would write\nthere\n"
    assert instance.statement_strips == ["hints_text:quotes_fix", "problem_statement:names_fixing_commit"]
    assert instance.license == "MIT"
    assert instance.patch_digest.startswith("sha256:")
    assert instance.decontamination["matched"] == []
    assert {known["name"] for known in instance.decontamination["lists"]} >= {"swe-bench-lite", "swe-bench-verified"}


def test_every_commit_of_the_pull_request_is_a_leak_and_its_base_is_none(world: World) -> None:
    world.work.branch("topic", world.base)
    first = world.work.commit("First", {"src/tool.py": "x = 1\n"})
    head = world.work.commit("Second", CHANGE)
    world.add(head_commit=head)
    world.set(Issue, body=f"{BODY}It is so since {world.base}\nMore in {first}\n")
    assert world.made().problem_statement == f"It breaks\n{BODY}It is so since {world.base}\n\n"


def test_an_issue_that_says_too_little_is_dropped(world: World) -> None:
    world.change(CHANGE)
    world.set(Issue, body="When I do this.")
    assert world.verdict().reason is RejectReason.STATEMENT_TOO_SHORT
    world.set(
        Issue, body="![](https://example.org/a.png)", title="It breaks in so many words that they would be enough"
    )
    assert world.verdict().reason is RejectReason.STATEMENT_IMAGES_ONLY
    world.set(Issue, body=BODY, opened_at=day(20))
    assert world.verdict().reason is RejectReason.ISSUE_OPENED_AFTER_MERGE
    assert world.instances == []


def test_an_instance_of_a_benchmark_is_dropped_and_a_broken_list_ends_the_run(world: World, tmp_path: Path) -> None:
    world.change(CHANGE)
    world.set(Issue, body=BODY)
    (tmp_path / "b.jsonl").write_text(json.dumps({"instance_id": "Acme__Tool-7", "repo": "Acme/Tool"}) + "\n")
    path = tmp_path / "list.jsonl"
    write_list(path, "mine", index_instances(tmp_path / "b.jsonl", "mine"))
    world.made()
    world.settings = Settings(benchmarks=str(path))
    verdict = world.verdict()
    assert verdict.reason is RejectReason.BENCHMARK_CONTAMINATION
    assert "Acme__Tool-7 of mine (pull_request)" in verdict.detail
    assert world.instances[0].status is InstanceStatus.REJECTED
    world.settings = Settings(benchmarks=str(tmp_path / "absent.jsonl"))
    with pytest.raises(UsageError, match=r"absent\.jsonl cannot be used"):
        world.run()


def test_newer_lists_are_recorded_and_undo_no_validation(world: World, tmp_path: Path) -> None:
    world.change(CHANGE)
    world.set(Issue, body=BODY)
    world.made()
    world.set(TaskInstance, status=InstanceStatus.VALIDATED, fail_to_pass=["x"])
    (tmp_path / "b.jsonl").write_text(json.dumps({"instance_id": "a__b-1", "repo": "a/b"}) + "\n")
    write_list(tmp_path / "list.jsonl", "mine", index_instances(tmp_path / "b.jsonl", "mine"))
    world.settings = Settings(benchmarks=str(tmp_path / "list.jsonl"))
    [job] = world.run().next_jobs
    assert not job.again
    assert world.instances[0].status is InstanceStatus.VALIDATED
    assert "mine" in {known["name"] for known in world.instances[0].decontamination["lists"]}


def double(world: World, body: str, *, same_repository: bool = False) -> None:
    """The same change once more, with an issue of its own: in a mirror of the repository, or in itself."""
    with session(world.engine) as db:
        facts = db.get_one(PullRequest, world.pull_request_id).model_dump(exclude={"id", "repository_id", "number"})
        if not same_repository:
            repository = Repository(name="other/mirror", clone_url=str(world.work.path))
            db.add(repository)
            db.flush()
            world.repository_id = repository.id or 0
        row = PullRequest(repository_id=world.repository_id, number=8, **facts)
        db.add(row)
        db.flush()
        world.pull_request_id = row.id or 0
    world.link(Issue(number=9, title="It breaks", body=body))


def test_the_same_patch_is_one_task_in_whatever_repository(world: World) -> None:
    world.change(CHANGE)
    world.set(Issue, body=BODY)
    world.made()
    double(world, "Another story altogether, told in more words than ten, of what does not work here.")
    verdict = world.verdict()
    assert (verdict.reason, "acme__tool-7" in verdict.detail) == (RejectReason.DUPLICATE_PATCH, True)
    world.set(TaskInstance, status=InstanceStatus.REJECTED, reject_reason=RejectReason.BUILD_FAILED)
    assert world.run().rejected is None


@pytest.mark.parametrize("same_repository", [False, True])
def test_the_same_issue_is_a_double_in_another_repository_only(world: World, same_repository: bool) -> None:
    world.change(CHANGE)
    world.set(Issue, body=BODY)
    world.made()
    world.set(TaskInstance, patch_digest="sha256:of-another-patch")
    double(world, BODY.replace("prints", "shows"), same_repository=same_repository)
    rejected = world.run().rejected
    assert (rejected.reason if rejected else None) == (None if same_repository else RejectReason.NEAR_DUPLICATE_ISSUE)


def test_bands_follow_the_text(world: World) -> None:
    world.change(CHANGE)
    world.set(Issue, body=BODY)
    world.made()
    world.made()

    def stored() -> list[str]:
        with session(world.engine) as db:
            return [row.digest for row in db.exec(select(IssueTextBand).order_by(IssueTextBand.band))]  # type: ignore[arg-type]

    before = stored()
    assert len(before) == 12
    world.set(Issue, body="Fewer words: too few to compare, but ten of them do.")
    world.made()
    assert stored() == []
