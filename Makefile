# `make demo` and `make test` work on a fresh clone: each creates .venv and installs what it needs; the second time is quick.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLOWER := .venv-flower
# The extras of file formats, each with an environment of its own and a file in tests/formats.
FORMATS := openvino ncnn executorch litert coreml
INSTALL := pip --disable-pip-version-check install --quiet --constraint constraints.txt
PIP := $(BIN)/python -m $(INSTALL)

.PHONY: demo test test-slow test-flower test-formats test-examples results-quick check format clean
demo: $(VENV)/.core
	$(BIN)/fedsup-deploy demo

test: $(VENV)/.check
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: $(VENV)/.check
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

# In an environment of its own, for Flower asks for older versions of some libraries.
test-flower: $(FLOWER)/.check
	$(FLOWER)/bin/python -m pytest -n 2 --dist loadfile tests/flower

# Each format where its libraries are, and what is asked of every exporter there.
test-formats: $(FORMATS:%=.venv-%/.check)
	for extra in $(FORMATS); do \
		.venv-$$extra/bin/python -m pytest -n 2 tests/formats/test_$$extra.py || exit 1; \
		.venv-$$extra/bin/python -m pytest tests/conformance/test_exporters.py -k $$extra || exit 1; \
	done

# They install what they need below examples/, by the commands of its README.
test-examples: $(VENV)/.check
	FEDSUP_EXAMPLES=1 $(BIN)/python -m pytest tests/e2e/examples

# DATA: the folder of Fashion-MNIST's four files.
results-quick: $(VENV)/.check
	$(BIN)/python benchmarks/results.py --data "$(DATA)" --rounds 8

check: $(VENV)/.check
	PATH="$(CURDIR)/$(BIN):$$PATH" tools/check

format: $(VENV)/.check
	$(BIN)/ruff check --quiet --fix . tools/check
	$(BIN)/ruff format --quiet . tools/check

# torch first and alone: the constraint then decides which build every later install sees.
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	touch $@

$(VENV)/.core: $(VENV)/.torch pyproject.toml
	$(PIP) --editable '.[report]'
	touch $@

$(VENV)/.check: $(VENV)/.core
	$(PIP) --editable '.[check]'
	touch $@

$(FLOWER)/.check: constraints.txt pyproject.toml
	test -x $(FLOWER)/bin/python || $(PYTHON) -m venv $(FLOWER)
	$(FLOWER)/bin/python -m $(INSTALL) torch
	$(FLOWER)/bin/python -m $(INSTALL) --editable '.[check,flower-sim]'
	touch $@

.venv-%/.check: constraints.txt pyproject.toml
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m $(INSTALL) torch
	.venv-$*/bin/python -m $(INSTALL) --editable '.[check,$*]'
	touch $@

clean:
	rm -rf $(VENV) $(FLOWER) $(FORMATS:%=.venv-%) examples/*/.venv examples/*/node_modules examples/*/build
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
