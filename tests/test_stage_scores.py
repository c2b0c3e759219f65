"""Scores of rollouts on a real catalog: by the base commit's tests, by tests the agents wrote, by a critic."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import col, select

from db import jobs
from db.engine import session
from db.enums import AgentKind, ExitStatus, StageName
from db.models import AgentConfig, Rollout, RolloutScore, TaskInstance, utc_now
from swefactory import rollout_choices
from swefactory.errors import UsageError
from swefactory.protocols import CriticAnswer, CriticQuestion
from swefactory.stage import NextJob, Saved, Services
from swefactory.stages.scores import STAGE
from tests.fake_sandbox import diff_of, host_services
from tests.instance_rows import add_instance
from tests.test_cli import run

BASE = {
    "calc.py": "def add(a, b):\n    return a - b\n",
    "tests/test_calc.py": "from calc import add\ndef test_zero(): assert add(1, 0) == 1\n",
}
FIXED = {"calc.py": "def add(a, b):\n    return b + a\n"}
TESTS = {"tests/test_calc.py": BASE["tests/test_calc.py"] + "def test_hidden(): assert add(1, 1) == 2\n"}
MINE = "from calc import add\ndef test_one(): assert add(1, 1) == 2\ndef test_zero(): assert add(1, 0) == 1\n"


def patch(calc: str, own_test: str = "") -> str:
    changed = {"calc.py": f"def add(a, b):\n    return {calc}\n"} if calc else {}
    return diff_of(BASE, {**BASE, **changed, **({"tests/test_issue.py": own_test} if own_test else {})})


PATCHES = {
    "right": patch("a + b", MINE),
    "constant": patch("2"),
    "special": patch("a if not b else 99"),
    "empty": "",
}
ENDS = dict.fromkeys(PATCHES, ExitStatus.SUBMITTED) | {"lost": ExitStatus.MODEL_ERROR}


class Pleased:
    """A critic that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[CriticQuestion] = []

    def score(self, question: CriticQuestion) -> CriticAnswer:
        self.asked.append(question)
        return CriticAnswer(0.25 * len(self.asked), {"reason": "so it is"}, 0.01)


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return host_services(tmp_path / "home")


@pytest.fixture
def instance_id(catalog: Engine, services: Services, tmp_path: Path) -> int:
    """An instance with rollouts 1 to 5, in the order of ENDS; the last one counts for nothing."""
    instance_id = add_instance(
        catalog, services, tmp_path, BASE, fixed=FIXED, tests=TESTS,
        fail_to_pass=("tests/test_calc.py::test_hidden",), pass_to_pass=("tests/test_calc.py::test_zero",),
    )  # fmt: skip
    with session(catalog) as db:
        db.add(AgentConfig(id=1, digest="sha256:q", name="qwen", kind=AgentKind.OPENHANDS, model="m"))
        for number, (name, ends) in enumerate(ENDS.items(), 1):
            db.add(
                Rollout(
                    id=number, task_instance_id=instance_id, agent_config_id=1, replica=number, exit_status=ends,
                    model_patch=PATCHES.get(name, ""), resolved=name == "right", finished_at=utc_now(),
                )
            )  # fmt: skip
    return instance_id


@pytest.fixture
def step(catalog: Engine, services: Services, instance_id: int) -> Callable[[], Saved]:
    """One job of the stage."""

    def once(with_services: Services = services) -> Saved:
        with session(catalog) as db:
            subject = STAGE.load(db, instance_id)
        for secret in ("return b + a", "test_hidden"):
            assert secret not in repr(subject), "what decides is not known to who chooses"
        output = STAGE.work(with_services, subject)
        with session(catalog) as db:
            return STAGE.save(db, instance_id, output)

    return once


def scores(catalog: Engine, critic: str) -> dict[tuple[int, int], float | None]:
    with session(catalog) as db:
        rows = db.exec(select(RolloutScore).where(RolloutScore.critic == critic).order_by(col(RolloutScore.id)))
        return {(row.rollout_id, row.evidence_id): row.score for row in rows}


