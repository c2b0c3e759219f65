"""A docker engine behind the launcher. One property: this process has no way to the engine but the launcher's.

Containers and images go through the SDK, to the launcher's address and with its token; a build is sent as one order
with its context, because the launcher builds from its own templates. See docker_launcher.
"""

import base64
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from swefactory.errors import InfrastructureError, SandboxUnavailable, UsageError
from swefactory.sandbox_protocols import CommandResult
from swefactory.sandboxes.docker_engine import API_TIMEOUT_S, Build, Engine

if TYPE_CHECKING:
    from docker import DockerClient

ORDER = "order.json"  # the first member of a build's tar; then context/… and secrets/NAME
_SPARE_S = 60.0  # for the way there and back, beyond the build's own time


@dataclass(frozen=True)
class Launcher:
    """Where it is, `http://host:port`, and the token it shares with its users."""

    url: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


class LaunchedEngine(Engine):
    """See Engine. What the launcher refuses is an InfrastructureError with the launcher's sentence."""

    def __init__(self, launcher: Launcher, folder: Path) -> None:
        where = urlsplit(launcher.url)
        super().__init__(f"tcp://{where.hostname}:{where.port or 80}")
        self._launcher, self._folder = launcher, folder

    @property
    def client(self) -> "DockerClient":
        """Raises SandboxUnavailable when the launcher does not answer or knows another token."""
        import docker
        import requests

        with self._lock:
            if self._client is None or self._client[0] != os.getpid():
                try:
                    told = requests.get(f"{self._launcher.url}/version", headers=self._launcher.headers, timeout=30)
                    if told.status_code != requests.codes.ok:
                        raise SandboxUnavailable(f"{self._launcher.url}: {_message(told.content)}")
                    made = docker.DockerClient(
                        self.host, version=told.json()["ApiVersion"], timeout=API_TIMEOUT_S, max_pool_size=32
                    )
                except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
                    raise SandboxUnavailable(self.unreachable(error)) from error
                made.api.headers.update(self._launcher.headers)
                self._client = (os.getpid(), made)
            return self._client[1]

    @property
    def is_local(self) -> bool:
        return False

    def unreachable(self, error: object) -> str:
        return f"the launcher at {self._launcher.url} does not answer ({error}); start `swefactory launcher` there"

    def program(self) -> list[str]:
        """The docker program reads headers from a file of its settings, which is ours alone."""
        folder = self._folder / "launcher"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        text = json.dumps({"HttpHeaders": self._launcher.headers})
        path = folder / "config.json"
        if not path.exists() or path.read_text() != text:
            part = folder / f".config.{os.getpid()}"
            part.touch(mode=0o600)
            part.write_text(text)
            part.rename(path)
        return ["docker", "--config", str(folder), "--host", self.host]

    def build(self, build: Build, timeout_s: float) -> CommandResult:
        """See Engine.build; only templates of images/ can be built."""
        with tempfile.TemporaryFile() as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                _add_order(tar, build, timeout_s)
                tar.add(build.context, "context")
                for name, path in sorted(build.secrets.items()):
                    tar.add(path, f"secrets/{name}")
            file.seek(0)
            answer = self._post("/launcher/build", timeout_s, file)
        line, _, rest = answer.partition(b"\n")
        said = json.loads(line)
        if build.output is not None and said["exit_code"] == 0:
            build.output.write_bytes(rest)
        said["output"] = base64.b64decode(said["output"])
        return CommandResult(**said)

    def pull(self, name: str, timeout_s: float) -> str | None:
        """See Engine.pull."""
        return self._moved("pull", name, timeout_s)

    def share(self, name: str, there: str, timeout_s: float) -> str | None:
        """See Engine.share; the launcher knows by the registry's name which image of ours is meant."""
        return self._moved("push", there, timeout_s)

    def _moved(self, how: str, name: str, timeout_s: float) -> str | None:
        order = io.BytesIO(json.dumps({"name": name, "timeout_s": timeout_s}).encode())
        why: str | None = json.loads(self._post(f"/launcher/{how}", timeout_s, order))["why"]
        return why

    def _post(self, path: str, timeout_s: float, body: IO[bytes]) -> bytes:
        import requests

        with self.faults(f"reach the launcher at {self._launcher.url}"):
            answer = requests.post(
                f"{self._launcher.url}{path}", data=body, headers=self._launcher.headers, timeout=timeout_s + _SPARE_S
            )
        if answer.status_code != requests.codes.ok:
            raise InfrastructureError(_message(answer.content))
        return answer.content

    def import_root(self, folder: Path | None, tar: Path | None, name: str, timeout_s: float) -> None:
        """Raises UsageError: a root file system is not in the launcher's schema."""
        raise UsageError("the launcher makes no base image; run `swefactory images bootstrap` where the engine is")


def _add_order(tar: tarfile.TarFile, build: Build, timeout_s: float) -> None:
    order: Mapping[str, Any] = {
        "template": build.dockerfile.name,
        "tag": build.tag,
        "arguments": dict(build.arguments),
        "labels": dict(build.labels),
        "secrets": sorted(build.secrets),
        "has_output": build.output is not None,
        "timeout_s": timeout_s,
    }
    text = json.dumps(order).encode()
    info = tarfile.TarInfo(ORDER)
    info.size = len(text)
    tar.addfile(info, io.BytesIO(text))


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return "the launcher answered what is no answer of its; is something else at its address?"
