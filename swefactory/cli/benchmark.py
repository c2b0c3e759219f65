"""`swefactory benchmark`: the benchmarks that nothing mined may be of."""

from pathlib import Path
from typing import Annotated

import typer

from swefactory.benchmark_lists import index_instances, load_lists, write_list
from swefactory.cli.context import AsJson, settings
from swefactory.cli.output import console, show

app = typer.Typer(no_args_is_help=True, help="Benchmark lists: what is in one of them is not mined.")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the benchmark lists in force: the delivered ones and those of SWEFACTORY_BENCHMARKS.

    Examples: `swefactory benchmark list` · `SWEFACTORY_BENCHMARKS=mine.jsonl swefactory benchmark list --json`
    """
    columns = ["name", "n_rows", "n_published", "n_with_commit", "n_with_patch", "n_with_issue", "sha256"]
    rows = [
        [
            known.id.name,
            known.id.n_rows,
            known.n_published,
            sum(bool(row.base_commit) for row in known.rows),
            sum(bool(row.patch_digest) for row in known.rows),
            sum(bool(row.issue_signature) for row in known.rows),
            known.id.sha256,
        ]
        for known in load_lists(settings().benchmarks)
    ]
    show(columns, rows, as_json=as_json)


@app.command("index")
def index(
    file: Annotated[Path, typer.Argument(help="JSONL, an instance a line, with SWE-bench's field names.")],
    name: Annotated[str, typer.Option(help="The benchmark's name; a delivered list's name replaces that list.")],
    out: Annotated[Path, typer.Option(help="The list to write.")],
) -> None:
    """Make a list from a benchmark's own file: its identifiers, patch digests and issue signatures, no texts.

    Example: `swefactory benchmark index swe-gym.jsonl --name swe-gym --out swe-gym-list.jsonl`
    """
    made = write_list(out, name, index_instances(file, name))
    console.print(f"{out}: {made.n_rows} instances of {made.name}, {made.sha256}", markup=False, soft_wrap=True)
    console.print(f"next: SWEFACTORY_BENCHMARKS={out} swefactory benchmark list", markup=False, soft_wrap=True)