def test_rollouts_are_held_against_the_base_tests_and_each_others_tests(
    catalog: Engine, services: Services, instance_id: int, step: Callable[[], Saved], tmp_path: Path
) -> None:
    with session(catalog) as db:
        assert rollout_choices.ask(db, rollout_choices.BY_TESTS) == 4 + 16, "of four each, and each with each"
        assert rollout_choices.ask(db, rollout_choices.BY_TESTS) == 0
        assert jobs.counts(catalog) == {}, "nothing is queued before the rows are"
    assert [stage for stage, _ in jobs.counts(catalog)] == [StageName.SCORE]
    assert step() == Saved()
    assert scores(catalog, "pass_to_pass") == {(1, 1): 1.0, (2, 2): 0.0, (3, 3): 1.0, (4, 4): 0.0}
    of_tests = scores(catalog, "reproduction")
    of_right = [of_tests[rollout, 1] for rollout in (1, 2, 3, 4)]
    assert of_right == [1.0, 1.0, 0.0, 0.0], "only test_one fails on the base commit"
    assert {of_tests[rollout, author] for rollout in (1, 2, 3, 4) for author in (2, 3, 4)} == {None}

    home = services.settings.home
    points = json.loads(run(home, "rollout", "best-of-n", "--json").stdout)
    assert [point["n"] for point in points] == [1, 2, 3, 4]
    assert [point["oracle"] for point in points] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert [point["random"] for point in points] == pytest.approx([0.25] * 4)
    assert points[-1]["pass_to_pass"] == 0.5, "two keep what passed"
    assert points[-1]["reproduction"] == 0.5, "two hold what was reproduced"
    assert points[-1]["pass_to_pass,reproduction"] == 1.0
    assert points[1]["reproduction"] == pytest.approx(2.5 / 6), "without its author all are equal"
    (chosen,) = json.loads(run(home, "rollout", "choose", "--json").stdout)
    assert (chosen["rollout_id"], chosen["n_tries"]) == (1, 4)
    assert run(home, "rollout", "choose", "--by", "judge:x").returncode == 2


def test_a_critic_is_asked_one_question_a_job_and_nothing_of_an_empty_patch(
    catalog: Engine, services: Services, instance_id: int, step: Callable[[Services], Saved]
) -> None:
    critic = Pleased()
    asking = replace(services, critic=lambda name: critic)
    with session(catalog) as db:
        assert rollout_choices.ask(db, ["judge:m"]) == 4
    again = Saved(next_jobs=(NextJob(StageName.SCORE, instance_id, again=True),))
    assert [step(asking) for _ in range(4)] == [again, again, again, Saved()]
    assert scores(catalog, "judge:m") == {(1, 1): 0.25, (2, 2): 0.5, (3, 3): 0.75, (4, 4): 0.0}
    assert critic.asked[0] == CriticQuestion("acme__calc-7", "", PATCHES["right"])
    with session(catalog) as db:
        assert sum(row.cost_usd for row in db.exec(select(RolloutScore))) == pytest.approx(0.03)
        with pytest.raises(UsageError, match="write judge:MODEL"):
            rollout_choices.ask(db, ["oracle"])


def test_an_instance_of_which_a_try_is_not_scored_is_no_part_of_a_choice(catalog: Engine, instance_id: int) -> None:
    with session(catalog) as db:
        rollout_choices.ask(db, ["judge:m", "reward:r"])
        for row in db.exec(select(RolloutScore).where(RolloutScore.critic == "reward:r")):
            row.score, row.scored_at = float(row.rollout_id == 3), utc_now()
    with session(catalog) as db:
        (found,) = rollout_choices.tries(db)
        assert found.critics == {"reward:r"}
        assert rollout_choices.orders((), found.critics) == [("reward:r",)]
        db.get_one(TaskInstance, instance_id)
        assert found.is_graded
