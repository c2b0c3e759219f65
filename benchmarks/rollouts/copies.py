"""A copy of a catalog to run rollouts in:

    FOLDER/catalog.db            the copy, its queue empty
    FOLDER/artifacts, cache ─►   the home's own: files named by their content, and what is built

One property: the catalog it is made from is only read.
"""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Engine, delete

from db.engine import make_engine, session, upgrade
from db.models import Job
from swefactory.config import Settings


@contextmanager
def copied(home: Settings, folder: Path, sandbox: str) -> Iterator[tuple[Settings, Engine]]:
    """Settings and catalog of the copy. Ends the program where `home` has no SQLite catalog."""
    source = Path(home.catalog_url.removeprefix("sqlite:///"))
    if not home.catalog_url.startswith("sqlite:") or not source.is_file():
        sys.exit(f"no SQLite catalog at {home.catalog_url}: set SWEFACTORY_HOME to a folder that has one")
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as old,
        closing(sqlite3.connect(folder / "catalog.db")) as new,
    ):
        old.backup(new)
    for place in (home.artifacts_dir, home.cache_dir):
        (folder / place.name).symlink_to(place.resolve())
    own = {"home": folder, "database_url": "", "mirror_dir": home.mirrors, "sandbox": sandbox}
    copy = Settings(**home.model_dump() | own)
    engine = make_engine(copy.catalog_url)
    upgrade(engine)
    with session(engine) as db:
        db.connection().execute(delete(Job))
    yield copy, engine
    engine.dispose()


def work(settings: Settings, model_url: str, model_key: str, n_processes: int) -> int:
    """`swefactory run` of rollouts and their grading, in processes of its own as a user's; its exit code."""
    command = [sys.executable, "-m", "swefactory.cli.main", "run", "-j", str(n_processes)]
    stages = ["--stage", "rollout", "--stage", "grade", "--sandbox", settings.sandbox]
    kept = {name: value for name, value in os.environ.items() if name != "SWEFACTORY_DATABASE_URL"}
    own = {
        "HOME": str(settings.home), "MIRROR_DIR": str(settings.mirrors),
        "MODEL_URL": model_url, "MODEL_API_KEY": model_key,
    }  # fmt: skip
    environment = kept | {f"SWEFACTORY_{name}": value for name, value in own.items()}
    return subprocess.run([*command, *stages], check=False, env=environment, stdout=sys.stderr).returncode
