# Everything here sets itself up first: see .ci/make-venv.
.DEFAULT_GOAL := help
.PHONY: help demo test consumers check coverage mutation openhands tinymodel chaos schedules lock clean venv
BIN := .venv/bin

help: ## Show what can be made
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 10

venv: ## Make .venv: Python >= 3.12 and the locked packages
	@bash .ci/make-venv

demo: venv ## Run the whole chain on a sample repository: no docker, no Redis, no token, no GitHub
	@$(BIN)/swefactory demo

# Whole files side by side: what a file's tests share, they make once. More than two share no further core here.
test: venv ## Run the tests; with docker, Redis and PostgreSQL where they are present
	@$(BIN)/python -m pytest --numprocesses $${JOBS:-2} --dist loadfile $(ARGS)

consumers: venv ## Install what reads our exports (swebench, harbor, datasets, TRL) and let it read some
	@$(BIN)/python -m pytest -m consumers tests/test_consumers*.py $(ARGS)

check: venv ## Lint, types and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# What the verdict rests on, with the tests that need no process: they take seconds.
VERDICT_TESTS := tests/test_grading.py tests/test_stability.py tests/test_evaluation_scripted.py
coverage: venv ## Branch coverage of grading, stability and evaluation; fails below 100 %
	@$(BIN)/python -m pytest -q $(VERDICT_TESTS) --cov=swefactory.grading --cov=swefactory.stability \
	  --cov=swefactory.evaluation --cov-branch --cov-report=term-missing --cov-fail-under=100

mutation: venv ## Mutation score of the same modules, some 20 minutes; fails below 80 %
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --group mutation
	@$(BIN)/mutmut run && $(BIN)/mutmut results && $(BIN)/mutmut export-cicd-stats
	@$(BIN)/python .ci/mutation-score mutants/mutmut-cicd-stats.json 80

# The whole application pins an older core of its own, hence an environment of its own. The warnings of that core's
# LiteLLM are not ours to end.
OPENHANDS_ENV ?= $(or $(TMPDIR),/tmp)/swefactory-openhands
openhands: venv ## Test the agent under openhands-ai's own pins, in an environment outside the repository
	@$(BIN)/uv venv --quiet --allow-existing --python "$$(readlink -f $(BIN)/python)" $(OPENHANDS_ENV)
	@$(BIN)/uv pip install --quiet --python $(OPENHANDS_ENV)/bin/python -e '.[openhands]' pytest pytest-xdist hypothesis
	@$(OPENHANDS_ENV)/bin/python -m pytest -o filterwarnings=default tests/test_agent_openhands.py \
	  tests/test_model_faults.py $(ARGS)

# Root, or who may mount, has the disk fill up, too.
chaos: venv ## Kill what can be killed for a quarter of an hour on each database, and die at every step of every real stage
	@SWEFACTORY_CHAOS=full $(BIN)/python -m pytest -rP tests/chaos tests/test_crash_points.py $(ARGS)

tinymodel: venv ## Let a real model of 135 million parameters, from the package registry, work on one instance of the demo
	@$(BIN)/python -m benchmarks.rollouts.tiny_model $(ARGS)

schedules: venv ## Try 10,000 random schedules of job operations on SQLite, 2,000 on PostgreSQL, against a model
	@SWEFACTORY_SCHEDULES=10000 $(BIN)/python -m pytest tests/test_jobs_state_machine.py $(ARGS)

lock: venv ## Resolve requirements.lock anew: hashes, no download addresses
	@$(BIN)/uv pip compile --quiet --python-version 3.12 --generate-hashes --no-emit-index-url \
	  --extra agent --group dev pyproject.toml -o requirements.lock

clean: ## Remove the demo's folder (.swefactory) and caches; leaves .venv
	@rm -rf .swefactory .pytest_cache .mypy_cache .ruff_cache
