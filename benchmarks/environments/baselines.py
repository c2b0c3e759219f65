"""What the product is compared with: one docker build an instance, with pip. One property: only the packages differ.

    A    the Python and the declared dependencies that the product reads from the project's files, of today
    P    Python 3.9 for every repository, its usual extras and requirements files, of today
    P by uv    the same with uv in place of pip: what it gives, in a fraction of the time; for yields, not for times

Both start from the product's interpreter images, with this machine's certificates and package index settings mounted as
the product's own builds have them, and are judged by the product's evaluation, each state in a fresh container.
"""

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.environments.measuring import BUILD_S, Environment, instance_of, measured, services_of
from benchmarks.environments.ours import MARK, MarkedBackend
from benchmarks.environments.rows import Row
from db.enums import RejectReason
from swefactory.checkouts import copy_tree
from swefactory.errors import Rejected
from swefactory.protocols import Recipe
from swefactory.recipes.python import detect
from swefactory.recipes.versions import from_tags
from swefactory.sandbox_protocols import CommandResult, EnvironmentSpec, Materialised
from swefactory.sandboxes.build_faults import log_text
from swefactory.sandboxes.docker import DockerBackend
from swefactory.sandboxes.docker_engine import Build
from swefactory.stage import Services
from swefactory.stages.environments import EnvironmentInput, commit_date

_HERE = Path(__file__).parent
_ONE_PYTHON = "3.9"
BY_UV = "P by uv"
_SCRIPTS = {"A": "pip_right_python.sh", "P": "pip_one_python.sh", BY_UV: "pip_one_python.sh"}


class PipBackend(MarkedBackend):
    """The docker sandbox, with an image of pip's in place of an environment's."""

    image = ""

    def materialise(self, spec: EnvironmentSpec) -> Materialised:
        return Materialised(self.image, 1, 0.0, built=False)

    def build(self, python_version: str, tree: Path, script: str, files: dict[str, str]) -> CommandResult:
        """One docker build."""
        python_image, program, _ = self.images.python(python_version)
        self.image = f"{MARK}/pip:{secrets.token_hex(6)}"
        with self.images.context() as context:
            (context / "tree").mkdir()
            copy_tree(tree, context / "tree")
            (context / "pip").mkdir()
            paths = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir())
            (context / "pip" / "files").write_text("\0".join(paths), errors="surrogateescape")
            for name in ("all", "prepare", "settings"):
                shutil.copyfile(_HERE / f"pip_{name}.sh", context / "pip" / f"{name}.sh")
            shutil.copyfile(_HERE / script, context / "pip" / "install.sh")
            for name, text in files.items():
                (context / "pip" / name).write_text(text)
            arguments = {"PYTHON_IMAGE": python_image, "PYTHON": program, "MARK": self.image}
            arguments["UV_IMAGE"] = self.images.uv()
            named = {"index": context / "index.env"}
            build = Build(
                context, _HERE / "pip.Dockerfile", self.image, arguments, {}, named
            )  # fmt: skip
            return self.engine.build(build, self.images.timeout_s)

    def size(self) -> tuple[int, int]:
        """(unique, shared) bytes of the last image."""
        image = self.engine.image(self.image)
        found = next((each for each in self.engine.usage()["Images"] if image and each["Id"] == image.id), None)
        return (int(found["Size"]) - int(found["SharedSize"]), int(found["SharedSize"])) if found else (0, 0)

    def remove(self) -> None:
        if self.engine.image(self.image) is not None:
            self.engine.remove_image(self.image)


def pip(folder: Path, subject: EnvironmentInput, way: str) -> Iterator[Row]:
    """A or P on one candidate; its image is removed."""
    backend = PipBackend(folder / "cache")
    services = services_of(backend, folder)
    try:
        row = measured(services, subject, way, lambda: _made(services, backend, subject, way))
        unique, shared = backend.size() if row.is_built else (0, 0)
        yield replace(row, unique_bytes=unique, shared_bytes=shared)
    finally:
        backend.remove()


def _made(services: Services, backend: PipBackend, subject: EnvironmentInput, way: str) -> Environment:
    mirror = services.checkouts.mirror(subject.repository, subject.clone_url)
    tree = services.checkouts.tree(subject.repository, mirror, subject.base_commit)
    version = from_tags(mirror, subject.base_commit)
    recipe = _recipe(services, subject, tree, version)
    if way == "A" and recipe is None:
        raise Rejected(RejectReason.NOT_PYTHON_PROJECT, "nothing says which Python and packages this needs")
    python = recipe.python_version if way == "A" and recipe else _ONE_PYTHON
    files = {
        "version": (recipe.layout.version if recipe else version) or "0",
        "requirements.txt": "".join(f"{line}\n" for line in (recipe.requirements if recipe else ("pytest",))),
        "constraints.txt": "".join(f"{line}\n" for line in (recipe.constraints if recipe else ())),
    }
    files |= {"by_uv": ""} if way == BY_UV else {}
    said = backend.build(python, tree, _SCRIPTS[way], files)
    if said.exit_code != 0:
        why = "time ran out" if said.timed_out else log_text(said)[-2500:]
        raise Rejected(RejectReason.BUILD_FAILED, why)
    instance = instance_of(subject, services, python=python, digest=backend.image.rpartition(":")[2])
    if recipe:
        instance = replace(
            instance, environment_variables=recipe.environment_variables, test_command=recipe.test_command
        )
    return Environment(instance)


def _recipe(services: Services, subject: EnvironmentInput, tree: Path, version: str) -> Recipe | None:
    mirror = services.checkouts.mirror(subject.repository, subject.clone_url)
    as_of, pythons = commit_date(mirror, subject.base_commit), services.sandboxes.pythons()
    try:
        return detect(tree, as_of=as_of, pythons=pythons, fallback_version=version, test_files=subject.test_files)
    except Rejected:
        return None


def prepare(folder: Path) -> None:
    """Makes the interpreters' images, before any clock runs."""
    backend = DockerBackend(folder / "cache", build_timeout_s=BUILD_S)
    for version in backend.pythons():
        backend.images.python(version)
