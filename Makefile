# `make test` and `make demo` need Python >= 3.10 with pip, and nothing else.
# `make docs` writes the API reference to build/docs, `make package` the wheel and the sdist to dist, tested;
# `make oldest` tests the wheel on the oldest releases that pyproject.toml allows.
# `make demo` takes some five minutes on two cores, and as many again where it finds the radar recording.
# `make demo DATA=/path/to/MMFi` uses a real copy of MM-Fi; `MARS=/path/to/MARS` one of the radar recording.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?=
MARS ?=

# Public modules are those that say what is public.
DOCUMENTED = $(shell grep -rl --include='*.py' '^__all__ = ' awc_balance | sort | \
	sed 's,/__init__\.py$$,,; s,\.py$$,,; s,/,.,g')
# Warnings of pdoc are errors, but for one: it cannot resolve the annotations of a named tuple from another module.
STRICT = -W error:::pdoc.doc -W error:::pdoc.doc_types -W "ignore:Error parsing type annotation ForwardRef"

.PHONY: test demo lint docs built package oldest clean

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

docs: $(VENV)/ready-docs
	$(BIN)/python $(STRICT) -m pdoc --docformat google --output-directory build/docs $(DOCUMENTED)

built: $(VENV)/ready-release
	.ci/package $(BIN)/python

package: built
	.ci/installed $(BIN)/python

oldest: built
	$(BIN)/python -m mypy --config-file= --python-version 3.10 --follow-imports=skip --ignore-missing-imports \
		--disable-error-code=var-annotated -p awc_balance # names that Python 3.10 does not have; stubs of numpy need 3.12
	.ci/installed $(BIN)/python --requirement .ci/oldest.txt

$(VENV)/ready-%: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$*]"
	touch $@

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
