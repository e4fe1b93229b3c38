# Everything a contributor does. Each target sets itself up in .venv; only python3 (3.11+) and make must be there.
#
#   make run     start the sidecar on 127.0.0.1:8787 with its own Valkey and SQLite and the tutorial's catalog
#   make test    run the test suite; ARGS go to pytest: make test ARGS="-k reset -x", or ARGS="-m slow" for the long forms
#   make bench   measure, in less than five minutes; bench-full also what takes long; ARGS="http --rounds 3" measures a part
#   make mutants try small wrong versions of the code: some test has to fail with each; ARGS="LIFO" tries some
#   make faults  break every part under load, one after the other, and print what became of the books; ARGS="--soak 30"
#   make lint    check style, formatting, types, import directions and the Lua scripts
#   make lock    bring the locks up to pyproject.toml; ARGS=--upgrade also takes newer versions
#   make clean   remove what these targets made; never the sidecar's data

PYTHON ?= python3
BIN := .venv/bin

# --no-emit-*: a lock says what is installed, not where from, so that it works behind any mirror.
COMPILE := $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-build-isolation \
  --no-header --no-emit-index-url --no-emit-find-links

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Set in many containers. Without the compiled modules each process compiles all of ours again: a third of a second.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test bench bench-full mutants faults lint lock clean

run: .venv/ready
	$(BIN)/creditgate serve --demo

# The tests of one file run in order in one worker, so a module's server is started once. (Not --dist loadgroup:
# pytest-xdist 3.8 silently ignores the groups under pytest 9.2.) Each worker starts servers of its own, so many cores
# do not mean as many workers. Files are taken in their order, not the largest first: the longest have one or two tests,
# and would be left to a single worker at the end.
test: .venv/ready
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: .venv/bench
	$(BIN)/python -m bench $(ARGS)

bench-full: .venv/bench
	$(BIN)/python -m bench --full $(ARGS)

mutants: .venv/ready
	$(BIN)/python -m tests.mutants.run $(ARGS)

faults: .venv/ready
	$(BIN)/python -m tests.faults.run $(ARGS)

# A Lua script is linted as Redis gets it, with its includes joined in: alone, it lacks the functions it calls.
lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	rm -rf .build/lua
	$(BIN)/python -m creditgate.balances.scripts .build/lua
	@if command -v luacheck >/dev/null; then luacheck .build/lua; \
	else echo "SKIPPED: luacheck is not installed (Debian's package lua-check), so no Lua script was checked"; fi

lock: .venv/locked
	$(COMPILE) --extra dev --output-file requirements.lock $(ARGS) pyproject.toml
	$(COMPILE) --extra bench --constraint requirements.lock --output-file requirements-bench.lock $(ARGS) pyproject.toml

clean:
	rm -rf .venv .build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -prune -exec rm -rf {} +

# .venv is made in two steps, each with a stamp, so that a second run is instant and an edit of pyproject.toml does
# not install everything again. A new lock starts from an empty environment: what it no longer names is gone.
.venv/locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "creditgate needs Python 3.11 or newer")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	@touch $@

.venv/ready: pyproject.toml .venv/locked
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# What is measured beside us. Apart, so that the tests neither need it nor wait for it.
.venv/bench: requirements-bench.lock .venv/ready
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-bench.lock
	@touch $@
