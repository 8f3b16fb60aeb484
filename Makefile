# Needs python3 >= 3.11 with its venv module, and nothing else.
.POSIX:

PYTHON = python3
BIN = .venv/bin
WORKERS = 2
# More arguments of pip, as TORCH='--extra-index-url https://download.pytorch.org/whl/cpu' for torch without CUDA.
TORCH =

.PHONY: help venv dev demo test coverage lint package docs bench clean

help:
	@echo 'make demo    install the package, then prune the embedded model'
	@echo 'make test    install the tools of development too, then run all tests (WORKERS=$(WORKERS))'
	@echo 'make coverage    all tests, and the share of lines that they run'
	@echo 'make lint    ruff and mypy'
	@echo 'make package    the wheel and the source archive in dist/, checked for a package index'
	@echo 'make docs    the guides and the reference as a site, in site/'
	@echo 'make bench   what can be measured, and how'
	@echo 'make clean   remove what was built; runs and the cache of level stores stay'

# Two stamps: users install the package alone, developers their tools too.
# A stamp is written last: a set-up that broke off is done again.
venv: .venv/.installed
dev: .venv/.developed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'autoprune needs Python 3.11 or newer: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	    { echo 'this Python cannot make virtual environments: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt $(TORCH) -e .
	@touch $@

.venv/.developed: .venv/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt $(TORCH) -e '.[dev]'
	@touch $@

demo: venv
	$(BIN)/autoprune search

test: dev
	$(BIN)/python -m pytest -n $(WORKERS)

coverage: dev
	$(BIN)/python -m pytest -n $(WORKERS) --cov --cov-report=term

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

package: dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/twine check --strict dist/*

docs: dev
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'open site/index.html'

bench:
	@for file in benchmarks/*.py; do printf '%s\n' "$$file"; sed -n '1,/^"""$$/p' "$$file" | sed '/^"""$$/d; s/^"""//; s/^/    /'; done

clean:
	rm -rf .venv site build dist *.egg-info .pytest_cache .coverage .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
