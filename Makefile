# Two commands are enough: `make demo` for a first look, `make test` before a change goes in.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo setup test test-survival test-slow lint clean

demo: setup
	$(BIN)/python train.py -m experiment=comparison_table

setup: $(READY)

# torch is named first: asked for by another package, pip may take a far larger build of it.
# fastText compiles from source; without a compiler all but `embedding=fasttext` works, and that option says so.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt $(TORCH) --editable '.[test]'
	@if command -v c++ >/dev/null 2>&1 && $(BIN)/pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[fasttext]'; \
	  then true; else echo 'No fastText (it needs a C++ compiler): embedding=fasttext is not available, all else is.'; fi
	@touch $(READY)

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not slow'

test-survival: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m survival

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check src

clean:
	rm -rf $(VENV) outputs multirun .cache
