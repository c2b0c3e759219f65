"""Fills an environment's image in docker builds. One property: a package's own code runs in a build of its own, cut
off, of which nothing but a wheel is taken.

See images/python-env.Dockerfile and images/install.sh, and wheel_filling, whose Builder this is.
"""

import shutil
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from swefactory.image_files import image_file
from swefactory.sandbox_protocols import CommandResult, EnvironmentSpec
from swefactory.sandboxes.build_faults import build_failure, log_text
from swefactory.sandboxes.build_tries import BuildTry
from swefactory.sandboxes.kept_wheels import KeptWheels, Pin
from swefactory.sandboxes.python27 import is_described, write_description

UV27 = "uv27"  # in a context, what stands for an interpreter of 2.7


@dataclass(frozen=True)
class DockerFilling:
    """`program` is the interpreter's path in the image. `build` makes a context to the environment's image or, with
    INSTALL=wheel, to a tar of what a package's build left."""

    spec: EnvironmentSpec
    program: str
    context: Callable[[], AbstractContextManager[Path]]
    build: Callable[[Path, str, Path | None], CommandResult]  # context, INSTALL, the tar

    def wheels(self, lock: str, built: Sequence[Path]) -> CommandResult:
        """See Builder."""
        with self.context() as context:
            folder = self._lay_out(context, lock)
            for wheel in built:
                shutil.copyfile(wheel, folder / "wheels" / wheel.name)
            return self.build(context, "wheels", None)

    def source(self, pin: Pin, how: BuildTry, kept: KeptWheels) -> tuple[CommandResult, Path | None]:
        """See Builder."""
        with self.context() as context, tempfile.TemporaryDirectory(dir=context.parent) as name:
            folder = self._lay_out(context, pin.lock)
            (folder / "constraint.txt").write_text(how.constraint)
            (folder / "options").write_text("".join(f"{option}\n" for option in how.options))
            tar, left = Path(name) / "left.tar", Path(name) / "left"
            result = self.build(context, "wheel", tar)
            if result.exit_code != 0:
                return result, None
            with tarfile.open(tar) as archive:
                archive.extractall(left, filter="data")
            return result, kept.keep(pin, self.spec.python_version, left)

    def text(self, result: CommandResult) -> str:
        """See Builder."""
        return log_text(result)

    def failure(self, result: CommandResult) -> Exception:
        """See Builder."""
        return build_failure(self.spec, result)

    def _lay_out(self, context: Path, lock: str) -> Path:
        folder = context / "lock"
        (folder / "wheels").mkdir(parents=True)
        shutil.copyfile(image_file("install.sh"), folder / "install.sh")
        (folder / "lock.txt").write_text(lock)
        if is_described(self.spec.python_version):
            write_description(folder / UV27, self.program)
        return folder
