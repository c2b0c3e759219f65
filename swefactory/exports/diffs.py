"""Two exports compared by their manifests. One property: no row comes, goes or changes without being named, with why.

Both manifests are read side by side in the order of their keys, so that exports of any size can be compared.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from swefactory.exports.manifest import Entry, LeftOut, Manifest

Kind = Literal["added", "removed", "changed"]


@dataclass(frozen=True)
class Difference:
    """One row that is not the same in both."""

    kind: Kind
    key: str
    why: str


def differences(old: Manifest, new: Manifest, told: Callable[[str], str] = lambda key: "") -> Iterator[Difference]:
    """Every row that differs, by key. Why a row went is what the new export says of it, else what `told` knows."""
    options = _options(old, new)
    left_out_now, left_out_then = _Cursor(new.left_out()), _Cursor(old.left_out())
    for before, after in _pairs(old.rows(), new.rows()):
        if before is None and after is not None:
            why = left_out_then.at(after.key)
            yield Difference("added", after.key, f"it was left out before: {why}" if why else "it is new")
        elif after is None and before is not None:
            why = left_out_now.at(before.key) or told(before.key) or options or "no reason is known"
            yield Difference("removed", before.key, why)
        elif before is not None and after is not None and before != after:
            yield Difference("changed", after.key, _change(before, after))


def _pairs(old: Iterator[Entry], new: Iterator[Entry]) -> Iterator[tuple[Entry | None, Entry | None]]:
    before, after = next(old, None), next(new, None)
    while before is not None or after is not None:
        if after is None or (before is not None and before.key < after.key):
            yield before, None
            before = next(old, None)
        elif before is None or after.key < before.key:
            yield None, after
            after = next(new, None)
        else:
            yield before, after
            before, after = next(old, None), next(new, None)


class _Cursor:
    """Looks up ascending keys in ascending lines without holding them."""

    def __init__(self, lines: Iterator[LeftOut]) -> None:
        self._lines, self._here = lines, next(lines, None)

    def at(self, key: str) -> str:
        while self._here is not None and self._here.key < key:
            self._here = next(self._lines, None)
        return self._here.why if self._here is not None and self._here.key == key else ""


def _change(before: Entry, after: Entry) -> str:
    """What of a row changed: first what its certificate and licence say, then the fields."""
    said = []
    if before.certificate != after.certificate:
        said.append("validated again" if before.certificate and after.certificate else "another certificate")
    if before.license != after.license:
        said.append(f"licence {before.license or 'none'} → {after.license or 'none'}")
    if before.swefactory != after.swefactory:
        said.append(f"by version {after.swefactory or 'unknown'} instead of {before.swefactory or 'unknown'}")
    names = sorted({*before.fields, *after.fields})
    fields = [name for name in names if before.fields.get(name) != after.fields.get(name)]
    return "; ".join([*said, *([f"fields: {', '.join(fields)}"] if fields else [])])


def _options(old: Manifest, new: Manifest) -> str:
    """What was asked for differently."""
    one, two = old.head.get("options", {}), new.head.get("options", {})
    told = [
        f"{name} is {two.get(name)!r}, was {one.get(name)!r}"
        for name in sorted({*one, *two})
        if one.get(name) != two.get(name)
    ]
    return f"not asked for: {', '.join(told)}" if told else ""
