"""Runs in the harness's environment: loads the rows as `swebench eval` does and grades made logs with its own code.

python read_swebench.py EXPORTS
"""

import json
import sys
import tempfile
from pathlib import Path

from swebench.harness.constants import END_TEST_OUTPUT, START_TEST_OUTPUT
from swebench.harness.grading import get_eval_report
from swebench.harness.utils import load_swebench_dataset, make_test_spec


def resolved(spec, outcomes):
    """What the harness says of a run whose log holds these outcomes."""
    lines = [f"{outcome} {test_id}" for test_id, outcome in outcomes.items()]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as log:
        log.write("\n".join(["+ : '", START_TEST_OUTPUT, *lines, END_TEST_OUTPUT, ""]))
        log.flush()
        prediction = {"instance_id": spec.instance_id, "model_patch": "x", "model_name_or_path": "m"}
        return get_eval_report(spec, prediction, log.name, True)[spec.instance_id]["resolved"]


def main(exports):
    rows = load_swebench_dataset(str(exports / "swebench" / "swebench.jsonl"))
    others = load_swebench_dataset(str(exports / "swebench"))
    assert {row["instance_id"]: row["patch"] for row in rows} == {row["instance_id"]: row["patch"] for row in others}
    for row in rows:
        spec = make_test_spec(row)
        script = spec.eval_script_list
        (end,) = [n for n, line in enumerate(script) if END_TEST_OUTPUT in line]
        assert "swefactory_verdict" in script[end - 2], "the line before the exit code is the test command"
        named = [*spec.FAIL_TO_PASS, *spec.PASS_TO_PASS]
        assert resolved(spec, dict.fromkeys(named, "PASSED"))
        assert not resolved(spec, dict.fromkeys(named, "PASSED") | {spec.FAIL_TO_PASS[0]: "FAILED"})
    print(json.dumps({"rows": len(rows)}))


main(Path(sys.argv[1]))
