# make lab     JupyterLab with the explorer open; installs what is missing into .venv first
# make test    the tests, those in a browser where Chromium is found (QEXPLORE_BROWSER=required: without it they fail)
# make check   style, types, and notebooks without outputs
# make bench   the benchmarks; they print ratios
#
# PYTHON    the Python (3.11 or newer) that makes .venv; by default the first one found that runs
# LAB_ARGS  options for JupyterLab:  make lab LAB_ARGS="--no-browser --port 9999"
# TEST_ARGS options for pytest:      make test TEST_ARGS="tests/test_imports.py -x"
# PIP_ARGS  options for pip. On Linux, PyPI's torch brings several GB for GPUs, which qexplore does not use;
#           PyTorch's index of CPU builds avoids them:
#           make lab PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PY := .venv/bin/python
PIP := $(PY) -m pip install -q --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
NOTEBOOKS := $(wildcard notebooks/*.ipynb notebooks/*/*.ipynb)
RUNS := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
FIND_PYTHON = for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c "$(RUNS)" 2>/dev/null && echo $$p && break; done
# JupyterLab refuses to start as root, as in most containers, unless told that this is meant.
AS_ROOT = $(shell [ "$$(id -u)" != 0 ] || echo --allow-root)

.PHONY: lab test check bench

lab: .venv/lab.stamp
	@$(PY) -m qexplore.environment
	$(PY) -m jupyterlab $(AS_ROOT) --LabApp.default_url=/lab/tree/notebooks/00_explorer.ipynb $(LAB_ARGS)

# Several small tests at once on one thread each, then those that need all cores. pytest ends with 5 where it finds no
# test, which is wrong only if both do.
test: .venv/test.stamp
	@OMP_NUM_THREADS=1 $(PY) -m pytest -m "not alone" -n auto --maxprocesses 4 $(TEST_ARGS); small=$$?; \
	$(PY) -m pytest -m alone $(TEST_ARGS); alone=$$?; \
	[ $$small = 0 ] && [ $$alone = 0 ] || [ $$small = 5 -a $$alone = 0 ] || [ $$small = 0 -a $$alone = 5 ]

check: .venv/test.stamp
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(if $(NOTEBOOKS),$(PY) -m nbstripout --verify --keep-id $(NOTEBOOKS))

bench: .venv/test.stamp
	$(PY) -m pytest tests/benchmarks tests/browser/test_live.py::test_moving_a_control_redraws_without_quantizing -s $(TEST_ARGS)

$(PY):
	@python=$${PYTHON:-$$($(FIND_PYTHON))}; \
	if ! $${python:-false} -c "$(RUNS)"; then \
		echo "qexplore needs Python 3.11 or newer with venv: install it, or name it: make lab PYTHON=/path/to/python3"; \
		exit 1; \
	fi; \
	$$python -m venv --clear .venv

.venv/lab.stamp: pyproject.toml constraints.txt | $(PY)
	@echo "Installing into .venv; the first time takes some minutes."
	@$(PIP) -e .
	@touch $@

.venv/test.stamp: pyproject.toml constraints.txt | $(PY)
	@echo "Installing into .venv, with what the tests need; the first time takes some minutes."
	@$(PIP) -e ".[test]"
	@touch $@
