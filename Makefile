# Needs python3 >= 3.11 with its venv module, and nothing else.
.POSIX:

PYTHON = python3
BIN = .venv/bin
WORKERS = 2

.PHONY: help venv demo test coverage lint docs bench clean

help:
	@echo 'make demo    set up, then prune the embedded model'
	@echo 'make test    set up, then run all tests (WORKERS=$(WORKERS))'
	@echo 'make coverage    all tests, and the share of lines that they run'
	@echo 'make lint    ruff and mypy'
	@echo 'make docs    the guides and the reference as a site, in site/'
	@echo 'make bench   what can be measured, and how'
	@echo 'make clean   remove what was built; runs and the cache of level stores stay'

venv: .venv/.installed

# The stamp is written last: a set-up that broke off is done again.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'autoprune needs Python 3.11 or newer: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	    { echo 'this Python cannot make virtual environments: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: venv
	$(BIN)/autoprune search

test: venv
	$(BIN)/python -m pytest -n $(WORKERS)

coverage: venv
	$(BIN)/python -m pytest -n $(WORKERS) --cov --cov-report=term

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'open site/index.html'

bench:
	@for file in benchmarks/*.py; do printf '%s\n' "$$file"; sed -n '1,/^"""$$/p' "$$file" | sed '/^"""$$/d; s/^"""//; s/^/    /'; done

clean:
	rm -rf .venv site build dist *.egg-info .pytest_cache .coverage .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
