PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.installed
# An environment that is there is brought up to date, never emptied: others may be running in it.
NEW_ENOUGH := 'import sys; sys.exit(sys.version_info < (3, 11))'
RUN := PATH="$(abspath $(BIN)):$$PATH"

.PHONY: demo test quick slow coverage docs install lint bench gpu

demo: install
	@$(RUN) $(BIN)/python scripts/end_to_end.py

test: install
	@$(RUN) OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -q -m "not slow"

quick: install
	@$(RUN) OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -q -m "not slow and not heavy"

slow: install
	@$(RUN) OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -q -m slow

coverage: install
	@rm -f .coverage .coverage.*
	@$(RUN) OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n 2 --dist worksteal -q -m "not slow"
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage html -q
	@$(BIN)/coverage report

docs: install
	$(RUN) properdocs build --strict

install: $(DONE)

$(DONE): pyproject.toml constraints.txt
	@$(PYTHON) -c $(NEW_ENOUGH) || \
	  { echo 'error: $(PYTHON) is not Python 3.11 or newer; name one, as in make install PYTHON=python3.11' >&2; exit 2; }
	@echo 'installing into $(VENV): some minutes, about 7 GB'
	@$(BIN)/python -c $(NEW_ENOUGH) 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(DONE)

lint: install
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) lint-imports

bench: install
	@$(RUN) $(BIN)/python scripts/benchmark.py --append docs/log/benchmarks.md

gpu: install
	@$(RUN) $(BIN)/python scripts/gpu_check.py
