"""`swefactory images`: environments on disk, and the docker sandbox's base images."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from sqlmodel import Session, select

from db.engine import session
from db.models import Environment
from swefactory import environment_disk
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.output import console, errors, show
from swefactory.config import Settings
from swefactory.errors import EXIT_FINDINGS, UsageError
from swefactory.sandbox_protocols import EnvironmentSpec
from swefactory.wiring import make_artifacts, make_docker, make_sandboxes

app = typer.Typer(no_args_is_help=True, help="Environments on disk, and the docker sandbox's base images.")
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and do nothing.")]
Digests = Annotated[list[str] | None, typer.Argument(help="Beginnings of environments' digests.")]
All = Annotated[bool, typer.Option("--all", help="Every environment of the catalog.")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List what lies on disk; each byte counts once, and what several environments share is told apart.

    Example: `swefactory images list --json`
    """
    current = settings()
    use = make_sandboxes(current).disk_use()
    with catalog(current) as engine, session(engine) as db:
        environment_disk.reconcile(db, current.sandbox, use)
        users = environment_disk.users(db)
    columns = ["kind", "digest", "unique_mb", "shared_mb", "instances", "last_used_at", "in_use"]
    rows: list[list[object]] = [
        ["environment", each.digest[7:19], _mb(each.unique_bytes), _mb(each.shared_bytes), users.get(each.digest, 0),
         each.last_used_at.isoformat(timespec="seconds"), each.is_in_use]
        for each in sorted(use.environments, key=lambda each: each.last_used_at)
    ]  # fmt: skip
    rows += [
        [kind, "", _mb(n), 0.0, None, None, None] for kind, n in (("base", use.base_bytes), ("cache", use.cache_bytes))
    ]
    rows.append(["total", "", _mb(use.total_bytes), 0.0, None, None, None])
    show(columns, rows, as_json=as_json)
    if not as_json and current.disk_budget:
        console.print(f"budget: {_mb(current.disk_budget)} MB")


