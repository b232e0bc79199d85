# Everything a newcomer needs: `make demo`, `make test`. Only Python 3.11 (or newer) and make are required.

export SEED COUNT SECONDS BROKERS
export PIP_DISABLE_PIP_VERSION_CHECK = 1

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMPILED := .pytest_cache/compiled

LOCK := .ci/requirements.lock
TOOLS := .venv-tools
PIPECAT := .venv-pipecat

.PHONY: demo test test-pipecat fuzz chaos lint measures pictures format lock audit licences clean help

help: ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(READY) ## run the quickstart: full-text search by four processes
	$(BIN)/pbus up configs/quickstart/topology.yaml

test: $(COMPILED) ## all tests, on a real Valkey and Postgres that they start themselves
	@$(MAKE) --no-print-directory $(PIPECAT)/.ready >/dev/null 2>&1 & \
	$(BIN)/python -m pytest -n 7 --dist loadscope --no-loadscope-reorder; code=$$?; wait; exit $$code
	@$(MAKE) --no-print-directory test-pipecat

test-pipecat: ## real Pipecat programs under pbus, in an environment of their own
	@if $(MAKE) --no-print-directory $(PIPECAT)/.ready; \
	then $(PIPECAT)/bin/python -m pytest -n 2 --dist loadfile tests/pipecat; \
	else echo "tests/pipecat: NOT RUN, as pipecat-ai cannot be installed here" >&2; fi

fuzz: $(READY) ## throw a million mutated payloads at live projects within 10 minutes; SEED=, COUNT=, SECONDS=, BROKERS=
	cd tests && ../$(BIN)/python -m fuzz

chaos: $(READY) ## scale, roll, reload and kill projects at random, under load; SEED=, ROUNDS=
	cd tests && ../$(BIN)/python -m chaos

lint: $(READY) ## ruff, mypy and the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

measures: $(READY) ## figures of the code: sizes, complexity, words that left
	PYTHONPATH=tests $(BIN)/python -m lint.measures

pictures: $(READY) $(PIPECAT)/.ready ## the pictures of the README, from real runs; needs tmux
	PYTHONPATH=tests $(BIN)/python .ci/pictures.py
	PYTHONPATH=tests $(PIPECAT)/bin/python .ci/pictures.py

format: $(READY) ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(TOOLS)/.ready ## resolve the development environment again
	echo '# The development environment, every package with its hashes. Made by `make lock` from pyproject.toml.' > $(LOCK)
	$(TOOLS)/bin/uv pip compile pyproject.toml --quiet --group dev --universal --python-version 3.11 \
		--upgrade --generate-hashes --no-header --no-annotate >> $(LOCK)

audit: $(TOOLS)/.ready ## look for known vulnerabilities of what is locked; needs the advisories of PyPI
	$(TOOLS)/bin/pip-audit --strict --require-hashes --disable-pip --requirement $(LOCK)

licences: $(READY) $(TOOLS)/.ready ## the licences of everything that is installed
	$(TOOLS)/bin/pip-licenses --python=$(BIN)/python --from=mixed --format=markdown

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) $(TOOLS) $(PIPECAT) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .grimp_cache

$(READY): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "pbus needs Python 3.11 or newer; say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q orchestrator cli  # a verb starts 0.07 s sooner, also where python may not cache by itself
	@touch $(READY)

# Once, and on two cores: otherwise each process that runs tests does it for itself.
$(COMPILED): $(READY) $(shell find tests -name '*.py')
	@$(BIN)/python -m pytest --collect-only -qq tests/unit >/dev/null & \
	$(BIN)/python -m pytest --collect-only -qq $(filter-out tests/unit/ tests/__pycache__/,$(wildcard tests/*/)) >/dev/null; wait
	@mkdir -p $(@D)
	@touch $@

$(PIPECAT)/.ready: pyproject.toml
	$(PYTHON) -m venv $(PIPECAT)
	$(PIPECAT)/bin/python -m pip install --quiet --editable '.[otel]' 'pipecat-ai[redis,pgmq]==1.14.0' \
		cryptography hypothesis pytest pytest-timeout pytest-xdist
	$(PIPECAT)/bin/python -m pip check
	@touch $@

$(TOOLS)/.ready:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet uv pip-audit pip-licenses
	@touch $@
