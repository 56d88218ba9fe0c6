# make demo   installs, ingests satellite imagery, searches it, draws a contact sheet
# make test   installs what tests need, and runs them
# All in .venv, from Python 3.11 or later and a package registry.

PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3 python,$(shell \
	$(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && command -v $(p))))
BIN := .venv/bin

# Two pips in one environment would get in each other's way.
.NOTPARALLEL:
.PHONY: demo test bench lint types clean

demo: .venv/demo.stamp
	$(BIN)/python examples/demo.py $(if $(IMAGES),--images "$(IMAGES)") $(if $(QUERY),--query "$(QUERY)")

# By file, since tests of one file share what is slow to make, and in order, since files of few tests
# are among the slowest; -n 0 in ARGS for one process.
test: .venv/test.stamp
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

# Warnings of pytest's plugins are no failures here: that there is nothing to compare with yet, say.
bench: .venv/test.stamp
	$(BIN)/python -m pytest -o addopts= -W default::pytest.PytestWarning tests/benchmarks \
		--benchmark-storage=runs/benchmarks --benchmark-autosave --benchmark-sort=name \
		--benchmark-columns=min,median,iqr,rounds,iterations $(ARGS)

lint: .venv/lint.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/lint.stamp .venv/test.stamp
	$(BIN)/mypy

clean:
	rm -rf .venv demo

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 or later, found none; install one, or give PYTHON=…"; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/%.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	@touch $@