@app.command()
def prune(
    budget: Annotated[
        int | None, typer.Option(min=0, help="Bytes to come down to; default SWEFACTORY_DISK_BUDGET.")
    ] = None,
    unused_days: Annotated[
        float | None, typer.Option(min=0, help="Instead: all that was unused for so many days.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove environments, least recently used first; never one that a running job needs. They can be built again.

    Examples: `swefactory images prune --budget 5000000000 --dry-run` · `swefactory images prune --unused-days 30`
    """
    current = settings()
    wanted = budget if budget is not None else current.disk_budget or None
    if wanted is None and unused_days is None:
        raise UsageError("say how far to go: --budget BYTES (or SWEFACTORY_DISK_BUDGET), or --unused-days DAYS")
    backend = make_sandboxes(current)
    with catalog(current) as engine:
        with session(engine) as db:
            needed = environment_disk.needed_now(db)
        pruned = environment_disk.prune(
            backend,
            needed,
            budget_bytes=wanted if unused_days is None else None,
            unused_for=timedelta(days=unused_days or 0),
            dry_run=dry_run,
        )
        with session(engine) as db:
            environment_disk.reconcile(db, current.sandbox, backend.disk_use())
    show(["digest"], [[digest] for digest in pruned.digests], as_json=as_json, empty="nothing had to go")
    if not as_json:
        console.print(f"{'would free' if dry_run else 'freed'} {_mb(pruned.n_bytes)} MB")


@app.command()
def rebuild(digests: Digests = None, every: All = False, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Make environments again from their stored locks and check that they hold the same packages.

    Examples: `swefactory images rebuild 8ee63fcfb0a9` · `swefactory images rebuild --all`
    """
    current = settings()
    backend = make_sandboxes(current)
    with catalog(current) as engine, session(engine) as db:
        specs = _specs(db, current, digests, every)
        busy = environment_disk.needed_now(db) & {spec.digest for spec in specs}
    if busy:
        raise UsageError(f"a running job needs {', '.join(sorted(busy))}; rebuild it when it has ended")
    if dry_run:
        show(["digest"], [[spec.digest] for spec in specs], as_json=as_json)
        return
    made = [environment_disk.rebuild(backend, spec) for spec in specs]
    rows = [[each.digest, each.duration_s, not each.differences, ", ".join(each.differences)] for each in made]
    show(["digest", "seconds", "same_packages", "differences"], rows, as_json=as_json)
    if any(each.differences for each in made):
        raise typer.Exit(EXIT_FINDINGS)


@app.command()
def push(digests: Digests = None, every: All = False, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Send docker environments to the registry at SWEFACTORY_IMAGE_REGISTRY, from which other machines take them.

    Example: `swefactory images push --all`
    """
    _exchange(digests, every=every, dry_run=dry_run, as_json=as_json, is_push=True)


@app.command()
def pull(digests: Digests = None, every: All = False, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Fetch docker environments from the registry; one that it lacks is left to be built when it is needed.

    Example: `swefactory images pull --all`
    """
    _exchange(digests, every=every, dry_run=dry_run, as_json=as_json, is_push=False)


def _exchange(digests: list[str] | None, *, every: bool, dry_run: bool, as_json: bool, is_push: bool) -> None:
    current = settings(sandbox="docker")
    images = make_docker(current).images
    if not images.registry.address:
        raise UsageError("no registry is named; set SWEFACTORY_IMAGE_REGISTRY, as registry.example:5000/team")
    with catalog(current) as engine, session(engine) as db:
        specs = _specs(db, current, digests, every)
    rows: list[list[object]] = []
    for spec in specs:
        name, done = images.environment_name(spec), not dry_run
        if is_push and not dry_run:
            images.registry.push(name)
        elif not dry_run:
            done = images.registry.pulled(name, spec.digest) is not None
        rows.append([spec.digest, images.registry.there(name), done])
    show(["digest", "image", "sent" if is_push else "fetched"], rows, as_json=as_json)


def _specs(db: Session, current: Settings, digests: list[str] | None, every: bool) -> list[EnvironmentSpec]:
    if bool(digests) == every:
        raise UsageError("name environments by the beginnings of their digests, or say --all")
    wanted = digests or list(db.exec(select(Environment.digest).order_by(Environment.digest)))
    artifacts = make_artifacts(current)
    return [environment_disk.spec_of(db, artifacts, each) for each in wanted]


def _mb(n_bytes: int) -> float:
    return round(n_bytes / 1e6, 1)


@app.command()
def pin(dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Write into images/pins.toml what the images here are made of: digests and versions.

    Examples: `swefactory images pin --dry-run` · `swefactory images pin`
    """
    from swefactory.image_files import write_pinned
    from swefactory.sandboxes.image_pins import what_stands

    found = what_stands(make_docker(settings(sandbox="docker")).images)
    changed = write_pinned(found, dry_run=dry_run)
    show(["what", "pinned"], [[name, value] for name, value in found.rows()], as_json=as_json)
    if not as_json:
        said = "is up to date" if not changed else "would change" if dry_run else "was written"
        console.print(f"images/pins.toml {said}")


@app.command()
def bootstrap(
    versions: Annotated[
        list[str] | None,
        typer.Option("--python", help="An interpreter version, as 3.9 (repeatable); default all here."),
    ] = None,
    root_tar: Annotated[Path | None, typer.Option(help="A root file system as a tar file.")] = None,
    root_image: Annotated[str, typer.Option(help="An image of the engine to start from.")] = "",
    cluster: Annotated[
        Path | None,
        typer.Option(help="Also the images of compose.airgap.yaml, and this folder, with which its workers build."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the base images, without an image registry where none is reached (debootstrap and this machine's Pythons).

    Examples: `swefactory images bootstrap` · `swefactory images bootstrap --python 3.9 --python 3.12` ·
    `swefactory images bootstrap --root-tar debian.tar` · `swefactory images bootstrap --cluster cluster`
    """
    from swefactory.sandboxes.bootstrap import BootstrapSource, bootstrap_images

    if root_tar and root_image:
        raise UsageError("--root-tar and --root-image exclude each other: the base has one root file system")
    backend = make_docker(settings(sandbox="docker"))
    made = bootstrap_images(
        backend,
        versions=versions,
        source=BootstrapSource(root_tar=root_tar, root_image=root_image),
        cluster=cluster,
        progress=lambda line: errors.print(line, markup=False),
    )
    rows = [[image.name, image.size_bytes // 2**20, image.duration_s, image.made] for image in made]
    show(["image", "MiB", "seconds", "made now"], rows, as_json=as_json)
    if not as_json:
        console.print("next: SWEFACTORY_SANDBOX=docker swefactory run")
