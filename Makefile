# Two commands do everything:  make demo   and   make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# pip reads PIP_FIND_LINKS by itself, uv does not.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export MLFLOW_DISABLE_TELEMETRY = true
export DO_NOT_TRACK = true
# As the command line sets it: training must not collapse beside other work.
export GOMP_SPINCOUNT ?= 1000

.PHONY: demo test test-unit lint ui clean

demo: $(VENV)/.stamp
	$(BIN)/unlabeled demo

# Files of tests side by side, a process a core and a thread a process.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-unit: $(VENV)/.stamp
	$(BIN)/python -m pytest -m "not integration"

lint: $(VENV)/.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: $(VENV)/.stamp
	$(BIN)/unlabeled ui

$(VENV)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unlabeled needs Python 3.11 or later: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	if $(BIN)/python -m pip install --quiet uv; \
	then VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --compile-bytecode -c constraints.txt -e '.[dev]'; \
	else $(BIN)/python -m pip install -c constraints.txt -e '.[dev]'; fi
	touch $@

clean:
	rm -rf $(VENV)
