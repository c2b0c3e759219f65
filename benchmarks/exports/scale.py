"""What does an export of a hundred thousand rows cost? One property: each size is exported by a process of its own,
from a catalog that only grows, in one run, so that growth is a ratio of this machine's own times and peaks.

    python benchmarks/exports/scale.py [--rows 1000 10000 100000] [--formats swebench parquet dataset subsets] [--json]

`seconds` are of the clock, `of a core` those that the process worked: on a busy machine only the latter compare.
Synthetic validated instances of 50 repositories, each with patches of some 3 kB, 25 tests and a certificate; none has
run. `base` is the peak of a process that has loaded the code and opened the catalog. Needs some 3 GB in --folder for
the largest; what is exported is removed at once.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, insert, text

from db.engine import make_engine, session, upgrade
from db.enums import InstanceStatus, ValidationVerdict
from db.models import Environment, PullRequest, Repository, TaskInstance, Validation, utc_now
from swefactory.artifacts import LocalArtifacts
from swefactory.config import Settings
from swefactory.exports import dataset, subsets, swebench_folder
from swefactory.exports.image_sources import Images
from swefactory.exports.instance_images import ImageSource
from swefactory.exports.subjects import Choice
from swefactory.exports.swebench_folder import Extras
from swefactory.wiring import make_services

FORMATS = ("swebench", "parquet", "dataset", "subsets")
_REPOSITORIES, _BATCH, _N_TESTS = 50, 1_000, 20
_TEST_PATCH = (
    "diff --git a/tests/test_{n}.py b/tests/test_{n}.py\nnew file mode 100644\n--- /dev/null\n+++ b/tests/test_{n}.py\n"
    "@@ -0,0 +1,{lines} @@\n"
)
_PROJECT = {"name": "tool", "version": "1", "source_roots": ["."], "entry_points": {}, "requires": []}


def main() -> int:
    options = _options()
    if options.one:
        print(json.dumps(_measured(Path(options.folder), options.one)))
        return 0
    results = []
    with tempfile.TemporaryDirectory(prefix="swefactory-exports-", dir=options.folder) as name:
        home = Path(name)
        engine = make_engine(f"sqlite:///{home / 'catalog.db'}")
        upgrade(engine)
        for n_rows in sorted(options.rows):
            _fill(engine, home, n_rows)
            for kind in ("base", *options.formats):
                results.append({"rows": n_rows, "format": kind, **_in_a_process(home, kind)})
                print(f"{n_rows} rows, {kind}: measured", file=sys.stderr)
        engine.dispose()
    print(json.dumps(results, indent=2) if options.json else _table(results))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--folder", default=None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


# ---------------------------------------------------------------- one export


def _in_a_process(home: Path, kind: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", kind, "--folder", str(home)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(ran.stdout))


def _measured(home: Path, kind: str) -> dict[str, Any]:
    """Seconds, peak memory and size of one export, or of none."""
    settings = Settings(home=home, database_url="", sandbox="namespace")
    engine = make_engine(settings.catalog_url)
    images, choice = Images(ImageSource.REBUILD, make_services(settings, engine)), Choice(uncertified=True)
    with session(engine, writing=False) as db:
        db.connection().execute(text("SELECT count(*) FROM repository")).scalar_one()
    started, before, out, n_bytes = time.monotonic(), time.process_time(), home / "out", 0
    if kind != "base":
        match kind:
            case "dataset":
                dataset.write(engine, images, choice, out)
            case "subsets":
                subsets.write(engine, images, choice, out)
            case _:
                swebench_folder.write(engine, images, choice, out, Extras(parquet=kind == "parquet"))
        n_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - before
    shutil.rmtree(out, ignore_errors=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak / 1e6, "export_mb": n_bytes / 1e6}
    return {name: round(value, 1) for name, value in found.items()}


# ---------------------------------------------------------------- the catalog


def _fill(engine: Engine, home: Path, n_rows: int) -> None:
    """Brings the catalog to `n_rows` validated instances; they only ever grow."""
    with session(engine) as db:
        n = int(db.connection().execute(text("SELECT count(*) FROM task_instance")).scalar_one())
        if n == 0:
            lock = LocalArtifacts(home / "artifacts").put(b"tool==1\n" * 50, "text/plain").digest
            facts = {"python_version": "3.12", "lock_digest": lock, "resolved_as_of": utc_now()}
            db.add(Environment(digest="sha256:e", **facts))
            db.add_all(Repository(name=f"acme/tool-{k}", license="MIT") for k in range(_REPOSITORIES))
    for first in range(n, n_rows, _BATCH):
        numbers = range(first + 1, min(first + _BATCH, n_rows) + 1)
        with session(engine) as db:
            db.execute(insert(PullRequest), [_pull_request(k) for k in numbers])
            db.execute(insert(TaskInstance), [_instance(k) for k in numbers])
            db.execute(insert(Validation), [_validation(k) for k in numbers])


def _pull_request(k: int) -> dict[str, Any]:
    now = utc_now()
    times = {"opened_at": now, "merged_at": now, "updated_at": now}
    return PullRequest(id=k, repository_id=k % _REPOSITORIES + 1, number=k, **times).model_dump()


def _instance(k: int) -> dict[str, Any]:
    lines = [f"+x_{line} = {line * k}\n" for line in range(150)]
    head = _TEST_PATCH.format(n=k, lines=len(lines))
    now = utc_now()
    return TaskInstance(
        id=k, instance_id=f"acme__tool-{k % _REPOSITORIES}-{k}", repository_id=k % _REPOSITORIES + 1,
        pull_request_id=k, environment_id=1, status=InstanceStatus.VALIDATED, base_commit=f"{k:040x}",
        patch="".join((head.replace("tests/test_", "src/module_"), *lines)), test_patch="".join((head, *lines)),
        test_files=[f"tests/test_{k}.py"], problem_statement=f"It breaks on {k}. " * 40, project=_PROJECT,
        fail_to_pass=[f"tests/test_{k}.py::test_new[{t}]" for t in range(_N_TESTS // 4)],
        pass_to_pass=[f"tests/test_{k}.py::test_old[{t}]" for t in range(_N_TESTS)], created_at=now, validated_at=now,
    ).model_dump()  # fmt: skip


def _validation(k: int) -> dict[str, Any]:
    now = utc_now()
    certificate = {"gold": "3/3", "empty": "0/3", "conditions": {f"condition {n}": 3 for n in range(20)}}
    return Validation(
        id=k, task_instance_id=k, environment_id=1, number=1, sandbox="namespace", n_runs=3, started_at=now,
        verdict=ValidationVerdict.VALID, certificate=certificate, finished_at=now,
    ).model_dump()  # fmt: skip


# ---------------------------------------------------------------- the table


def _table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown; the last line of each format is the ratio of the largest to the smallest."""
    lines = ["| format | rows | export MB | seconds | of a core | peak MB |", "|---|---|---|---|---|---|"]
    for kind in dict.fromkeys(each["format"] for each in results):
        found = [each for each in results if each["format"] == kind]
        for each in found:
            names = ("rows", "export_mb", "seconds", "cpu_seconds", "peak_mb")
            lines.append(f"| {kind} | {' | '.join(str(each[name]) for name in names)} |")
        first, last = found[0], found[-1]
        if len(found) > 1 and kind != "base":
            ratios = [last[name] / max(first[name], 0.01) for name in ("rows", "seconds", "cpu_seconds", "peak_mb")]
            lines.append(
                f"| {kind} | × {ratios[0]:.0f} | | × {ratios[1]:.1f} | × {ratios[2]:.1f} | × {ratios[3]:.2f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
