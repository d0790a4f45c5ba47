# One entry for people and for CI. `make help` lists the targets.

PYTHON ?= python3.11
VENV   ?= .venv
# torch is pinned: an open range would pull gigabytes of CUDA. For a GPU, name an index that has CUDA
# builds of it: make setup TORCH_INDEX=<address>
TORCH  ?= torch==2.13.0
TORCH_INDEX ?=
# Real data for `make demo` and for the tests on real data; none means generated data.
DATA   ?=
TURNPOINT_DATA ?= $(wildcard ../shared/data)
export TURNPOINT_DATA

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup tools demo test test-slow stack-test image-test dashboards pictures lint audit format serve online bench \
  bench-serving bench-quality soak clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(STAMP)  ## make .venv with everything

$(STAMP): pyproject.toml client/pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; pass PYTHON=<a Python 3.11 or newer>"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ./client -e '.[dev]'
	@touch $@

demo: setup  ## train, publish, serve and ask, on generated data or DATA=<file>
	$(BIN)/turnpoint demo $(if $(DATA),--data $(DATA))

tools:  ## promtool and prometheus, where Debian's package can be had; .turnpoint/tools
	@sh deploy/tools.sh

test: setup tools  ## all tests, two files at a time; under 10 minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile

test-slow: setup  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow --timeout=3600

stack-test: setup tools  ## service, trainer, Redis, Prometheus and traffic as processes: every query, alarms
	$(BIN)/python -m pytest tests/deploy

dashboards: setup  ## write deploy/grafana/dashboards anew
	$(BIN)/python -m deploy.grafana.generate

pictures: setup tools  ## run the stack, draw the dashboards into docs/images; some minutes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r deploy/grafana/requirements.txt
	$(BIN)/python -m deploy.grafana.pictures

lint: setup  ## linters, types, import rules, whether the dependencies fit together
	$(BIN)/python -m pip check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=client $(BIN)/mypy
	$(BIN)/lint-imports

audit: setup  ## known vulnerabilities of the locked versions; asks the network
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)/audit/bin/pip-audit --disable-pip --no-deps -r constraints.txt

format: setup  ## put the code into the house's form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

serve: setup  ## serve what `make demo` published
	$(BIN)/turnpoint serve --registry .turnpoint/registry

online: setup  ## a trainer and the model that learns from its traffic, side by side; a minute, or DATA=<file>
	$(BIN)/python examples/online_loop.py $(if $(DATA),--data $(DATA))

bench: setup  ## measure what ADAR adds to an epoch, and Turnpoint beside other servers and its floor
	$(BIN)/python -m bench.epochs $(if $(DATA),--data $(DATA))
	$(BIN)/python -m bench.serving

bench-serving: setup  ## the same with the peers installed, then the sweep; a quarter of an hour on a quiet machine
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r bench/requirements.txt
	$(BIN)/python -m bench.serving --out .turnpoint/bench
	$(BIN)/python -m bench.serving.sweep --requests 10000 --out .turnpoint/bench

# TABLE: beauty, toys, table3, sweeps or smoke; CELLS: of its labels, all by default.
TABLE ?= beauty
CELLS ?=

bench-quality: setup  ## do the negatives help? TABLE, or CELLS of it, from where it stands (docs/quality/protocol.md)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r bench/quality/requirements.txt
	$(BIN)/python -m bench.quality run $(TABLE) $(if $(CELLS),--cell $(CELLS)) --workers 2
	$(BIN)/python -m bench.quality report

# SCENARIOS: all of them, or names; SECONDS: of load each, counts in proportion and full at 60;
# REDIS: any value gives `chaos` a real Redis, which it kills.
SCENARIOS ?= all
SECONDS ?= 60
REDIS ?=

soak: setup  ## what must hold under fire (docs/soak.md), SECONDS of load each; half an hour at 60
	$(BIN)/python -m bench.soak $(SCENARIOS) --seconds $(SECONDS) $(if $(REDIS),--redis) --out .turnpoint/soak

image-test: setup  ## build both images without Docker and run them; as root, with buildah and debootstrap
	PYTHON=$(abspath $(BIN)/python) deploy/image/test.sh

clean:  ## remove the environment and everything generated
	rm -rf $(VENV) .turnpoint .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
