# Everything stands in .venv; nothing outside this folder is written.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export ORT_DISABLE_TELEMETRY := 1

.PHONY: quickstart test test-slow lint gtsrb clean

quickstart: $(VENV)/ready  ## Run the main job on the embedded data: a table, a report, a bundle
	$(BIN)/edgekit compress recipes/quickstart.yaml

test: $(VENV)/ready  ## Run the tests
	$(BIN)/python -m pytest

test-slow: $(VENV)/ready  ## Run the long tests as well
	$(BIN)/python -m pytest -m ''

lint: $(VENV)/ready  ## Check style, types and the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

gtsrb:  ## Unpack the traffic signs: make gtsrb FROM=<folder with gtsrb-*.tar.gz>, to $EDGEKIT_DATA/gtsrb
	@test -n "$(FROM)" || { echo "say where the archives are: make gtsrb FROM=DIR"; exit 2; }
	@test -n "$$EDGEKIT_DATA" || { echo "say where data lives: export EDGEKIT_DATA=DIR"; exit 2; }
	mkdir -p "$$EDGEKIT_DATA/gtsrb"
	tar xzf "$(FROM)/gtsrb-train.tar.gz" -C "$$EDGEKIT_DATA/gtsrb"
	tar xzf "$(FROM)/gtsrb-test.tar.gz" -C "$$EDGEKIT_DATA/gtsrb"

$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); \
	  sys.exit(0 if ok else "edgekit needs Python 3.11, 3.12 or 3.13; this is %d.%d. Try: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,openvino]'
	touch $@

clean:  ## Remove the environment and the caches (not runs/)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
