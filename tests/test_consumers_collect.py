"""SWE-bench's own collector and our crawl look at the same pull requests and give them the same fields.

`make consumers` runs this: `swebench dataset collect`, as it comes from the package registry, asks the demo's GitHub.
Where the two are meant to differ is written in benchmarks/exports/collector.py, which compares them on real
repositories, too.
"""

from pathlib import Path

import pytest

from benchmarks.exports.collector import FIELDS, agreement, collected, ours
from db.engine import session
from db.enums import StageName
from swefactory import admin
from swefactory.config import Settings
from swefactory.demo.github_server import github_server
from swefactory.demo.history import build_history
from swefactory.pipeline import run_embedded
from tests.catalogs import upgraded
from tests.consumer_environments import printed, started

pytestmark = pytest.mark.consumers
# All else is the same byte for byte.
OTHERWISE = {"patch": "form", "test_patch": "form", "hints_text": "form"}


def test_the_collectors_fields_are_ours(tmp_path: Path) -> None:
    """Of all pull requests with an issue and tests: the collector's choice and ours are the same here."""
    history = build_history(tmp_path / "sample")
    for name in ("prs", "tasks"):  # it makes no folders
        (tmp_path / name).mkdir()
    with github_server(history) as url:
        told = {"GH_HOST": url, "GITHUB_TOKENS": "any", "GITHUB_TOKEN": "any"}
        said = printed(started("swebench", ["swebench", "dataset", "collect", history.name], tmp_path, **told), 300)
        settings = Settings(home=tmp_path / "home", database_url="", github_url=url, github_token="any")
        catalog = upgraded(settings.catalog_url)
        with session(catalog) as db:
            admin.add_repository(db, history.name)
        run_embedded(settings, catalog, stages=(StageName.CRAWL, StageName.CANDIDATE))
    mine, theirs = ours(catalog, [history.name]), collected((tmp_path / "tasks").glob("*-task-instances.jsonl"))
    catalog.dispose()
    assert mine.keys() == theirs.keys(), said
    assert len(mine) == 7
    for name, row in mine.items():
        found = agreement(row, theirs[name])
        assert [field for field in FIELDS if found[field] not in ("same", OTHERWISE.get(field))] == []
    hinted = {name: row["hints_text"] for name, row in theirs.items() if row["hints_text"]}
    assert hinted, "the comparison of hints has something to compare"
    assert {name: mine[name]["hints_text"] for name in hinted} == {name: f"{text}\n" for name, text in hinted.items()}
