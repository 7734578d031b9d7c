# The menu: `make` alone prints it.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
export HF_HUB_OFFLINE = 1

.DEFAULT_GOAL := help
.PHONY: help setup test lint fix demo demo-text wheel check-wheel suite-adapters suite-text parity parity-fusionbench replay fuzz bench bench-spectral clean

help: ## print this menu
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(VENV)/.core: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[compile]'
	@touch $@

$(VENV)/.demo: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,demo]'
	@touch $@

# The exact version: a plain `torch` may pull gigabytes of GPU libraries.
$(VENV)/.torch: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'transformers>=5,<6' 'peft>=0.18' 'optuna>=4.5' 'cmaes>=0.11'
	@touch $@

setup: $(VENV)/.dev ## create the environment for development

test: $(VENV)/.torch ## create the environment and run every test
	$(BIN)/python -m pytest -q -n auto
	$(MAKE) lint

lint: $(VENV)/.dev ## style, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

fix: $(VENV)/.dev ## repair style, refresh generated docs
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/generate.py

demo: $(VENV)/.demo ## create the environment and merge experts on handwritten digits
	$(BIN)/python -m examples.digits.demo

# For another architecture: make wheel LEVELS=aarch64 (needs ziglang to link).
# For a try: make check-wheel LEVELS=x86-64-v2 ONLY='convert|weighted_sums' METHODS=linear
LEVELS ?= x86-64-v2,x86-64-v3,x86-64-v4
ONLY ?=
METHODS ?= linear,task_arithmetic,ties
wheel: $(VENV)/.dev ## compile all kernels and put them into a wheel (ten minutes of CPU the first time)
	$(BIN)/python -m building --levels $(LEVELS) --only '$(ONLY)'
	POLYAK_KERNEL_LEVELS=$(LEVELS) POLYAK_KERNEL_ONLY='$(ONLY)' $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps -w dist .

check-wheel: wheel ## install the wheel where there is no Numba, and merge with it at every level
	$(BIN)/python -m building.check dist/polyak-*.whl --methods $(METHODS)

demo-text: $(VENV)/.torch ## merge fine-tunes of a real sentence encoder
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r examples/text/requirements.txt
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m examples.text.demo

suite-adapters: $(VENV)/.torch ## average the checkpoints of a LoRA run of a language model
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r examples/suite_adapters/requirements.txt
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m examples.suite_adapters.suite
	$(BIN)/python docs/generate.py

suite-text: $(VENV)/.torch ## merge eight fine-tunes of a sentence encoder by every method (hours the first time; needs POLYAK_DATA)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r examples/text/requirements.txt
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m examples.suite_text.suite
	$(BIN)/python docs/generate.py

parity: $(VENV)/.core ## compare with mergekit 0.1.5, in an environment of its own
	$(PYTHON) -m venv $(VENV)-mergekit
	$(VENV)-mergekit/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VENV)-mergekit/bin/python -m pip install --quiet --disable-pip-version-check mergekit==0.1.5 pytest -e '.[compile]'
	$(VENV)-mergekit/bin/python -m pytest -q tests/parity
	$(MAKE) parity-fusionbench

parity-fusionbench: $(VENV)-fusionbench/.ready ## compare with FusionBench 0.2.33, in an environment of its own (1.8 GB)
	$(VENV)-fusionbench/bin/python -m pytest -q tests/parity/test_fusionbench*.py

$(VENV)-fusionbench/.ready:
	$(PYTHON) -m venv $(VENV)-fusionbench
	$(VENV)-fusionbench/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VENV)-fusionbench/bin/python -m pip install --quiet --disable-pip-version-check fusion-bench==0.2.33 pytest -e '.[compile]'
	@touch $@

bench-spectral: $(VENV)-fusionbench/.ready ## measure spectral methods against FusionBench and LAPACK
	$(VENV)-fusionbench/bin/python benchmarks/spectral_speed.py

replay: $(VENV)/.dev ## compare the bytes of a fixed set of merges with those of another commit: make replay BASE=main
	$(BIN)/python tests/replay/compare.py "$(BASE)"

fuzz: $(VENV)/.dev ## feed damaged headers to the parsers for a minute
	$(BIN)/python tests/fuzz_header.py 60

bench: $(VENV)/.dev ## measure speed and memory against the machine's limits
	$(BIN)/python benchmarks/merge_speed.py

clean: ## remove environments and outputs
	rm -rf build dist $(VENV) $(VENV)-mergekit $(VENV)-fusionbench demo-out demo-text-out suite-adapters-out suite-text-out benchmarks/.work
