# make demo   installs, ingests satellite imagery, searches it, draws a contact sheet
# make test   installs what tests need, and runs them
# make test-pythons   runs the quick tests of stores, embedder and query on every Python there is
# All in .venv, from Python 3.11 or later and a package registry.

PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3 python,$(shell \
	$(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && command -v $(p))))
VENV = .venv
BIN := $(VENV)/bin

# Two pips in one environment would get in each other's way.
.NOTPARALLEL:
.PHONY: demo test test-pythons test-quick bench lint types clean

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/demo.py $(if $(IMAGES),--images "$(IMAGES)") $(if $(QUERY),--query "$(QUERY)")

# By file, since tests of one file share what is slow to make, and in order, since files of few tests
# are among the slowest; -n 0 in ARGS for one process.
test: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

# 3.14 joins in where it is installed; SKIP=3.11 leaves one out.
VERSIONS = $(filter-out $(SKIP),3.11 3.12 3.13 3.14)
# python3.X of the PATH, if that runs, or else the newest of pyenv's.
find_python = $(firstword $(foreach p,python$(1) \
	$(lastword $(sort $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/$(1).*/bin/python))),\
	$(shell $(p) -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(1)")' >/dev/null 2>&1 \
	&& command -v $(p))))
# All but the long ones, and those for which PyTorch or an S3 server would have to be installed.
QUICK_TESTS = tests/test_nmslib_import.py $(filter-out %/test_stress.py %/test_crash.py,$(shell \
	grep -LE '^(import (torch|boto3)|from tests.reference )' \
	tests/stores/test_*.py tests/embedder/test_*.py tests/query/test_*.py))

test-pythons:
	@$(if $(strip $(foreach v,$(VERSIONS),$(call find_python,$(v)))),:,\
		echo "expected a Python of $(VERSIONS), found none"; exit 1)
	$(foreach v,$(VERSIONS),$(if $(call find_python,$(v)),$(MAKE) PYTHON=$(call find_python,$(v)) \
		VENV=.venv-$(v) test-quick &&,echo "no Python $(v) here: not tested" &&)) true

test-quick: $(VENV)/quick.stamp
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(QUICK_TESTS) $(ARGS)

# Warnings of pytest's plugins are no failures here: that there is nothing to compare with yet, say.
bench: $(VENV)/test.stamp
	$(BIN)/python -m pytest -o addopts= -W default::pytest.PytestWarning tests/benchmarks \
		--benchmark-storage=runs/benchmarks --benchmark-autosave --benchmark-sort=name \
		--benchmark-columns=min,median,iqr,rounds,iterations $(ARGS)

lint: $(VENV)/lint.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/lint.stamp $(VENV)/test.stamp
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-3.* demo

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 or later, found none; install one, or give PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/%.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	@touch $@
