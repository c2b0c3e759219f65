"""How the command line shows things: tables for people, JSON for programs, progress while it works."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from threading import Event, Thread
from typing import Literal

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from sqlalchemy import Engine

from db import jobs
from db.enums import JobState, StageName

_WIDE = 160  # of a file or a pipe, which have no width of their own: nothing should be folded there


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDE)


console = _console()
errors = _console(stderr=True)

Cell = object
_ENDED = (JobState.SUCCEEDED, JobState.REJECTED, JobState.DEAD, JobState.CANCELLED)


def show(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    as_json: bool,
    title: str = "",
    empty: str = "nothing yet",
) -> None:
    """Prints a listing: a JSON list of objects, or a table, or `empty` when there is no row."""
    if as_json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=str, indent=2))
    elif not rows:
        console.print(f"{title + ': ' if title else ''}{empty}")
    else:
        console.print(_table(columns, rows, title))


def show_one(facts: Mapping[str, Cell], *, as_json: bool) -> None:
    """Prints one subject: a JSON object, or its facts a line each."""
    if as_json:
        print(json.dumps(dict(facts), default=str, indent=2))
        return
    for name, value in facts.items():
        text = _text(value)
        console.print(f"[bold]{name}[/]", end="\n" if "\n" in text else ": ")
        console.print(text, markup=False, soft_wrap=True)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], title: str = "") -> Table:
    """Headers fold at their words, the first column, which names the subject, not at all."""
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for number, name in enumerate(columns):
        numeric = all(isinstance(row[number], int | float) or row[number] is None for row in rows)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(name.replace("_", " "), justify=justify, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(_text(cell).replace("[", r"\[") for cell in row))
    return table


def _text(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return "yes" if cell else "no"
        case float():
            return f"{cell:.4g}"
        case datetime():
            return cell.strftime("%Y-%m-%d %H:%M:%SZ")
        case list():
            return "\n".join(str(item) for item in cell)
        case _:
            return str(cell)


def stage_rows(counts: Mapping[tuple[StageName, JobState], int]) -> list[list[Cell]]:
    """One row a stage: how many of its jobs wait, are at work, and how the others ended."""
    rows: list[list[Cell]] = []
    for stage in StageName:
        by_state = {state: counts.get((stage, state), 0) for state in JobState}
        if any(by_state.values()):
            waiting = by_state[JobState.TODO] + by_state[JobState.QUEUED] + by_state[JobState.FAILED]
            rows.append([stage.value, waiting, by_state[JobState.DOING], *(by_state[state] for state in _ENDED)])
    return rows


STAGE_COLUMNS = ["stage", "waiting", "doing", "succeeded", "rejected", "dead", "cancelled"]


@contextmanager
def progress(engine: Engine) -> Iterator[None]:
    """Shows the jobs of each stage while the block works: live on a terminal, a line a change elsewhere."""
    stop = Event()
    watcher = Thread(target=_watch, args=(engine, stop), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def _watch(engine: Engine, stop: Event) -> None:
    if errors.is_terminal:
        with Live(console=errors, refresh_per_second=4, transient=True) as live:
            while not stop.wait(0.4):
                live.update(_table(STAGE_COLUMNS, stage_rows(jobs.counts(engine))))
        return
    shown = ""
    while not stop.wait(2):
        line = ", ".join(f"{row[0]} {sum(map(_count, row[3:]))}/{sum(map(_count, row[1:]))}" for row in _now(engine))
        if line != shown:
            errors.print(f"jobs done: {line}")
            shown = line


def _now(engine: Engine) -> list[list[Cell]]:
    return stage_rows(jobs.counts(engine))


def _count(cell: Cell) -> int:
    assert isinstance(cell, int)
    return cell
