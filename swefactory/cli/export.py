"""`swefactory export`: read-only copies out of the catalog, each in a folder of its own below --out."""

import enum
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Engine

from db.engine import session
from db.enums import ExportFormat
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.exporting import ended, exported, fate, say_left_out
from swefactory.cli.output import show
from swefactory.config import Settings
from swefactory.errors import EXIT_FINDINGS
from swefactory.exports import dataset, harbor, preferences, subsets, swebench_folder, trajectories
from swefactory.exports.diffs import differences
from swefactory.exports.folder import ExportFolder
from swefactory.exports.image_sources import Images
from swefactory.exports.instance_images import ImageSource
from swefactory.exports.manifest import read_manifest
from swefactory.exports.rollout_subjects import RolloutChoice
from swefactory.exports.subjects import Choice
from swefactory.exports.swebench_folder import Extras
from swefactory.exports.trajectories import Form, Telling, ToolArgs
from swefactory.trajectory_filters import DEFAULT_MAX_TOKENS
from swefactory.wiring import make_artifacts, make_docker, make_services

app = typer.Typer(no_args_is_help=True, help="Exports: read-only copies out of the catalog, with manifest and hashes.")

Out = Annotated[Path, typer.Option("--out", "-o", help="The export becomes the folder OUT/FORMAT.")]
Where = Annotated[
    str,
    typer.Option(help="A condition in SQL over the columns of `swefactory query exportable`; empty: all validated."),
]
Uncertified = Annotated[
    bool, typer.Option("--uncertified", help="Also those whose certificate is missing, old or of other patches.")
]
ImagesFrom = Annotated[
    ImageSource,
    typer.Option("--images", help="Rebuild from locks later, or build now: on this engine, pushed, as OCI."),
]


class Network(enum.StrEnum):
    """Harbor's words for it."""

    NO_NETWORK = "no-network"
    PUBLIC = "public"


@app.command("swebench")
def swebench_(
    out: Out = Path("exports"),
    where: Where = "",
    images: ImagesFrom = ImageSource.REBUILD,
    parquet: Annotated[bool, typer.Option("--parquet", help="Also as parquet, loadable by `datasets`.")] = False,
    task_repo: Annotated[bool, typer.Option("--task-repo", help="Also as a SWE-bench task repository.")] = False,
    uncertified: Uncertified = False,
) -> None:
    """Validated task instances for the stock SWE-bench harness (v5). Ends with 1 when some are left out.

    Examples: `swefactory export swebench --out exports` ·
    `swefactory export swebench --where "repo = 'pallets/click' AND n_fail_to_pass >= 2" --images local`
    """
    current = settings()
    with catalog(current) as engine:
        provided, choice = _images(current, engine, images), Choice(where, uncertified, current.revalidate_days)
        extras = Extras(parquet, task_repo)
        ended(
            exported(
                engine, ExportFormat.SWEBENCH, out,
                lambda target: swebench_folder.write(engine, provided, choice, target, extras),
            )
        )  # fmt: skip


@app.command("harbor")
def harbor_(
    out: Out = Path("exports"),
    where: Where = "",
    images: ImagesFrom = ImageSource.REBUILD,
    network: Annotated[
        Network, typer.Option(help="Of agent and verifier; where Harbor cannot close it, it refuses no-network.")
    ] = Network.NO_NETWORK,
    uncertified: Uncertified = False,
) -> None:
    """Validated task instances as Harbor task folders (schema 1.4). Ends with 1 when some are left out.

    Example: `swefactory export harbor --out exports --images local`
    """
    current = settings()
    with catalog(current) as engine:
        provided, choice = _images(current, engine, images), Choice(where, uncertified, current.revalidate_days)
        terms = harbor.Terms(network.value)
        ended(
            exported(
                engine, ExportFormat.HARBOR, out, lambda target: harbor.write(engine, provided, choice, target, terms)
            )
        )


@app.command("dataset")
def dataset_(
    out: Out = Path("exports"),
    where: Where = "",
    images: ImagesFrom = ImageSource.REBUILD,
    test_after: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="by_time's test split starts here; default: the latest tenth."),
    ] = None,
    uncertified: Uncertified = False,
) -> None:
    """Validated task instances as a Hugging Face data set (needs pyarrow). Ends with 1 when some are left out.

    Example: `swefactory export dataset --out exports --test-after 2025-01-01`
    """
    current = settings()
    with catalog(current) as engine:
        provided = _images(current, engine, images)
        choice = Choice(where, uncertified, current.revalidate_days, for_training=True)
        day = test_after.date() if test_after else None
        ended(
            exported(
                engine, ExportFormat.DATASET, out, lambda target: dataset.write(engine, provided, choice, target, day)
            )
        )


Suspicious = Annotated[bool, typer.Option("--suspicious", help="Also those whose patch may have fooled the tests.")]
MaxTokens = Annotated[int, typer.Option(min=0, help="Longer ones are not fit; 0: none is too long.")]
Tokenizer = Annotated[
    str, typer.Option(help="What counts tokens: bytes (a quarter of them), a model's name, or a tokenizer.json.")
]


