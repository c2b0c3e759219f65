"""What the launcher does itself: builds, pulls and pushes; and whether what a request names is ours. One property: an
order outside its schema is refused before the engine hears of it.

A build comes as a tar (order.json, context/…, secrets/NAME) and is made from the template of images/ that it names.
"""

import base64
import json
import re
import tarfile
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swefactory.image_files import image_file
from swefactory.sandbox_protocols import Limits
from swefactory.sandboxes.docker_container import JOB_LABEL
from swefactory.sandboxes.docker_engine import LABEL, Build, Engine
from swefactory.sandboxes.docker_launched import ORDER
from swefactory.sandboxes.docker_launcher_rules import MAX_JSON_BYTES, OUR_IMAGE, Kind, Passed, Refused

TEMPLATES = ("base.Dockerfile", "python.Dockerfile", "python-env.Dockerfile", "resolve.Dockerfile", "uv.Dockerfile")
_IMAGE_ARGUMENTS = ("ROOT", "BASE", "PYTHON_IMAGE", "UV_IMAGE")


class BuildOrder(BaseModel):
    """What a build may say. Its context is data; what runs is the template, in the engine's builder."""

    model_config = ConfigDict(extra="forbid", strict=True, regex_engine="python-re")
    template: str
    tag: str = Field(pattern=rf"^({OUR_IMAGE})?$")
    arguments: dict[str, str]
    labels: dict[str, str]
    secrets: list[str]
    has_output: bool
    timeout_s: float = Field(gt=0, le=6 * 3600)


