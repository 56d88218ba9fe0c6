# make demo                 ingest satellite images, search them, draw a contact sheet
# make test                 run the tests but the slow ones
# make test-all             run every test
# make test-quick           run the tests of stores, embedder and query that need neither PyTorch nor S3
# make test-pythons         run the quick tests on every Python found
# make test-lower-bounds    run the quick tests with the oldest dependencies that pyproject.toml allows
# make coverage             measure which lines the tests run
# make docs                 build the documentation in build/docs/site, and check its links
# make bench, lint, types   time the hot paths; check style; check types
# Everything is installed into .venv; needs Python 3.11 or later and a package index.

PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3 python,$(shell \
	$(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && command -v $(p))))
VENV = .venv
BIN := $(VENV)/bin

# Tests start many processes, which would otherwise all compile the same files.
unexport PYTHONDONTWRITEBYTECODE

# Two pips must not work in one environment at the same time.
.NOTPARALLEL:
.PHONY: demo test test-all test-quick test-pythons test-lower-bounds coverage docs bench lint types clean

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/demo.py $(if $(IMAGES),--images "$(IMAGES)") $(if $(QUERY),--query "$(QUERY)")

# Files are distributed whole, because their tests share fixtures, and in order, because files with
# few tests are among the slowest. ARGS="-n 0" runs everything in one process.
PYTEST = $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(VENV)/test.stamp
	$(PYTEST) $(ARGS)

test-all: $(VENV)/test.stamp $(VENV)/tpu.stamp
	$(PYTEST) -m "" $(ARGS)

coverage: $(VENV)/test.stamp
	$(PYTEST) --cov --cov-report=term --cov-report=html $(ARGS)

# Versions that are not installed are skipped; SKIP=3.11 skips one that is.
VERSIONS = $(filter-out $(SKIP),3.11 3.12 3.13 3.14)
# python3.X of the PATH if it runs, otherwise the newest of pyenv's.
find_python = $(firstword $(foreach p,python$(1) \
	$(lastword $(sort $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/$(1).*/bin/python))),\
	$(shell $(p) -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(1)")' >/dev/null 2>&1 \
	&& command -v $(p))))
# Without the long ones, and without those that need PyTorch or an S3 server.
QUICK_TESTS = tests/test_nmslib_import.py $(filter-out %/test_crash.py,$(shell \
	grep -LE '^(import (torch|boto3)|from tests.reference )' \
	tests/stores/test_*.py tests/embedder/test_*.py tests/query/test_*.py))

test-pythons:
	@$(if $(strip $(foreach v,$(VERSIONS),$(call find_python,$(v)))),:,\
		echo "expected a Python of $(VERSIONS), found none"; exit 1)
	$(foreach v,$(VERSIONS),$(if $(call find_python,$(v)),$(MAKE) PYTHON=$(call find_python,$(v)) \
		VENV=.venv-$(v) test-quick &&,echo "no Python $(v) found: skipped" &&)) true

test-quick: $(VENV)/quick.stamp
	$(PYTEST) $(QUICK_TESTS) $(ARGS)

test-lower-bounds: PYTHON := $(or $(call find_python,3.11),$(PYTHON))
test-lower-bounds:
	$(MAKE) PYTHON=$(PYTHON) VENV=.venv-lower-bounds .venv-lower-bounds/lower-bounds.stamp
	$(MAKE) PYTHON=$(PYTHON) VENV=.venv-lower-bounds test-quick

# pytest-benchmark warns when there is no earlier run to compare with.
bench: $(VENV)/test.stamp
	$(BIN)/python -m pytest -o addopts= -W default::pytest.PytestWarning tests/benchmarks \
		--benchmark-storage=runs/benchmarks --benchmark-autosave --benchmark-sort=name \
		--benchmark-columns=min,median,iqr,rounds,iterations $(ARGS)

docs: $(VENV)/docs.stamp
	$(BIN)/python -m scripts.build_docs

lint: $(VENV)/lint.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/lint.stamp $(VENV)/test.stamp
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-* demo htmlcov .coverage

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 or later, found none; install one, or give PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# Stands in for quick.stamp, so that `make test-quick` keeps these versions.
$(VENV)/lower-bounds.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet "uv>=0.9"
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --resolution lowest-direct \
		--editable . --group quick
	@touch $@ $(VENV)/quick.stamp

# Dependency groups (`--group`) need pip 25.1.
$(VENV)/%.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group $*
	@touch $@
