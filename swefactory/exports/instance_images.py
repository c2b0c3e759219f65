"""The image of a task instance: its environment, its sealed checkout, and what runs its tests.

    swefactory/instance:<24 hex digits>   of a hash over all that goes in; [REGISTRY/] in front where it is pushed

One property: the name is known from the catalog alone, and an image of that name holds exactly what the name says. It
is built on this machine's docker engine, whichever sandbox validated the instance.
"""

import enum
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path

from swefactory.artifacts import digest_of
from swefactory.errors import InfrastructureError
from swefactory.evaluation import INPUTS, EvaluationSpec
from swefactory.image_files import image_file, image_text
from swefactory.instance_runs import EvaluatedInstance, RunServices, base_evaluation
from swefactory.recipes.generated_files import write_generated
from swefactory.recipes.layout import write_project
from swefactory.sandboxes.docker import DockerBackend
from swefactory.sandboxes.docker_engine import Build
from swefactory.sandboxes.docker_images import MADE_FROM
from swefactory.sandboxes.docker_store import HOME_LABEL
from swefactory.sandboxes.isolation import ENVIRONMENT
from swefactory.tree_diffs import remember
from swefactory.trees import copy_tree, seal

IMAGE = "swefactory/instance"
_RUNNERS = ("swefactory_run.py", "swefactory_plugin.py", "swefactory_verdict.py")
_TEMPLATES = ("instance.Dockerfile", "model-patch.sh")
_OF_THE_USER = ("HOME", "USER", "LOGNAME")  # graders may be root, and are somebody else then


class ImageSource(enum.StrEnum):
    """Where the images of an export are."""

    REBUILD = "rebuild"  # nowhere yet: built from the lock when somebody asks for it
    LOCAL = "local"  # on this machine's engine
    REGISTRY = "registry"  # pushed
    OCI = "oci"  # in the export, as an OCI layout


def image_name(instance: EvaluatedInstance, registry: str = "") -> str:
    """The image's name; of a hash, so that it is another image when anything in it is another."""
    name = f"{IMAGE}:{made_from(instance)[:24]}"
    return f"{registry.rstrip('/')}/{name}" if registry else name


def made_from(instance: EvaluatedInstance) -> str:
    """A hash over all that goes into the image, in hex digits."""
    facts = {
        "environment": instance.environment_digest,
        "repository": instance.repository,
        "base_commit": instance.base_commit,
        "layout": asdict(instance.layout),
        "variables": dict(instance.environment_variables),
        "files": _file_digests(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@cache
def _file_digests() -> tuple[str, ...]:
    """Of the files that are the same in every image; read once a process, as every row of an export names its image."""
    texts = [(INPUTS / name).read_text(encoding="utf-8") for name in _RUNNERS]
    return tuple(digest_of(text.encode()) for text in (*texts, *map(image_text, _TEMPLATES)))


def build(services: RunServices, docker: DockerBackend, instance: EvaluatedInstance) -> bool:
    """Makes the image unless it stands; whether it was made now. Raises Rejected, SandboxUnavailable,
    InfrastructureError."""
    name, source = image_name(instance), made_from(instance)
    found = docker.engine.image(name)
    if found is not None and found.labels.get(MADE_FROM) == source:
        return False
    spec, _ = base_evaluation(services, instance)
    environment = docker.materialise(spec.environment).locator
    with services.checkouts.scratch() as folder:
        context = Path(folder) / "context"
        _write_context(context, spec)
        labels = {MADE_FROM: source, HOME_LABEL: docker.home, "swefactory.instance": instance.instance_id}
        build = Build(context, context / "Dockerfile", name, {"ENVIRONMENT": environment}, labels, {})
        result = docker.engine.build(build, services.settings.build_timeout_s)
    if result.exit_code != 0:
        said = result.output.decode(errors="replace").strip().splitlines()[-5:]
        raise InfrastructureError(f"docker could not build the image of {instance.instance_id}: {' '.join(said)}")
    return True


def variables(instance_variables: Mapping[str, str]) -> dict[str, str]:
    """The environment in which the tests run, as in a sandbox."""
    return {**ENVIRONMENT, **instance_variables}


def _write_context(context: Path, spec: EvaluationSpec) -> None:
    checkout, inputs = context / "checkout", context / "inputs"
    checkout.mkdir(parents=True)
    inputs.mkdir()
    copy_tree(spec.tree, checkout)
    write_generated(spec.layout, checkout)
    (inputs / "base_tree").write_text(f"{remember(checkout, inputs)}\n")
    seal(checkout)
    write_project(spec.layout, context / "project")
    for name in _RUNNERS:
        shutil.copyfile(INPUTS / name, inputs / name)
    shutil.copyfile(image_file("model-patch.sh"), inputs / "model-patch.sh")
    inside = variables(spec.environment_variables)
    (inputs / "environment.json").write_text(json.dumps(inside, sort_keys=True, indent=1) + "\n")
    (context / "Dockerfile").write_text(dockerfile(inside))


def dockerfile(inside: Mapping[str, str]) -> str:
    """images/instance.Dockerfile with the variables that everybody inside sees."""
    lines = [f"ENV {name}={_quoted(value)}" for name, value in sorted(inside.items()) if name not in _OF_THE_USER]
    return image_file("instance.Dockerfile").read_text(encoding="utf-8") + "".join(f"{line}\n" for line in lines)


def _quoted(value: str) -> str:
    """A value of ENV: in double quotes, where backslash, quote and dollar are escaped."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'
