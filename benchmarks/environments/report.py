"""Prints what was measured as Markdown. One property: a ratio compares the same candidates, those on which all of its
ways have a row, and says how many they are.

    python -m benchmarks.environments.report FILE [--json]

FILE is the one that `run` wrote. Rows of faults of the machine or the network are left out.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.environments.baselines import BY_UV
from benchmarks.environments.ladder import DATED, ONE_PYTHON, RIGHT_PYTHON
from benchmarks.environments.rows import Row, Rows

_MB = 10**6
_NEXT = "namespace next"
_TIMED = (
    "A", "P", "namespace cold", _NEXT, "namespace warm", "namespace reused", "docker cold", "docker warm",
    "docker reused",
)  # fmt: skip
_LADDER = (ONE_PYTHON, RIGHT_PYTHON, DATED, _NEXT)

type ByWay = Mapping[str, Mapping[str, Row]]  # way -> instance_id -> row


@dataclass(frozen=True)
class Aim:
    """One of the issue's aims, and what came of it; `value` None: not measured."""

    text: str
    value: float | None
    at_least: float | None = None
    at_most: float | None = None
    n: int = 0

    @property
    def is_met(self) -> bool:
        if self.value is None:
            return False
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    def verdict(self, enough: int) -> str:
        """In words; nothing is said of fewer candidates than `enough`."""
        if self.n < enough:
            return "too few to say"
        return "yes" if self.is_met else "**no**"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("rows", type=Path)
    options.add_argument("--json", action="store_true", help="print JSON in place of tables")
    options.add_argument("--enough", type=int, default=20, metavar="N", help="candidates that an aim is judged on")
    args = options.parse_args()
    table = by_way(Rows(args.rows))
    if args.json:
        print(json.dumps(as_json(table), indent=1))
    else:
        print("\n\n".join(sections(table, args.enough)))
    return 0


def by_way(rows: Iterable[Row]) -> ByWay:
    """The last row of each way and candidate, without faults."""
    table: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.way and not row.is_fault:
            table.setdefault(row.way, {})[row.instance_id] = row
    return table


def common(table: ByWay, ways: Iterable[str]) -> list[str]:
    """Candidates with a row of each of these ways."""
    found = [set(table.get(way, {})) for way in ways]
    return sorted(set.intersection(*found)) if found else []


def ratio(table: ByWay, slow: str, fast: str, ids: Sequence[str], fact: Callable[[Row], float]) -> float | None:
    """Of the medians, where both built."""
    both = [i for i in ids if table[slow][i].is_built and table[fast][i].is_built]
    return median(fact(table[slow][i]) for i in both) / median(fact(table[fast][i]) for i in both) if both else None


def aims(table: ByWay) -> list[Aim]:
    """The issue's, in its order."""
    found = []
    for text, way, least in (
        ("A / namespace warm, seconds", "namespace warm", 15.0),
        ("A / namespace cold, seconds", "namespace cold", 6.0),
        ("A / docker warm, seconds", "docker warm", 8.0),
    ):
        ids = common(table, ("A", way))
        found.append(Aim(text, ratio(table, "A", way, ids, lambda row: row.total_s), at_least=least, n=len(ids)))
    ours = table.get(_NEXT, {})
    n = len(ours)
    store = max((row.store_bytes for row in ours.values()), default=0)
    found.append(Aim("MB on disk an instance, namespace", store / _MB / n if n else None, at_most=8.0, n=n))
    built = sum(row.is_built for row in ours.values())
    found.append(Aim("environments built, %", 100 * built / n if n else None, at_least=97.0, n=n))
    ids = common(table, (BY_UV, _NEXT))
    shown = {way: sum(table[way][i].n_fail_to_pass > 0 for i in ids) for way in (BY_UV, _NEXT)} if ids else {}
    gain = shown[_NEXT] / shown[BY_UV] if shown.get(BY_UV) else None
    return [*found, Aim("candidates with a FAIL_TO_PASS, product / P", gain, at_least=1.8, n=len(ids))]


# ---------------------------------------------------------------- printing


