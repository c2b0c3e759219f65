"""Runs in an environment of `datasets` alone: loads every configuration of the exported folders.

python read_datasets.py EXPORTS CACHE
"""

import json
import sys

from datasets import get_dataset_config_names, load_dataset

exports, cache = sys.argv[1:3]
told = {}
for name in ("dataset", "swebench"):
    for config in get_dataset_config_names(f"{exports}/{name}"):
        loaded = load_dataset(f"{exports}/{name}", config, cache_dir=cache)
        told[f"{name}/{config}"] = sum(split.num_rows for split in loaded.values())
        for split in loaded.values():
            for row in split:
                assert isinstance(json.loads(row["certificate"]), dict)
                assert row["FAIL_TO_PASS"]
print(json.dumps(told))
