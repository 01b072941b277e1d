# Targets of this project; `make` lists them. Everything runs in $(VENV), which is created if it is missing:
#   make test VENV=/some/venv      shares an environment between checkouts

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# One core per test process: torch's own threads would compete for it.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto

# A shared environment may contain the editable install of another checkout: this code comes first.
export PYTHONPATH := $(CURDIR)

.DEFAULT_GOAL := help
.NOTPARALLEL: # two installations at once would damage the environment

include demo.mk

.PHONY: help
help:
	@echo "make demo      train on sample photographs and look at the result"
	@echo "make picture   draw the picture of README.md with what the demo trained"
	@echo "make test      run the tests that need nothing but Python"
	@echo "make test-all  run all tests, with launcher, SLURM, page, wheel and docs:"
	@echo "               apt-get install slurm-wlm slurmdbd mariadb-server chromium"
	@echo "make chaos     kill a training KILLS=20 times and check that it loses nothing"
	@echo "make fuzz      open damaged photographs of every format, ten minutes"
	@echo "make bench     measure every part on this machine, ten minutes: out/bench"
	@echo "make gpu       test and measure the GPU of this machine: out/gpu/report.md"
	@echo "make lint      check style and format"
	@echo "make type      check types"
	@echo "make lines     count lines of code: product, training core, tests"
	@echo "make cluster   start a SLURM on this machine; make cluster-stop ends it"
	@echo "make board     show the curves and pictures of every run in runs/"
	@echo "make clean     remove caches and builds; environment, runs and out stay"

.PHONY: test test-system test-all
test: $(VENV)/.installed-dev
	$(PYTEST) -m "not system and not gpu"

test-system: $(VENV)/.installed-dev
	$(PYTEST) -m "system and not gpu"

test-all: test test-system

KILLS ?= 20
.PHONY: chaos
chaos: $(VENV)/.installed-dev
	@mkdir -p out
	$(BIN)/python -m tests.chaos --kills $(KILLS) --json out/chaos.json

BENCHMARKS = prep loader step end_to_end scaling checkpoint
# Ten minutes: 2,000 damaged files of each format. FUZZ="--first 5000" damages others.
.PHONY: fuzz
fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m tests.fuzz --mutations 1000000 --seconds 600 $(FUZZ)

.PHONY: bench $(BENCHMARKS:%=bench-%)
bench: $(BENCHMARKS:%=bench-%)
	@echo
	@$(BIN)/python scripts/benchmark.py summary --reports out/bench

$(BENCHMARKS:%=bench-%): bench-%: $(VENV)/.installed-demo
	@mkdir -p out/bench
	$(BIN)/python scripts/benchmark.py $* --json out/bench/$*.json --plot out/bench/$*.png

# Tests and benchmarks that need a GPU: out/gpu/report.md. PART=step runs one section. Without a GPU
# scripts/gpu.py exits with 3, and make with 2, as after every error.
.PHONY: gpu
gpu: $(VENV)/.installed-dev
	$(BIN)/python scripts/gpu.py $(if $(PART),--part $(PART)) $(if $(PHOTOS),--photos $(PHOTOS))

.PHONY: lint type lines
lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

type: $(VENV)/.installed-dev
	$(BIN)/mypy

lines: $(VENV)/.installed-dev
	$(BIN)/python -m tests.lines

.PHONY: cluster cluster-stop
cluster: $(VENV)/.installed-demo
	$(BIN)/python -m slurm.local.cluster start

cluster-stop: $(VENV)/.installed-demo
	$(BIN)/python -m slurm.local.cluster stop

# By default TensorBoard shows only ten pictures of a run.
.PHONY: board
board: $(VENV)/.installed-demo
	$(BIN)/tensorboard --logdir runs --samples_per_plugin images=200

.PHONY: clean
clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find pix2pix data_prep scripts slurm tests -name __pycache__ -prune -exec rm -rf {} +

# A stamp file records which extras of setup.py are installed; dev includes demo.
$(VENV)/.installed-demo: EXTRAS := demo
$(VENV)/.installed-dev: EXTRAS := demo,dev,onnx,web
$(VENV)/.installed-demo $(VENV)/.installed-dev: setup.py | $(BIN)/python
	@echo "installing PyTorch and the rest into $(VENV): 6 GB, one to three minutes ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$(EXTRAS)]"
	@touch $(VENV)/.installed-demo $@

# Some systems ship Python without ensurepip: then the system's pip installs pip into the environment.
$(BIN)/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || { echo "error: \
	'$(PYTHON)' is not Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@if $(PYTHON) -c "import ensurepip" 2>/dev/null; then $(PYTHON) -m venv $(VENV); else \
	$(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; fi
