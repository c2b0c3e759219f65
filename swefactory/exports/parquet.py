"""Rows as shards of parquet, as Hugging Face's data sets are stored: data/SPLIT-00000-of-0000N.parquet.

    text → string, texts → list<string>, int → int64, bool → bool, float → double, json → string, the value's JSON

One property: at most a row group of rows is held in memory. Only this needs pyarrow: `pip install swefactory[parquet]`.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from swefactory.errors import UsageError
from swefactory.exports.folder import ExportFolder

type Columns = Mapping[str, str]
"""Column -> its type: text, texts, int, bool, float or json."""

_GROUP, _SHARD = 500, 20_000
_FEATURES = {"text": "string", "json": "string", "int": "int64", "bool": "bool", "float": "float64"}


def features(columns: Columns) -> list[dict[str, object]]:
    """The columns as a card's `features`."""
    return [
        {"name": name, "sequence": "string"} if kind == "texts" else {"name": name, "dtype": _FEATURES[kind]}
        for name, kind in columns.items()
    ]


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError("parquet needs pyarrow; install it: pip install 'swefactory[parquet]'") from error
    return pyarrow, parquet


class Shards:
    """The shards of one split while they are written."""

    def __init__(self, folder: ExportFolder, data: str, split: str, columns: Columns) -> None:
        self._pyarrow, self._parquet = _pyarrow()
        self._folder, self._data, self._split, self._columns = folder, data, split, columns
        self._rows: list[Mapping[str, object]] = []
        self._writer: Any = None
        self._parts: list[Path] = []
        self.n_rows = 0
        self.n_bytes = 0

    def write(self, row: Mapping[str, object]) -> None:
        self._rows.append(row)
        self.n_rows += 1
        if len(self._rows) >= _GROUP:
            self._flush()
        if self.n_rows % _SHARD == 0:
            self._close_shard()

    def finish(self) -> None:
        """Ends the last shard, and gives all of them their names. A split without rows has none: `datasets` does not
        read one that is empty."""
        self._close_shard()
        for n, part in enumerate(self._parts):
            name = f"{self._data}/{self._split}-{n:05}-of-{len(self._parts):05}.parquet"
            part.rename(self._folder.path / name)
            self.n_bytes += (self._folder.path / name).stat().st_size
            self._folder.written(name)

    def _flush(self) -> None:
        if self._writer is None:
            part = self._folder.path / self._data / f".{self._split}-{len(self._parts)}"
            part.parent.mkdir(parents=True, exist_ok=True)
            self._parts.append(part)
            self._writer = self._parquet.ParquetWriter(part, self._schema(), compression="zstd")
        cells = {name: [_cell(row.get(name), kind) for row in self._rows] for name, kind in self._columns.items()}
        self._writer.write_table(self._pyarrow.table(cells, schema=self._schema()))
        self._rows = []

    def _close_shard(self) -> None:
        if self._rows:
            self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _schema(self) -> Any:  # noqa: ANN401 - pyarrow has no types
        arrow = self._pyarrow
        types = {
            "text": arrow.string(), "json": arrow.string(), "texts": arrow.list_(arrow.string()),
            "int": arrow.int64(), "bool": arrow.bool_(), "float": arrow.float64(),
        }  # fmt: skip
        return arrow.schema([(name, types[kind]) for name, kind in self._columns.items()])


def _cell(value: object, kind: str) -> object:
    match kind:
        case "json":
            return json.dumps(value, sort_keys=True)
        case "text":
            return None if value is None else _whole(str(value))
        case "texts":
            assert isinstance(value, list | tuple)
            return [_whole(str(each)) for each in value]
        case _:
            return value


def _whole(text: str) -> str:
    """Parquet's texts are UTF-8: a lone surrogate stands as its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def shards(folder: ExportFolder, split: str, columns: Columns, data: str = "data") -> Iterator[Shards]:
    """The shards of one split; named when the block ends well."""
    made = Shards(folder, data, split, columns)
    yield made
    made.finish()
