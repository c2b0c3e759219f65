"""What is exported to train on: judged, confirmed, never a benchmark's; pairs hold one against another of its kind."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlmodel import Session, select

from db.engine import session
from db.enums import ExitStatus, FlagKind, InstanceStatus
from db.models import AgentConfig, PullRequest, Rollout, RolloutFlag, TaskInstance
from swefactory.artifacts import LocalArtifacts, digest_of
from swefactory.config import Settings
from swefactory.errors import UsageError
from swefactory.exports import preferences, subsets, trajectories
from swefactory.exports.folder import ExportFolder
from swefactory.exports.image_sources import Images
from swefactory.exports.instance_images import ImageSource
from swefactory.exports.manifest import read_manifest
from swefactory.exports.rollout_subjects import RolloutChoice
from swefactory.exports.subjects import Choice, LeftOut, subjects
from swefactory.exports.subsets import Cut, ranked
from swefactory.exports.trajectories import Form, Telling, ToolArgs
from swefactory.pass_rates import Tries
from swefactory.trajectories import read
from swefactory.trajectory_forms import AtifAgent, to_atif, to_messages
from swefactory.wiring import make_services
from tests.catalogs import BOTH, catalog_url, upgraded
from tests.test_exports import UNCERTIFIED, files, fill
from tests.told_rollouts import add_told, failed, solved
from tests.trajectory_events import Events

ALL = ["t.py::a[x y]", "t.py::b"]
EVERY = RolloutChoice(unresolved=True)
Add = Callable[..., None]


@pytest.fixture
def artifacts(tmp_path: Path) -> LocalArtifacts:
    return LocalArtifacts(tmp_path / "home" / "artifacts")


@pytest.fixture
def filled(catalog: Engine, artifacts: LocalArtifacts) -> Engine:
    """One validated instance; its rollouts: agent 1 resolved, agent 2 failed, agent 3 left no conversation."""
    fill(catalog, artifacts)
    return catalog


def validated(db: Session) -> TaskInstance:
    return db.exec(select(TaskInstance).where(TaskInstance.status == InstanceStatus.VALIDATED)).one()


@pytest.fixture
def add(filled: Engine, artifacts: LocalArtifacts) -> Add:
    def one(events: Events | None, **facts: Any) -> None:
        with session(filled) as db:
            add_told(db, artifacts, validated(db), events, **facts)

    return one


def another(db: Session, one: TaskInstance, instance_id: str, number: int) -> TaskInstance:
    """The same instance under another id."""
    pull_request = PullRequest(**db.get_one(PullRequest, one.pull_request_id).model_dump(exclude={"id"}))
    pull_request.number = number
    db.add(pull_request)
    db.flush()
    facts = one.model_dump(exclude={"id"}) | {"instance_id": instance_id, "pull_request_id": pull_request.id}
    found = TaskInstance(**facts)
    db.add(found)
    db.flush()
    return found


def rows(folder: ExportFolder, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.target / name).read_bytes().splitlines()]


def left_out(folder: ExportFolder) -> list[str]:
    return [each.why for each in read_manifest(folder.target).left_out()]


# ---------------------------------------------------------------- trajectories


@pytest.mark.parametrize("kind", BOTH)
def test_resolved_ones_leave_with_the_tests_that_confirmed_them_and_masks(
    kind: str, request: pytest.FixtureRequest, artifacts: LocalArtifacts, tmp_path: Path
) -> None:
    engine = upgraded(catalog_url(kind, request))
    fill(engine, artifacts)
    folder = trajectories.write(engine, artifacts, tmp_path / "one")
    (row,) = rows(folder, "trajectories.jsonl")
    assert (row["agent"], row["resolved"], row["confirmed_by"]) == ("agent 1", True, ALL)
    assert row["mask"] == [m["role"] == "assistant" and n != 4 for n, m in enumerate(row["messages"])]
    assert (row["filter_reason"], row["license"]) == ("", "MIT")
    assert row["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"command": "ls"}'
    told = trajectories.write(engine, artifacts, tmp_path / "two", EVERY, Telling(tool_args=ToolArgs.DICT))
    by_agent = {row["agent"]: row for row in rows(told, "trajectories.jsonl")}
    assert {name: row["confirmed_by"] for name, row in by_agent.items()} == {"agent 1": ALL, "agent 2": ALL[1:]}
    assert by_agent["agent 1"]["messages"][2]["tool_calls"][0]["function"]["arguments"] == {"command": "ls"}
    again = trajectories.write(engine, artifacts, tmp_path / "three")
    engine.dispose()
    assert files(again.target) == files(folder.target)


def test_all_forms_tell_of_the_same_trajectory(filled: Engine, artifacts: LocalArtifacts, tmp_path: Path) -> None:
    native = trajectories.write(filled, artifacts, tmp_path / "native", telling=Telling(Form.NATIVE))
    atif = trajectories.write(filled, artifacts, tmp_path / "atif", telling=Telling(Form.ATIF))
    (row,), (told,) = rows(native, "trajectories.jsonl"), rows(atif, "trajectories.jsonl")
    assert row["trajectory"]["format"] == "swefactory-trajectory/1"
    document = json.loads((atif.target / told["path"]).read_text())
    assert document["schema_version"] == "ATIF-v1.8"
    assert document["extra"]["confirmed_by"] == ALL
    said = [entry for entry in row["trajectory"]["entries"] if entry["role"] != "tool"]
    assert [step["message"] for step in document["steps"]] == [entry["text"] for entry in said]
    learned = [step["extra"]["is_learned"] for step in document["steps"] if step["source"] == "agent"]
    assert learned == [True, False, True]


def test_what_does_not_leave_is_named_with_why(
    filled: Engine, add: Add, artifacts: LocalArtifacts, tmp_path: Path
) -> None:
    add(solved(), passed=ALL, agent="cheat", suspicious=["walks_memory"])
    add(Events().runs("ls"), passed=ALL, agent="unfinished")
    add(solved(), passed=ALL, agent="offline", exit_status=ExitStatus.INFRASTRUCTURE_ERROR)
    folder = trajectories.write(filled, artifacts, tmp_path / "usual")
    assert folder.n_rows == 1
    assert sorted(left_out(folder)) == [
        "its patch may have fooled the tests: walks_memory", "not fit to train on: not_finished",
    ]  # fmt: skip
    told = trajectories.write(filled, artifacts, tmp_path / "told", RolloutChoice(suspicious=True), Telling(unfit=True))
    found = {row["agent"]: row["filter_reason"] for row in rows(told, "trajectories.jsonl")}
    assert found == {"agent 1": "", "cheat": "", "unfinished": "not_finished"}
    with session(filled) as db:
        instance = validated(db)
        instance.pass_to_pass = [*instance.pass_to_pass, "t.py::new"]
        db.add(instance)
    stale = trajectories.write(filled, artifacts, tmp_path / "stale")
    assert stale.n_rows == 0
    assert any("grade it again" in why for why in left_out(stale))


def test_nothing_of_a_benchmarks_instance_is_trained_on(
    filled: Engine, artifacts: LocalArtifacts, tmp_path: Path
) -> None:
    with session(filled) as db:
        instance = validated(db)
        instance.decontamination = {"matched": [{"instance_id": "a__b-1", "benchmark": "swe-bench-lite"}]}
        db.add(instance)
    for folder in (
        trajectories.write(filled, artifacts, tmp_path / "t"),
        preferences.write(filled, artifacts, tmp_path / "p", EVERY),
    ):
        assert folder.n_rows == 0
        assert folder.n_left_out
        assert all("a__b-1 of swe-bench-lite" in why for why in left_out(folder))
    with session(filled, writing=False) as db:
        (refused,) = subjects(db, Choice(uncertified=True, for_training=True))
        (evaluated,) = subjects(db, UNCERTIFIED)
    assert isinstance(refused, LeftOut)
    assert not isinstance(evaluated, LeftOut)


def test_keys_ascend_whatever_characters_ids_hold(
    filled: Engine, add: Add, artifacts: LocalArtifacts, tmp_path: Path
) -> None:
    with session(filled) as db:
        one = validated(db)
        for n, end in enumerate(("-2", ".x", "+x", "0")):
            other = another(db, one, f"{one.instance_id}{end}", n + 90)
            add_told(db, artifacts, other, solved(), passed=ALL, agent="agent 1")
            add_told(db, artifacts, other, failed(), passed=[], agent="agent 2")
    assert trajectories.write(filled, artifacts, tmp_path / "t").n_rows == 5
    assert preferences.write(filled, artifacts, tmp_path / "p", EVERY).n_rows == 5 * (2 + 1 + 2)


# ---------------------------------------------------------------- preferences


def test_a_pair_is_one_instances_resolved_and_clean_against_an_unresolved_one(
    filled: Engine, add: Add, artifacts: LocalArtifacts, tmp_path: Path
) -> None:
    add(solved(), passed=ALL, agent="cheat", suspicious=["walks_memory"])
    add(solved(), passed=[], agent="offline", exit_status=ExitStatus.MODEL_ERROR)
    add(solved("another prompt"), passed=[], agent="asked otherwise")
    add(solved(), passed=[], agent="did the same")
    add(Events().runs("ls"), passed=[], agent="gave up", exit_status=ExitStatus.TURN_LIMIT)
    add(solved(), passed=ALL, agent="flagged")
    with session(filled) as db:
        number = max(rollout.id or 0 for rollout in _rollouts(db, "flagged"))
        db.add(RolloutFlag(rollout_id=number, kind=FlagKind.HISTORY_DIGGING, event_number=3))
    folder = preferences.write(filled, artifacts, tmp_path / "preferences", EVERY)
    pairs = rows(folder, "pairs.jsonl")
    with session(filled) as db:
        chosen, failed, gave_up = (_key(db, name) for name in ("agent 1", "agent 2", "gave up"))
    assert sorted((p["chosen_run_id"], p["rejected_run_id"], p["margin"]) for p in pairs) == sorted(
        [(chosen, failed, 1.0), (chosen, gave_up, 1.0)]
    )
    for pair in pairs:
        assert [message["role"] for message in pair["prompt"]] == ["system", "user"]
        assert pair["chosen"][0]["role"] == pair["rejected"][0]["role"] == "assistant"
        assert pair["chosen"][0]["tool_calls"][0]["function"]["arguments"] == {"command": "ls"}
        assert len(pair["chosen_mask"]) == len(pair["chosen"])
    kto = rows(folder, "kto.jsonl")
    assert Counter(row["label"] for row in kto) == {True: 1, False: 4}
    assert all([m["role"] for m in row["prompt"]] == ["system", "user"] and row["completion"] for row in kto)
    steps = {row["run_id"]: row for row in rows(folder, "stepwise.jsonl")}
    assert steps[chosen]["labels"] == [True, False, True]
    assert steps[chosen]["completions"][0] == '{"name": "terminal", "arguments": {"command": "ls"}}'
    assert any("looks like cheating: history_digging" in why for why in left_out(folder))
    assert any("walks_memory" in why for why in left_out(folder))


def test_an_instance_of_many_tries_gives_no_more_pairs_than_wanted_and_uses_each_before_one_twice(
    filled: Engine, add: Add, artifacts: LocalArtifacts, tmp_path: Path
) -> None:
    for replica in (2, 3):
        add(solved(), passed=ALL, agent="agent 1", replica=replica)
        add(failed(), passed=ALL[:1], agent="agent 2", replica=replica)
    pairs = rows(preferences.write(filled, artifacts, tmp_path / "p", EVERY, preferences.Pairing(3)), "pairs.jsonl")
    assert len({pair["chosen_run_id"] for pair in pairs}) == len({pair["rejected_run_id"] for pair in pairs}) == 3
    many = preferences.write(filled, artifacts, tmp_path / "q", EVERY, preferences.Pairing(100))
    assert len(rows(many, "pairs.jsonl")) == 9


def _rollouts(db: Session, agent: str) -> list[Rollout]:
    return list(db.exec(select(Rollout).join(AgentConfig).where(AgentConfig.name == agent)))


def _key(db: Session, agent: str) -> str:
    return f"{validated(db).instance_id}/{digest_of(agent.encode())}/{1:06}"


# ---------------------------------------------------------------- subsets

STRATA = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["none", "some", "all"])), min_size=1, max_size=60)


@given_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STRATA, st.integers(0, 5))
def test_every_prefix_holds_the_same_part_of_each_stratum_but_for_one(strata: list[tuple[str, str]], seed: int) -> None:
    named = {f"i{n}": stratum for n, stratum in enumerate(strata)}
    order = ranked(named.items(), seed)
    assert sorted(order) == sorted(named)
    assert order == ranked(reversed(named.items()), seed)
    sizes = Counter(strata)
    for m in range(1, len(order) + 1):
        drawn = Counter(named[each] for each in order[:m])
        place = {stratum: drawn[stratum] / n for stratum, n in sizes.items()}
        for stratum, n in sizes.items():  # as far as any other stratum, but for one instance of each
            for other, n_other in sizes.items():
                assert place[stratum] <= place[other] + 1 / n + 1 / n_other


def test_subsets_are_nested_and_the_set_for_learning_holds_what_is_sometimes_solved(
    filled: Engine, add: Add, settings: Settings, tmp_path: Path
) -> None:
    images = Images(ImageSource.REBUILD, make_services(settings, filled))
    cut = Cut(sizes=(1,))
    folder = subsets.write(filled, images, UNCERTIFIED, tmp_path / "subsets", cut)
    (row,) = rows(folder, "subsets.jsonl")
    assert (row["difficulty"], row["n_tries"], row["n_solved"], row["subsets"]) == ("some", 3, 2, [1])
    (learning,) = rows(folder, "rl.jsonl")
    assert learning["prompt"] == [{"role": "user", "content": "it breaks ☃"}]
    assert (folder.target / "ids" / "00001.txt").read_text() == "acme__tool-2\n"
    hard = subsets.write(filled, images, UNCERTIFIED, tmp_path / "hard", Cut(max_rate=0.5))
    assert rows(hard, "rl.jsonl") == []
    assert cut.sizes_of(3) == (1, 3)
    assert Cut().sizes_of(600) == (125, 250, 500, 600)
    assert Cut().sizes_of(0) == ()
    assert not cut.is_for_learning(Tries(1, 1))
    with pytest.raises(UsageError, match="rates"):
        Cut(min_rate=0.9, max_rate=0.1)


# ---------------------------------------------------------------- anything at all

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@given_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(said=WORDS, seen=WORDS, argument=WORDS)
def test_any_text_comes_back_from_every_form(said: str, seen: str, argument: str) -> None:
    events = Events(said).runs(argument, seen).finishes()
    trajectory = read(events.lines)
    for arguments in ("str", "dict"):
        messages = json.loads(json.dumps(to_messages(trajectory, arguments=arguments)))
        call = messages[2]["tool_calls"][0]["function"]["arguments"]
        assert (json.loads(call) if arguments == "str" else call) == {"command": argument}
        assert (messages[1]["content"], messages[3]["content"]) == (said, seen)
    atif = json.loads(json.dumps(to_atif(trajectory, AtifAgent("a", "1", "m"), session_id="s")))
    assert atif["steps"][2]["observation"]["results"][0]["content"] == seen
