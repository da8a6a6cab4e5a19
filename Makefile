# Two commands: `make demo` and `make test`. Both set up .venv first; neither needs Node, torch or a browser.
#
#   make demo [PORT=8888] [IP=127.0.0.1]
#   make test [PYTEST="-m 'not browser'"]
#
# `make bench [BENCH="W1 --quick"]` measures this project beside its peers, in .bench.
# `make faults [FAULTS="--seed 7"]` lets runs fail and be interrupted thousands of times.
# `make test-oldest [PYTEST="-x"]` tests with the oldest versions that pyproject.toml allows, in .venv-oldest.

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python3.10 python; do \
	"$$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null \
	&& echo "$$p" && break; done)
OLDEST_PYTHON ?= $(shell for p in python3.11 python3.10; do command -v "$$p" && break; done)
OLDEST_TESTS := tests/result tests/engine tests/widgets tests/papers $(patsubst %,tests/test_%.py,introspection oldest oracles torch_cka)
PORT ?= 8888
IP ?= 127.0.0.1
PYTEST ?=
BENCH ?= --quick
FAULTS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Ends a recipe line: `command $(call fail,what could not be had)`.
fail = || { echo; echo "make $(firstword $(MAKECMDGOALS)): FAILED: $(1)" >&2; exit 1; }

.PHONY: demo test faults bench install js lint types test-js test-old test-oldest browser clean
.SILENT:
.DEFAULT_GOAL := help

help:
	echo "make demo   JupyterLab on notebooks/quickstart.ipynb (PORT=8888)"
	echo "make test   lint, types, JavaScript, Python, notebook and browser tests"
	echo "make faults all faults, of which make test has a sample (FAULTS=\"--seed 7\")"
	echo "make bench  cost, memory and errors beside the peers' (BENCH=--quick)"
	echo "make test-oldest  engine and widget tests with the oldest versions allowed"

demo: install js
	$(BIN)/python scripts/demo.py --port $(PORT) --ip $(IP) $(call fail,JupyterLab ended with an error (see above).)

test: lint types test-js test-old browser
	echo "== Python, notebook and browser tests"
	$(BIN)/python -m pytest $(PYTEST) $(call fail,a Python test failed (see above).)
	echo "make test: everything passed."

faults: install js
	PYTHONPATH=tests $(BIN)/python -m faults $(FAULTS) $(call fail,something was left behind by the faults named above.)

bench: .bench/.installed
	.bench/bin/python benchmarks/peers.py $(BENCH) $(call fail,the benchmarks ended with an error (see above).)

# --- environment ---------------------------------------------------------------------------------

.venv/.created:
	test -n "$(PYTHON)" $(call fail,no Python from 3.10 to 3.14 found; name one with PYTHON=.)
	echo "== creating .venv with $$($(PYTHON) --version)"
	$(PYTHON) -m venv .venv $(call fail,$(PYTHON) -m venv does not work (Debian and Ubuntu: install python3-venv).)
	$(PIP) install --upgrade "pip>=25.1" $(call fail,pip could not be brought to 25.1 or newer from the package index.)
	touch $@

.venv/.installed: .venv/.created pyproject.toml constraints.txt
	echo "== installing the packages (torch is large, this takes a few minutes once)"
	$(PIP) install --constraint constraints.txt --group dev $(call fail,a package could not be installed (pip says above which).)
	$(PIP) install --constraint constraints.txt --no-build-isolation --editable . $(call fail,cka_widget could not be installed (see above).)
	touch $@

install: .venv/.installed

.bench/.installed: benchmarks/environment.py constraints.txt
	test -n "$(PYTHON)" $(call fail,no Python from 3.10 to 3.14 found; name one with PYTHON=.)
	echo "== installing the peers into .bench"
	$(PYTHON) benchmarks/environment.py --into .bench $(call fail,a package could not be installed (pip says above which).)
	touch $@

js: install
	echo "== JavaScript"
	$(BIN)/python hatch_build.py $(call fail,the JavaScript could not be built (see above).)

browser: install
	echo "== browser"
	$(BIN)/python scripts/find_browser.py --fetch $(call fail,no browser for the browser tests (see above).)

# --- parts of the test ---------------------------------------------------------------------------

lint: install
	echo "== lint and format"
	$(BIN)/ruff check --quiet . $(call fail,ruff found something (see above).)
	$(BIN)/ruff format --check . $(call fail,ruff would format the files above: run .venv/bin/ruff format .)

types: install
	echo "== types"
	$(BIN)/mypy $(call fail,mypy found something (see above).)

test-js: js
	$(BIN)/python hatch_build.py run check $(call fail,tsc found something in js/ (see above).)
	$(BIN)/python hatch_build.py test $(call fail,a JavaScript test failed (see above).)

# The oldest notebook stack (Colab's), on top of .venv's packages so that torch is there once.
.venv-old/.installed: .venv/.installed tests/old_stack/requirements.txt
	echo "== installing ipywidgets 7 and its like beside"
	rm -rf .venv-old
	$(BIN)/python -m venv .venv-old $(call fail,the environment .venv-old could not be made.)
	$(BIN)/python scripts/beside.py .venv-old
	.venv-old/bin/python -m pip --disable-pip-version-check --quiet install --requirement tests/old_stack/requirements.txt \
		$(call fail,the old notebook stack could not be installed (pip says above what).)
	touch $@

test-old: js .venv-old/.installed
	echo "== ipywidgets 7.7.1 and ipykernel 6.17.1, as on Colab"
	.venv-old/bin/python -m pytest --quiet tests/old_stack tests/widgets $(call fail,a test failed on the old notebook stack (see above).)

# The oldest versions that pyproject.toml allows, torch among them, in an environment of their own.
.venv-oldest/.installed: .venv/.created pyproject.toml scripts/oldest.py
	test -n "$(OLDEST_PYTHON)" $(call fail,the oldest versions need Python 3.10 or 3.11; name one with OLDEST_PYTHON=.)
	echo "== installing the oldest versions into .venv-oldest (torch with CUDA takes 6 GB on Linux)"
	rm -rf .venv-oldest
	$(OLDEST_PYTHON) -m venv .venv-oldest $(call fail,the environment .venv-oldest could not be made.)
	$(BIN)/python scripts/oldest.py > .venv-oldest/requirements.txt
	$(PIP) --python .venv-oldest/bin/python install --requirement .venv-oldest/requirements.txt --group oldest \
		$(call fail,an old version could not be installed (pip says above which).)
	touch $@

test-oldest: js .venv-oldest/.installed
	echo "== the oldest versions: $$(grep -v '^#' .venv-oldest/requirements.txt | paste -sd ' ')"
	PYTHONPATH=$(CURDIR) .venv-oldest/bin/python -m pytest --quiet $(PYTEST) $(OLDEST_TESTS) $(call fail,a test failed with the oldest versions (see above).)

clean:
	rm -rf .venv .venv-old .venv-oldest .bench js/node_modules cka_widget/static tests/browser/screenshots build dist
