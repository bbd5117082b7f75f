# Each target does everything it needs on a fresh Debian or Ubuntu machine; see `make help`.
# PYTHON=/path/to/python3.12 names the interpreter that .venv is made from.

export PATH := $(CURDIR)/.venv/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin
PYTHON_FILES := regionfs tests demo bench scripts

.DEFAULT_GOAL := help
.PHONY: help setup demo test torture lint bench bench-quick man clean

help:
	@echo "make demo         a guided tour: a disk out of partition images, mounted, checked, written through"
	@echo "make test         lint, types and every test; .ci/run calls this"
	@echo "make torture      the fault suite in full: kills, faults and fuzz by the hundred thousand (an hour)"
	@echo "make bench        the benchmark behind docs/benchmark.md (20 minutes); bench-quick: a look (2 minutes)"
	@echo "make lint         ruff and mypy --strict"
	@echo "make man          the manual pages, into build/man"
	@echo "make setup        system packages and .venv; the others do it by themselves"
	@echo "make clean        removes .venv and whatever was built"

setup:
	@scripts/setup demo test

demo:
	@scripts/setup demo
	@python demo/tour.py

lint:
	@scripts/setup
	@ruff check --quiet $(PYTHON_FILES)
	@mypy --no-error-summary

test:
	@scripts/setup test
	@$(MAKE) --no-print-directory lint
	@scripts/sanitize address
	@python -m pytest $(ARGS)

torture:
	@scripts/setup test
	@scripts/sanitize thread
	@REGIONFS_TORTURE=1 python -m pytest -rP tests/faults tests/mounted/test_restart.py tests/mounted/test_reload.py $(ARGS)

bench:
	@scripts/setup bench
	@python -m bench.run
	@python -m bench.publish
	@python -m bench.trees

bench-quick:
	@scripts/setup bench
	@python -m bench.run --quick
	@python -m bench.trees --quick

man:
	@python3 -c 'import click, yaml, rich' 2>/dev/null || scripts/setup
	@python3 scripts/manual.py build/man
	@echo "man -l build/man/regionfs.1; man -l build/man/regionfs-manifest.5"

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
