# make run      finds the duplicates of the example data set
# make test     runs the tests
# make help     lists the rest

# Any Python from 3.11 on: make run PYTHON=python3.12
PYTHON ?= python3

# What pip is asked for before the package. Which build that is (CPU or CUDA) depends on pip's index.
# Another build, or another index:  make run TORCH="torch==2.13.0+cpu --index-url ADDRESS"
# A torch that is in .venv already: make run TORCH=torch
TORCH ?= torch==2.13.0

# What `make run` reads and where it writes; ARGS are further options of `dask-dedup run`.
DATA ?= examples/data/clipart
OUT ?= out/clipart
ARGS ?=

# Where Debian's package openclipart-png has put its drawings.
OPENCLIPART ?= /usr/share/openclipart/png

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
INSTALLED := $(VENV)/.installed
INSTALLED_TEST := $(VENV)/.installed-test
INSTALLING := $(VENV)/.installing

# The lowest versions, in an environment of their own, and the tests that they have to pass.
LOWEST := .venv-lowest
LOWEST_TESTS := tests/storage tests/data tests/graph tests/report tests/cells tests/vectors \
	tests/ivf/test_adaptive_threshold.py tests/results tests/settings tests/planning \
	tests/pipeline/test_run.py tests/cli/test_run.py tests/test_object_store.py

# img2dataset, which pins old packages, in an environment of its own.
READERS := .venv-readers
DOWNLOADER := img2dataset==1.47.0

.DEFAULT_GOAL := help
.PHONY: help run test test-slow test-gpu test-slurm test-lowest test-readers check format bench bench-verbatim big-index paper clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

run: $(INSTALLED) ## find the duplicates of DATA (the example data set) and write them to OUT
	$(BIN)/dask-dedup run "$(DATA)" "$(OUT)" $(ARGS)

test: $(INSTALLED_TEST) ## run the tests, slow ones left out, and the examples in docstrings
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not slurm" --doctest-modules dask_dedup tests

test-slow: $(INSTALLED_TEST) ## run the tests that take minutes
	$(BIN)/python -m pytest -q -m slow || [ $$? -eq 5 ] # 5: there is none

test-gpu: $(INSTALLED_TEST) ## run the tests that need a CUDA device; install torch for it first
	$(BIN)/python -m pytest -q -m gpu

test-slurm: $(INSTALLED_TEST) ## run jobs on a SLURM of this machine; says what is missing (as root)
	@tests/slurm/require.sh
	$(BIN)/python -m pytest -q -m slurm tests/slurm

# Warnings of old versions count as such only. torch is the one of TORCH, whatever pyproject allows.
test-lowest: $(LOWEST)/.installed ## run the quick tests with the lowest versions that pyproject.toml allows
	OMP_NUM_THREADS=1 NUMBA_CACHE_DIR="$(CURDIR)/$(LOWEST)/numba" $(LOWEST)/bin/python -m pytest -q -n 2 --dist loadfile -W default -m "not slow and not slurm" $(LOWEST_TESTS)

test-readers: $(INSTALLED_TEST) $(READERS)/.installed ## let img2dataset download exports, and read its tars
	IMG2DATASET="$(CURDIR)/$(READERS)/bin/img2dataset" $(BIN)/python -m pytest -q -m readers tests/results

check: $(INSTALLED_TEST) ## check format, lint and types, then `make test`: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) --no-print-directory test

format: $(INSTALLED_TEST) ## format the code, and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## compare with faiss on 10^6 synthetic rows (ARGS="--rows 50000" for fewer)
	$(BIN)/python examples/benchmarks/bench.py $(ARGS)

bench-verbatim: $(INSTALLED) ## what the presets of `verbatim score` call copies, on Debian's openclipart-png at full size
	$(BIN)/python examples/benchmarks/openclipart_full.py "$(OPENCLIPART)" bench/openclipart/data
	$(BIN)/dask-dedup run bench/openclipart/data bench/openclipart/out --overwrite --quiet
	$(BIN)/python examples/benchmarks/verbatim_presets.py bench/openclipart/out bench/openclipart/presets $(ARGS)

big-index: $(INSTALLED) ## train, build and search an index of 2^16 lists over 3 * 10^6 synthetic rows
	$(BIN)/python examples/benchmarks/big_index.py bench/big-index $(ARGS)

paper: $(INSTALLED) ## the paper's curves and tables for DATA, into out/paper (ARGS="--space DIR" for those of texts)
	$(BIN)/dask-dedup evaluate paper "$(DATA)" out/paper --config examples/paper/paper.toml $(ARGS)

clean: ## remove results of `make run`, `make paper` and `make bench`, builds and caches
	rm -rf out/clipart out/paper bench build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find dask_dedup tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the environment, too
	rm -rf $(VENV) $(LOWEST) $(READERS)

# An environment is complete when .installed is in it; one with .installing was interrupted, and pip
# would take its half-copied packages for whole ones: it is made anew.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11 or later: make run PYTHON=..." >&2; exit 1; }
	@if [ -e $(INSTALLING) ]; then echo "$(VENV): interrupted before, made anew"; rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(INSTALLING) && rm -f $@ $(INSTALLED_TEST)
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): some minutes"
	$(PIP) $(TORCH)
	$(PIP) --editable .
	$(BIN)/dask-dedup warm-up
	@rm $(INSTALLING) && touch $@

$(INSTALLED_TEST): $(INSTALLED)
	@touch $(INSTALLING) && rm -f $(INSTALLED)
	$(PIP) --editable ".[test]"
	@touch $(INSTALLED) && rm $(INSTALLING) && touch $@

$(LOWEST)/.installed: pyproject.toml .ci/lowest.py
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	@echo "installing into $(LOWEST): some minutes"
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check --quiet $(TORCH)
	$(PYTHON) .ci/lowest.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check --quiet --requirement $(LOWEST)/lowest.txt --editable .
	@touch $@

$(READERS)/.installed: Makefile
	rm -rf $(READERS)
	$(PYTHON) -m venv $(READERS)
	@echo "installing into $(READERS): some minutes"
	$(READERS)/bin/python -m pip install --disable-pip-version-check --quiet "$(DOWNLOADER)"
	@touch $@