def sections(table: ByWay, enough: int) -> list[str]:
    """The report's parts."""
    yields = [way for way in (BY_UV, _NEXT) if way in table]
    all_ids, timed = common(table, yields), common(table, [way for way in _TIMED if way in table])
    parts = [
        f"{len(all_ids)} candidates of {_n_repositories(all_ids)} repositories; medians of the {len(timed)} on which "
        "every way ran, over those that it could build.",
        _ways(table, timed),
        "Yield:\n\n" + _yields(table, yields, all_ids),
    ]
    if climbed := common(table, _LADDER):
        parts.append(f"The ladder, on {len(climbed)} candidates:\n\n" + _yields(table, _LADDER, climbed))
    parts.append(_aims(aims(table), enough))
    return [*parts, _failures(table)]


def _n_repositories(ids: Iterable[str]) -> int:
    return len({i.rpartition("-")[0] for i in ids})


def _ways(table: ByWay, ids: Sequence[str]) -> str:
    lines = [
        "| way | built | FAIL_TO_PASS | seconds, median | seconds, sum | of them environment, median | CPU s, median "
        "| MB unique, median | MB shared, median |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for way in _TIMED:
        rows = [table[way][i] for i in ids] if way in table else []
        built = [row for row in rows if row.is_built]
        if not built:
            continue
        cells = [
            f"{len(built)}/{len(rows)}",
            f"{sum(row.n_fail_to_pass > 0 for row in rows)}/{len(rows)}",
            f"{median(row.total_s for row in built):.1f}",
            f"{sum(row.total_s for row in rows):.0f}",
            f"{median(row.environment_s for row in built):.1f}",
            f"{median(row.cpu_s for row in built):.1f}",
            *_sizes(built),
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _sizes(built: Sequence[Row]) -> tuple[str, str]:
    made = [row for row in built if row.unique_bytes]
    if not made:
        return "0", "0"
    return (
        f"{median(row.unique_bytes for row in made) / _MB:.1f}",
        f"{median(row.shared_bytes for row in made) / _MB:.1f}",
    )


def _yields(table: ByWay, ways: Iterable[str], ids: Sequence[str]) -> str:
    lines = ["| way | environments | at least one FAIL_TO_PASS | valid after one pair |", "|---|---|---|---|"]
    for way in ways:
        rows = [table[way][i] for i in ids]
        counts = (
            sum(row.is_built for row in rows), sum(row.n_fail_to_pass > 0 for row in rows),
            sum(row.is_built and not row.verdict for row in rows),
        )  # fmt: skip
        lines.append(f"| {way} | {' | '.join(f'{n} ({100 * n / max(1, len(rows)):.0f} %)' for n in counts)} |")
    return "\n".join(lines)


def _aims(found: Iterable[Aim], enough: int) -> str:
    lines = ["| aim | wanted | measured | on | met |", "|---|---|---|---|---|"]
    for aim in found:
        wanted = f"≥ {aim.at_least:g}" if aim.at_least is not None else f"≤ {aim.at_most:g}"
        value = "not measured" if aim.value is None else f"{aim.value:.1f}"
        lines.append(f"| {aim.text} | {wanted} | {value} | {aim.n} | {aim.verdict(enough)} |")
    return "\n".join(lines)


def _failures(table: ByWay) -> str:
    lines = ["Without an environment, or without a FAIL_TO_PASS, by the product:", ""]
    for row in sorted(table.get(_NEXT, {}).values(), key=lambda row: row.instance_id):
        if row.n_fail_to_pass == 0:
            said = " ".join(row.detail.split())[:300]
            lines.append(f"* {row.instance_id}, Python {row.python or '?'}: {row.step or row.verdict}: {said}")
    return "\n".join(lines)


def as_json(table: ByWay) -> Mapping[str, object]:
    """All rows, and the aims."""
    found = [{**asdict(aim), "is_met": aim.is_met} for aim in aims(table)]
    return {"aims": found, "rows": [asdict(row) for rows in table.values() for row in rows.values()]}


if __name__ == "__main__":
    raise SystemExit(main())
