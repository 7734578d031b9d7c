# The menu: `make` alone prints it.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
# The exact version: a plain `torch` may pull gigabytes of GPU libraries.  Its build for CPUs is not the registry's, so it
# has a line of its own instead of a hash in the lock.
TORCH  ?= torch==2.13.0
INSTALL = -m pip install --quiet --disable-pip-version-check --no-compile
LOCKED  = $(INSTALL) --no-deps --no-build-isolation --require-hashes -r
# One more than there are CPUs, since tests wait for disks and for processes of their own; quick tests wait for nothing.
CPUS   := $(shell "$(PYTHON)" -c 'import os; print(os.cpu_count() or 1)')
WORKERS ?= $(shell expr $(CPUS) + 1)
PYTEST  = $(BIN)/python -m pytest -q -rs -n $(WORKERS) --dist worksteal
export HF_HUB_OFFLINE = 1
# Tests start many Pythons, and the environments come without bytecode: each start would compile all of torch again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup test test-quick test-oldest test-newest lint fix lock docs demo demo-text wheel check-wheel test-levels suite-adapters suite-text suite-languages parity replay fuzz \
	bench bench-spectral clean

help: ## print this menu
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(VENV)/.core: pyproject.toml locks/build.txt locks/core.txt
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python $(LOCKED) locks/build.txt
	$(BIN)/python $(LOCKED) locks/core.txt
	$(BIN)/python $(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.demo: $(VENV)/.core locks/demo.txt
	$(BIN)/python $(LOCKED) locks/demo.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.core locks/dev.txt
	$(BIN)/python $(LOCKED) locks/dev.txt
	@touch $@

$(VENV)/.torch: $(VENV)/.core locks/test.txt
	$(BIN)/python $(INSTALL) --no-deps $(TORCH) & $(BIN)/python $(LOCKED) locks/test.txt && wait $$!
	@touch $@ $(VENV)/.dev $(VENV)/.docs

$(VENV)/.docs: $(VENV)/.core locks/docs.txt
	$(BIN)/python $(LOCKED) locks/docs.txt
	@touch $@

# One resolution for all, so that an environment can grow from `core` to `test`.
COMPILE = $(VENV)-lock/bin/uv pip compile --quiet --no-header --no-annotate
PINS    = $(COMPILE) --universal --python-version 3.11 --generate-hashes
DEV     = --extra dev --extra demo
TEST    = $(DEV) --extra docs --extra search --extra hub --extra lm-eval --group compared --group beside-torch

$(VENV)-lock/.ready:
	"$(PYTHON)" -m venv $(VENV)-lock
	$(VENV)-lock/bin/python $(INSTALL) 'uv>=0.13'
	@touch $@

lock: $(VENV)-lock/.ready ## pin the newest versions of all that the environments hold, with hashes, in locks/
	$(PINS) --upgrade pyproject.toml $(TEST) --group build --group parity -o locks/test.txt
	$(PINS) --group build -c locks/test.txt -o locks/build.txt
	$(PINS) pyproject.toml --extra compile -c locks/test.txt -o locks/core.txt
	$(PINS) pyproject.toml --extra demo -c locks/test.txt -o locks/demo.txt
	$(PINS) pyproject.toml $(DEV) -c locks/test.txt -o locks/dev.txt
	$(PINS) pyproject.toml --extra docs -c locks/test.txt -o locks/docs.txt

setup: $(VENV)/.dev ## create the environment for development

test: $(VENV)/.torch ## create the environment and run every test, parity included
	@# The checks fill what the tests leave of the CPUs, where they wait and at their end.
	@$(MAKE) --output-sync=target -j2 lint docs > $(VENV)/checks.txt 2>&1 & \
	$(PYTEST); tests=$$?; \
	wait $$!; checks=$$?; \
	cat $(VENV)/checks.txt; exit $$((tests || checks))

test-quick: $(VENV)/.dev ## run the tests that need neither torch nor a process of their own
	$(PYTEST) -n $(CPUS) -m "not torch and not process and not slow"

# ARGUMENTS narrows these, such as ARGUMENTS='-n 0 tests/recipe'.
test-oldest: ## run every test but parity on the lowest versions that pyproject.toml allows
test-newest: ## run every test but parity on the newest versions that pyproject.toml allows
test-oldest: RESOLUTION = lowest-direct
test-newest: RESOLUTION = highest
test-oldest test-newest: test-%: $(VENV)-lock/.ready
	"$(PYTHON)" -m venv --clear $(VENV)-$*
	$(COMPILE) --resolution $(RESOLUTION) --python $(VENV)-$*/bin/python --upgrade pyproject.toml $(TEST) -o $(VENV)-$*/versions.txt
	$(VENV)-lock/bin/uv pip install --quiet --python $(VENV)-$*/bin/python --no-deps -r $(VENV)-$*/versions.txt
	$(VENV)-$*/bin/python $(INSTALL) $(TORCH)
	$(VENV)-$*/bin/python $(INSTALL) --no-deps -e .
	$(VENV)-$*/bin/python -m pytest -q -rs -n $(WORKERS) --ignore tests/parity $(ARGUMENTS)

lint: $(VENV)/.dev ## style, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

fix: $(VENV)/.dev ## repair style, refresh generated docs
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/generate.py

docs: $(VENV)/.docs ## build the documentation site in docs-out; a warning, such as a broken link, is an error
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs-out
	@echo docs-out/index.html

demo: $(VENV)/.demo ## create the environment and merge experts on handwritten digits
	$(BIN)/python -m examples.digits.demo

# For another architecture: make wheel LEVELS=aarch64 (needs ziglang to link).
# For a try: make check-wheel LEVELS=x86-64-v2 ONLY='convert|weighted_sums' METHODS=linear
LEVELS ?= x86-64-v2,x86-64-v3,x86-64-v4
ONLY ?=
METHODS ?= linear,task_arithmetic,ties
WHEEL = dist/polyak-*_$(shell uname -m).whl
wheel: $(VENV)/.dev ## compile all kernels and put them into a wheel (a quarter of an hour of CPU the first time)
	$(BIN)/python -m building --levels $(LEVELS) --only '$(ONLY)'
	POLYAK_KERNEL_LEVELS=$(LEVELS) POLYAK_KERNEL_ONLY='$(ONLY)' $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps -w dist .

check-wheel: wheel ## install the wheel where there is no Numba, and merge with it at every level
	$(BIN)/python -m building.check $(WHEEL) --methods $(METHODS)

# ARGUMENTS='-n 1 tests/kernels' runs these instead.
INSTALLED = $(abspath $(VENV)-levels)
FORCED = tests/kernels tests/engine tests/methods tests/test_contract.py
test-levels: wheel ## run the tests of kernels, engine and methods once per level of the wheel that runs here
	rm -rf "$(INSTALLED)"
	$(BIN)/python $(INSTALL) --no-deps --target "$(INSTALLED)" $(WHEEL)
	for level in $$(PYTHONPATH="$(INSTALLED)" $(BIN)/python -m building.merges usable); do \
		echo "$$level"; \
		PYTHONPATH="$(INSTALLED)" POLYAK_KERNEL_LEVEL=$$level $(BIN)/python -m pytest -q -rs -n $(WORKERS) $(or $(ARGUMENTS),$(FORCED)) || exit 1; \
	done

demo-text: $(VENV)/.torch ## merge fine-tunes of a real sentence encoder
	$(BIN)/python $(LOCKED) examples/text/requirements.txt
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m examples.text.demo

suite-adapters: $(VENV)/.torch ## average the checkpoints of a LoRA run of a language model
	$(BIN)/python $(LOCKED) examples/suite_adapters/requirements.txt
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m examples.suite_adapters.suite
	$(BIN)/python docs/generate.py

suite-text: $(VENV)/.torch ## merge eight fine-tunes of a sentence encoder by every method (hours the first time; needs POLYAK_DATA)
	$(BIN)/python $(LOCKED) examples/text/requirements.txt
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m examples.suite_text.suite
	$(BIN)/python docs/generate.py

suite-languages: $(VENV)/.torch ## cross-lingual transfer of multilingual-e5-small (hours; needs POLYAK_DATA and POLYAK_E5)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m examples.suite_languages.suite
	$(BIN)/python docs/generate.py

parity: $(VENV)/.torch ## compare with mergekit 0.1.5, FusionBench 0.2.33 and PEFT
	$(PYTEST) tests/parity

bench-spectral: $(VENV)/.torch ## measure spectral methods against FusionBench and LAPACK
	$(BIN)/python benchmarks/spectral_speed.py

replay: $(VENV)/.dev ## compare the bytes of a fixed set of merges with those of another commit: make replay BASE=main
	$(BIN)/python tests/replay/compare.py "$(BASE)"

# SECONDS=3600 SEED=7 runs for an hour, with other inputs.
SECONDS ?= 20
SEED ?= 0
fuzz: $(VENV)/.dev ## feed mutated files of every kind to what reads them, for SECONDS
	$(BIN)/python -m tests.fuzz $(SECONDS) --seed $(SEED)

bench: $(VENV)/.dev ## measure speed and memory against the machine's limits
	$(BIN)/python benchmarks/merge_speed.py

clean: ## remove environments and outputs
	rm -rf build dist $(VENV) $(VENV)-lock $(VENV)-oldest $(VENV)-newest $(VENV)-levels demo-out demo-text-out suite-adapters-out suite-text-out suite-languages-out docs-out docs/reference benchmarks/.work