class MoveOrder(BaseModel):
    """A pull or a push."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    timeout_s: float = Field(gt=0, le=6 * 3600)


@dataclass(frozen=True)
class LauncherRules:
    """What this launcher allows beyond the schema: images to begin with, a registry to share through, the limits."""

    token: str
    maximum: Limits = field(default_factory=Limits)
    roots: tuple[str, ...] = ()
    registry: str = ""


class Launching:
    """Does what may be done. Safe to share between threads."""

    def __init__(self, engine: Engine, rules: LauncherRules) -> None:
        self.engine, self.rules = engine, rules
        self._ours: set[tuple[Kind, str]] = set()  # labels never change, so that an answer holds

    def require(self, passed: Passed) -> None:
        """Raises Refused unless what the request names is ours."""
        if passed.image:
            self._require_image(passed.image)
        if passed.container:
            self._require("container", passed.container)
        if passed.subject_id and passed.route.subject == "image":
            self._require_image(passed.subject_id, is_question=passed.route.method == "GET")
        elif passed.subject_id and passed.route.subject:
            self._require(passed.route.subject, passed.subject_id)

    def _require(self, kind: Kind, subject_id: str) -> None:
        if (kind, subject_id) in self._ours:
            return
        import docker

        api, container_id = self.engine.api, subject_id
        with self.engine.faults(f"look at the {kind} {subject_id[:12]}"):
            try:
                if kind == "exec":
                    container_id = api.exec_inspect(subject_id)["ContainerID"]
                labels = api.inspect_container(container_id)["Config"]["Labels"] or {}
            except docker.errors.NotFound:
                return  # the engine says so itself
        if labels.get(LABEL) != "1" or JOB_LABEL not in labels:  # an image of ours gives its containers the first alone
            raise Refused(f"the launcher touches containers of jobs only; {container_id[:12]} has no label {JOB_LABEL}")
        self._ours.add((kind, subject_id))

    def _require_image(self, name: str, *, is_question: bool = False) -> None:
        """Of an image that is not there one may ask: the answer is that it is not."""
        if name in self.rules.roots:
            return
        image = self.engine.image(name)
        if image is None and (is_question or re.fullmatch(OUR_IMAGE, name)):
            return
        if image is None or image.labels.get(LABEL) != "1":
            raise Refused(f"the launcher touches images with the label {LABEL}=1 only; {name} has none")

    def build(self, body: IO[bytes]) -> bytes:
        """One line of JSON, the command's result, and then the exported tar, if any. Raises Refused."""
        with tempfile.TemporaryDirectory(prefix="swefactory-launcher-") as name:
            folder = Path(name)
            order = _unpacked(body, folder)
            self._check(order)
            output = folder / "output.tar" if order.has_output else None
            secrets = {name: folder / "secrets" / name for name in order.secrets}
            template = image_file(order.template)
            context = folder / "context"
            build = Build(context, template, order.tag, order.arguments, order.labels, secrets, output)
            result = self.engine.build(build, order.timeout_s)
            said = {**asdict(result), "output": base64.b64encode(result.output).decode()}
            left = output.read_bytes() if output is not None and output.exists() else b""
            return json.dumps(said).encode() + b"\n" + left

    def _check(self, order: BuildOrder) -> None:
        if order.template not in TEMPLATES:
            raise Refused(f"the launcher builds from {', '.join(TEMPLATES)}, not from {order.template!r}")
        if bool(order.tag) == order.has_output:
            raise Refused("the launcher makes an image or gives its files back, one of the two")
        declared = set(re.findall(r"^ARG (\w+)", image_file(order.template).read_text(), re.MULTILINE))
        if strange := sorted(set(order.arguments) - declared):
            raise Refused(f"{order.template} takes no {strange[0]}")
        if strange := sorted(label for label in order.labels if not label.startswith(f"{LABEL}.")):
            raise Refused(f"the launcher gives labels of ours only, not {strange[0]!r}")
        if strange := sorted(set(order.secrets) - {"index", "uv"}):
            raise Refused(f"the launcher hands no secret {strange[0]!r} to a build")
        for name in _IMAGE_ARGUMENTS:
            if name in order.arguments:
                self._require_image(order.arguments[name])

    def move(self, how: str, body: bytes) -> bytes:
        """Pulls a root or what the registry holds, pushes to the registry. Raises Refused."""
        order = _read(MoveOrder, body)
        shared = bool(self.rules.registry) and order.name.startswith(f"{self.rules.registry.rstrip('/')}/")
        if not (shared or (how == "pull" and order.name in self.rules.roots)):
            raise Refused(f"the launcher does not {how} {order.name}; its registry is {self.rules.registry or 'none'}")
        if how == "pull":
            return json.dumps({"why": self.engine.pull(order.name, order.timeout_s)}).encode()
        ours = order.name.removeprefix(f"{self.rules.registry.rstrip('/')}/")
        if not re.fullmatch(OUR_IMAGE, ours):
            raise Refused(f"the launcher does not push {ours}: it is no image of a sandbox")
        self._require_image(ours)
        return json.dumps({"why": self.engine.share(ours, order.name, order.timeout_s)}).encode()


def _read[M: BaseModel](model: type[M], body: bytes) -> M:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused(f"the launcher does not understand this order: {where}: {first['msg']}") from error


def _unpacked(body: IO[bytes], folder: Path) -> BuildOrder:
    """The order, its context and secrets below `folder`. No link leads out of it."""
    try:
        with tarfile.open(fileobj=body, mode="r|") as tar:
            members = iter(tar)
            first = next(members, None)
            file = tar.extractfile(first) if first is not None and first.name == ORDER else None
            if file is None or first is None or first.size > MAX_JSON_BYTES:
                raise Refused(f"a build begins with its {ORDER}")
            order = _read(BuildOrder, file.read())
            (folder / "context").mkdir()
            for member in members:
                if member.name.split("/")[0] not in ("context", "secrets"):
                    raise Refused(f"a build has a context and secrets, not {member.name!r}")
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise Refused(f"the launcher cannot unpack this build: {error}") from error
    if missing := [name for name in order.secrets if not (folder / "secrets" / name).is_file()]:
        raise Refused(f"the secret {missing[0]!r} did not come with the build")
    return order
