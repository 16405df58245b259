# `make demo` and `make test` do all the set-up in .venv; the second time they start at once. `make test` leaves the slow
# tests out; `make test-all` runs them too.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile  # two processes, a thread each

.PHONY: demo test test-slow test-all lint docs speed clean
.DELETE_ON_ERROR:

demo: .venv/with-demo
	$(BIN)/klarsicht demo --out demo-out

test: .venv/with-test
	$(PYTEST) -m "not slow and not nightly"

test-slow: .venv/with-test
	$(PYTEST) -m "slow and not nightly" --recent-first --no-loadscope-reorder --durations=10

test-all: .venv/with-test
	HYPOTHESIS_PROFILE=large $(PYTEST) -m "not nightly" --durations=10

lint: .venv/with-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

speed: .venv/with-test
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python benchmarks/speed.py

docs: .venv/with-docs
	$(BIN)/mkdocs build --strict

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "klarsicht needs Python 3.11 or newer; try: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv || { echo "no virtual environment: install your system's python3-venv package" >&2; rm -rf .venv; exit 1; }

.venv/with-demo: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --editable ".[demo]"
	@touch $@

.venv/with-test: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --editable ".[demo,test]"
	@touch $@ .venv/with-demo

.venv/with-docs: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --editable ".[docs]"
	@touch $@

clean:
	rm -rf .venv demo-out build dist site