@app.command("trajectories")
def trajectories_(
    out: Out = Path("exports"),
    where: Where = "",
    form: Annotated[Form, typer.Option(help="OpenAI's messages, our own form, or a file of ATIF each.")] = Form.OPENAI,
    tool_args: Annotated[
        ToolArgs, typer.Option(help="Arguments of tool calls in messages: as text, as OpenAI wants, or as objects.")
    ] = ToolArgs.STR,
    unresolved: Annotated[bool, typer.Option("--unresolved", help="Also graded ones that did not resolve.")] = False,
    unfit: Annotated[bool, typer.Option("--unfit", help="Also those the filter drops, with its reason.")] = False,
    suspicious: Suspicious = False,
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS,
    tokenizer: Tokenizer = "bytes",
) -> None:
    """Resolved trajectories, with the tests that confirmed each, masks and filter reasons.

    Examples: `swefactory export trajectories --out exports` ·
    `swefactory export trajectories --tool-args dict --unresolved --unfit` ·
    `swefactory export trajectories --form atif --where "repo = 'pallets/click'"`
    """
    current = settings()
    choice = RolloutChoice(where, unresolved, suspicious, max_tokens or None, tokenizer)
    telling = Telling(form, tool_args, unfit)
    with catalog(current) as engine:
        artifacts = make_artifacts(current)
        say_left_out(
            exported(
                engine, ExportFormat.TRAJECTORIES, out,
                lambda target: trajectories.write(engine, artifacts, target, choice, telling),
            )
        )  # fmt: skip


@app.command("preferences")
def preferences_(
    out: Out = Path("exports"),
    where: Where = "",
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="At most so many pairs of one instance.")] = 4,
    tool_args: Annotated[
        ToolArgs, typer.Option(help="Arguments of tool calls: as objects, as chat templates want, or as text.")
    ] = ToolArgs.DICT,
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS,
    tokenizer: Tokenizer = "bytes",
) -> None:
    """Resolved rollouts against unresolved ones of the same instance: pairs, KTO rows and stepwise labels for TRL.

    Example: `swefactory export preferences --out exports --pairs 2`
    """
    current = settings()
    choice = RolloutChoice(where, unresolved=True, max_tokens=max_tokens or None, tokenizer=tokenizer)
    pairing = preferences.Pairing(pairs, tool_args)
    with catalog(current) as engine:
        artifacts = make_artifacts(current)
        say_left_out(
            exported(
                engine, ExportFormat.PREFERENCES, out,
                lambda target: preferences.write(engine, artifacts, target, choice, pairing),
            )
        )  # fmt: skip


@app.command("subsets")
def subsets_(
    out: Out = Path("exports"),
    where: Where = "",
    images: ImagesFrom = ImageSource.REBUILD,
    seed: Annotated[int, typer.Option(help="Another seed gives other subsets.")] = 0,
    sizes: Annotated[
        list[int] | None, typer.Option("--size", min=1, help="A subset of so many; default 125, 250, 500 … and all.")
    ] = None,
    min_rate: Annotated[float, typer.Option(help="rl.jsonl: at least this share of tries solve it.")] = 0.05,
    max_rate: Annotated[float, typer.Option(help="rl.jsonl: at most this share of tries solve it.")] = 0.95,
    min_tries: Annotated[int, typer.Option(min=1, help="rl.jsonl: it was tried at least so often.")] = 2,
    uncertified: Uncertified = False,
) -> None:
    """Nested, seeded subsets by repository and difficulty, and a set for reinforcement learning. Ends with 1 when some
    are left out.

    Examples: `swefactory export subsets --out exports --seed 7` · `swefactory export subsets --size 10 --size 100`
    """
    current = settings()
    cut = subsets.Cut(seed, tuple(sizes or ()), min_rate, max_rate, min_tries)
    with catalog(current) as engine:
        provided = _images(current, engine, images)
        choice = Choice(where, uncertified, current.revalidate_days, for_training=True)
        ended(
            exported(
                engine, ExportFormat.SUBSETS, out, lambda target: subsets.write(engine, provided, choice, target, cut)
            )
        )


@app.command("diff")
def diff(
    old: Annotated[Path, typer.Argument(help="An export's folder.")],
    new: Annotated[Path, typer.Argument(help="A later one of the same format.")],
    as_json: AsJson = False,
) -> None:
    """Name every row that was added, removed or changed between two exports, and why. Ends with 1 if there is any.

    Example: `swefactory export diff released/swebench exports/swebench`
    """
    with catalog(settings()) as engine, session(engine, writing=False) as db:
        found = list(differences(read_manifest(old), read_manifest(new), lambda key: fate(db, key)))
    rows = [[each.kind, each.key, each.why] for each in found]
    show(["change", "row", "why"], rows, as_json=as_json, empty="no row differs")
    if found:
        raise typer.Exit(EXIT_FINDINGS)


def write_all(current: Settings, engine: Engine, out: Path) -> list[Path]:
    """What the demo shows: one export of each kind of row; their folders."""
    images, artifacts = _images(current, engine, ImageSource.REBUILD), make_artifacts(current)
    wanted: list[tuple[ExportFormat, Callable[[Path], ExportFolder]]] = [
        (ExportFormat.SWEBENCH, lambda target: swebench_folder.write(engine, images, Choice(), target)),
        (ExportFormat.TRAJECTORIES, lambda target: trajectories.write(engine, artifacts, target)),
    ]
    return [exported(engine, kind, out, write).target for kind, write in wanted]


def _images(current: Settings, engine: Engine, source: ImageSource) -> Images:
    docker = None if source is ImageSource.REBUILD else make_docker(current)
    return Images(source, make_services(current, engine), docker, current.image_registry)
