"""Whatever texts, ids and patches hold, what an export wrote is read back the same by plain readers of each format."""

import json
import tempfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from db.models import Environment, PullRequest, Repository, TaskInstance
from swefactory.exports import harbor, swebench, task_repositories
from swefactory.exports.folder import ExportFolder, json_line
from swefactory.exports.parquet import shards
from swefactory.exports.subjects import Subject
from swefactory.exports.test_names import printable
from swefactory.instance_runs import EvaluatedInstance
from swefactory.protocols import ProjectLayout
from swefactory.published_instances import published
from swefactory.runners import PYTEST

AT = datetime(2024, 5, 1, tzinfo=UTC)
_SEPARATORS = st.sampled_from("\x85\u2028\u2029")  # end a line for some readers
TEXT = _SEPARATORS | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n"), max_size=40)
NAME = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='\0\n/"\\'), min_size=1, max_size=12)


@st.composite
def patches(draw: st.DrawFn, folder: str) -> str:
    """A new file of any name below `folder`, of any lines."""
    path, lines = f"{folder}/x{draw(NAME)}x.py", draw(st.lists(LINE, min_size=1, max_size=4))
    head = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
    return f"{head}@@ -0,0 +1,{len(lines)} @@\n" + "".join(f"+{line}\n" for line in lines)


IDS = st.lists(TEXT.map(lambda name: f"tests/test_a.py::test[{name}]"), min_size=2, max_size=5, unique_by=printable)


@st.composite
def subjects(draw: st.DrawFn) -> tuple[Subject, EvaluatedInstance]:
    """An instance of strange texts; `patch` and `test_patch` are of one new file each."""
    first, *others = draw(IDS)
    instance = TaskInstance(
        id=1, instance_id="acme__tool-7", repository_id=1, pull_request_id=1, base_commit="a" * 40, version=draw(TEXT),
        patch=draw(patches("src")), test_patch=draw(patches("tests")), test_files=["tests/test_a.py"],
        problem_statement=draw(TEXT), hints_text=draw(TEXT), fail_to_pass=[first], pass_to_pass=others,
        license="MIT", created_at=AT, statement_strips=[], decontamination={},
    )  # fmt: skip
    evaluated = EvaluatedInstance(
        instance.instance_id, "acme/tool", "", instance.base_commit, instance.patch, instance.test_patch,
        ("tests/test_a.py",), ProjectLayout("tool", "1"), "sha256:e", "3.12", "sha256:l", (), {}, (first,),
        tuple(others), PYTEST,
    )  # fmt: skip
    environment = Environment(digest="sha256:e", python_version="3.12", lock_digest="sha256:l", resolved_as_of=AT)
    pull_request = PullRequest(repository_id=1, number=7, opened_at=AT, merged_at=AT, updated_at=AT)
    return Subject(instance, Repository(name="acme/tool"), environment, pull_request, {"said": draw(TEXT)}), evaluated


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(subjects())
def test_a_row_is_one_line_to_every_reader_and_comes_back_by_import(found: tuple[Subject, EvaluatedInstance]) -> None:
    row = swebench.row(*found)
    line = json_line(row)
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line) == row
    back, stored = published(json.loads(line)), found[0].instance
    assert (back.patch, back.test_patch) == (stored.patch, stored.test_patch)
    assert (back.problem_statement, back.hints_text) == (stored.problem_statement, stored.hints_text)
    assert (back.version, back.created_at, back.test_files) == (stored.version, AT, ("tests/test_a.py",))
    assert [printable(each) for each in back.fail_to_pass] == json.loads(str(row["FAIL_TO_PASS"]))
    assert [printable(each) for each in back.pass_to_pass] == json.loads(str(row["PASS_TO_PASS"]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(subjects())
def test_parquet_toml_and_yaml_hold_the_same(found: tuple[Subject, EvaluatedInstance]) -> None:
    row = swebench.row(*found)
    with tempfile.TemporaryDirectory(prefix="swefactory-properties-") as name:
        with ExportFolder(Path(name) / "rows", "rows", {}) as folder:
            with shards(folder, "test", swebench.COLUMNS) as table:
                table.write(row)
            task_repositories.write_task(folder, "tasks", "d", row)
        place = folder.target
        (read,) = parquet.read_table(next((place / "data").iterdir())).to_pylist()
        task = place / "tasks" / "tasks" / "acme__tool-7"
        assert (task / "gold.patch").read_bytes().decode() == row["patch"]
        assert json.loads((task / "tests.json").read_bytes())["FAIL_TO_PASS"] == json.loads(str(row["FAIL_TO_PASS"]))
        told = yaml.safe_load((task / "task.yaml").read_bytes())
    for column, kind in swebench.COLUMNS.items():
        assert (json.loads(read[column]) if kind == "json" else read[column]) == row[column]
    assert told["version"] == row["version"]
    files = harbor.task_files(*found, "image:1", harbor.Terms())
    config = tomllib.loads(files["task.toml"])
    assert config["task"]["name"] == "swefactory/acme__tool-7"
    assert config["metadata"]["base_commit"] == "a" * 40
    assert json.loads(files["tests/tests.json"])["FAIL_TO_PASS"] == json.loads(str(row["FAIL_TO_PASS"]))
    assert files["solution/gold.patch"] == row["patch"]
