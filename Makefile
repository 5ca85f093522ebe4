# `make test` and `make demo` need Python >= 3.10 with pip, and nothing else.
# `make demo DATA=/path/to/MMFi` uses a real copy of MM-Fi; `MARS=/path/to/MARS` one of the radar recording.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?=
MARS ?=

.PHONY: test demo lint clean

test: $(VENV)/ready
	$(BIN)/python -m pytest

demo: $(VENV)/ready
	$(BIN)/python -m examples.quickstart
	$(BIN)/python -m examples.mmfi demo $(if $(DATA),--data "$(DATA)")
	$(BIN)/python -m examples.mars --if-found $(if $(MARS),--data "$(MARS)")

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
