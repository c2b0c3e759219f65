"""Runs in TRL's environment: reads what `export trajectories` and `export preferences` wrote as its trainers do.

python read_trl.py TOKENIZER_FOLDER EXPORTS
"""

import json
import sys
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerFast
from trl.data_utils import apply_chat_template, extract_prompt, is_conversational, unpair_preference_dataset

KINDS = {
    "trajectories/trajectories.jsonl": ("messages",),
    "preferences/pairs.jsonl": ("prompt", "chosen", "rejected"),
    "preferences/kto.jsonl": ("prompt", "completion", "label"),
}


def tokenizer_of(folder):
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), chat_template=(folder / "chat_template.jinja").read_text()
    )


def rows_of(path):
    rows = [json.loads(line) for line in path.read_text().split("\n") if line]
    assert rows, f"{path} holds no row"
    return rows


def main(tokenizer_folder, exports):
    tokenizer, told = tokenizer_of(tokenizer_folder), {}
    for name, columns in KINDS.items():
        rows = rows_of(exports / name)
        kept = [{column: row[column] for column in (*columns, "tools")} for row in rows]
        loaded = Dataset.from_list(kept, on_mixed_types="use_json")
        for row, read in zip(kept, loaded, strict=True):
            assert {column: read[column] for column in row} == row, f"{name}: datasets changed a row"
            example = {column: read[column] for column in columns}
            assert is_conversational(example)
            text = apply_chat_template(example, tokenizer, tools=read["tools"])
            for column in columns:
                shown = text["text" if column == "messages" else column]
                assert shown is read[column] if column == "label" else tokenizer(shown)["input_ids"]
            if "chosen" in text:
                whole = {side: read["prompt"] + read[side] for side in ("chosen", "rejected")}
                assert extract_prompt(whole)["prompt"][:2] == read["prompt"]
                assert text["chosen"] != text["rejected"]
        if "chosen" in columns:
            assert unpair_preference_dataset(loaded.remove_columns("tools")).num_rows == 2 * len(rows)
        told[name] = len(rows)
    steps = rows_of(exports / "preferences/stepwise.jsonl")
    loaded = Dataset.from_list([{name: row[name] for name in ("prompt", "completions", "labels")} for row in steps])
    for row in loaded:
        assert len(row["completions"]) == len(row["labels"])
        assert isinstance(row["prompt"], str)
        assert all(tokenizer(step)["input_ids"] for step in row["completions"])
    print(json.dumps(told | {"preferences/stepwise.jsonl": len(steps)}))


main(Path(sys.argv[1]), Path(sys.argv[2]))
