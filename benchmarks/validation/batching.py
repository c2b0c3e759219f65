"""What validating instances of one environment together saves, as ratios in one run. Mirrors are only read.

    python benchmarks/validation/batching.py --mirror DIR --repository OWNER/NAME [--instances 3] [--runs 3]

DIR/owner+name/repo is a bare mirror. Its newest commits that change tests and sources give the instances; those whose
environment is the first one's are kept. Each is run after its patch, `--runs` times, in turn in each way:

    alone      an environment of its own, made anew in an empty folder with uv's cache warm; files made for each run
    kept       the environment that stands; files made for each run
    batched    the environment that stands; files made once for all runs of the state: what validation does
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from swefactory.artifacts import LocalArtifacts
from swefactory.checkouts import Checkouts, run_git
from swefactory.config import Settings
from swefactory.errors import Rejected
from swefactory.evaluation import EvaluationSpec, evaluate, prepared
from swefactory.patches import PatchUnreadable
from swefactory.protocols import Agent, AgentSpec
from swefactory.pull_diffs import pull_diff
from swefactory.recipes.ladder import climb
from swefactory.recipes.lock import spec_of
from swefactory.recipes.python import detect
from swefactory.sandboxes.namespace import NamespaceBackend
from swefactory.stability import conditions_of
from swefactory.stage import Services
from swefactory.stages.environments import commit_date


@dataclass
class Seconds:
    """What one way took: the environments, the files of states, the runs themselves."""

    environments: float = 0.0
    files: float = 0.0
    runs: float = 0.0

    @property
    def total(self) -> float:
        return self.environments + self.files + self.runs


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mirror", type=Path, required=True)
    options.add_argument("--repository", required=True)
    options.add_argument("--instances", type=int, default=3)
    options.add_argument("--runs", type=int, default=3)
    args = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="swefactory-batching-") as name:
        home = Path(name)
        services = _services(home, home / "cache")
        specs = list(_specs(services, args.mirror, args.repository, args.instances))
        ways = {way: Seconds() for way in ("alone", "kept", "batched")}
        for spec in specs:
            for way, spent in ways.items():  # in turn, so that a busier machine meets all of them
                _run(way, spent, home, services, spec, args.runs)
    _print(ways, len(specs), args.runs)


def _services(home: Path, cache: Path) -> Services:
    """All with the uv cache of the first, so that only the environments are new."""
    return Services(
        settings=Settings(home=home, database_url=""),
        sources={},
        checkouts=Checkouts(home / "mirrors", cache),
        sandboxes=NamespaceBackend(cache, uv_cache=home / "uv"),
        artifacts=LocalArtifacts(home / "artifacts"),
        agent=_no_agent,
    )


def _no_agent(spec: AgentSpec) -> Agent:
    raise AssertionError("no agent is needed here")


def _specs(services: Services, mirrors: Path, name: str, wanted: int) -> Iterator[EvaluationSpec]:
    """Evaluations after the patch of the newest changes of tests and sources in one environment."""
    mirror = mirrors / name.replace("/", "+") / "repo"
    digest, n_found = "", 0
    listed = run_git(mirror, "rev-list", "--first-parent", "--parents", "--max-count=400", "HEAD")
    for line in listed.decode().splitlines():
        commit, _, parents = line.partition(" ")
        if not parents or n_found == wanted:
            continue
        try:
            diff = pull_diff(services.checkouts, mirror, parents.split()[0], commit)
            if not diff.test_files or not diff.split.patch or not diff.split.test_patch:
                continue
            tree = services.checkouts.tree(name, mirror, parents.split()[0])
            pythons = services.sandboxes.pythons()
            recipe = detect(tree, as_of=commit_date(mirror, parents.split()[0]), pythons=pythons, fallback_version="1")
            climbed = climb(recipe, run_uv=services.sandboxes.run_uv, timeout_s=600)
        except (Rejected, PatchUnreadable):
            continue
        environment = spec_of(climbed.recipe, climbed.locked)
        if digest and environment.digest != digest:
            continue
        digest, n_found = environment.digest, n_found + 1
        services.sandboxes.materialise(environment)
        yield EvaluationSpec(
            environment=environment,
            tree=tree,
            layout=recipe.layout,
            patches=(diff.split.patch, diff.split.test_patch),
            test_files=diff.test_files,
            timeout_s=600,
            environment_variables=recipe.environment_variables,
            test_command=recipe.test_command,
        )


def _run(way: str, spent: Seconds, home: Path, services: Services, spec: EvaluationSpec, n_runs: int) -> None:
    with tempfile.TemporaryDirectory(dir=home) as folder:
        if way == "alone":
            services = _services(home, Path(folder))
        began = time.monotonic()
        services.sandboxes.materialise(spec.environment)
        spent.environments += time.monotonic() - began
        with ExitStack() as held:
            files = None
            for number in range(1, n_runs + 1):
                asked = conditions_of(number)
                run = replace(spec, order=asked.order, hash_seed=asked.hash_seed)
                began = time.monotonic()
                if files is None or way != "batched":
                    held.close()
                    files = held.enter_context(prepared(services, run))
                spent.files += time.monotonic() - began
                began = time.monotonic()
                result = evaluate(services, run, files)
                spent.runs += time.monotonic() - began
                assert result.outcomes, result.detail


def _print(ways: dict[str, Seconds], n_instances: int, n_runs: int) -> None:
    print(f"{n_instances} instances of one environment, {n_runs} runs of one state each; seconds an instance")
    print(f"{'':10}{'environment':>12}{'files':>8}{'runs':>8}{'total':>8}   of alone")
    for way, spent in ways.items():
        parts = (spent.environments, spent.files, spent.runs, spent.total)
        shown = "".join(f"{part / max(n_instances, 1):>{12 if n == 0 else 8}.2f}" for n, part in enumerate(parts))
        print(f"{way:10}{shown}   {spent.total / ways['alone'].total:.2f}")


if __name__ == "__main__":
    main()
