# The front desk: everything a newcomer asks for, each with its own set-up.
#
#   make demo     a look around, no server and no account needed
#   make test     the whole test suite, a process per processor, real mail servers on loopback included
#   make pythons  the same on each CPython from 3.11 on that is found (on the PATH, in pyenv), and a line for each
#   make newest   what differs by the version of Python, on the newest CPython that is found
#   make django   the mail backends with Django 4.2, 5.2 and the newest, and Django's own tests of mail on them
#   make check    lint, formatting, types and the layering of the package
#   make fuzz     what takes minutes: every test of drawn examples, every short string at every split
#   make thorough the suite with every case of its largest tables and 500 drawn examples for each test, an hour or two
#   make torture  kill the spool and its processor, take the power away, cut connections everywhere, and keep the books
#   make mutants  change lines of the package one at a time, and see whether the tests notice
#   make soak     send for 15 minutes while disk and database fail now and then, and watch what the process holds
#   make bench    the benchmarks, each a ratio against a rival measured in the same run
#   make docs     draw the manual's tables and man pages anew, try its programs, and build its site in build/site
#   make pictures take the pictures of both web pages in docs/images anew
#   make dist     build the packages into dist/, and try them in an empty environment
#   make typecheck-user   typical code of users under mypy --strict, pyright and ty
#   make help     this text
#
# `make test ARGS="tests/protocol -x"` hands ARGS to pytest (`-n 0` among them for one process), `make fuzz
# ARGS="--seconds 60 parser"` to tests.fuzz, `make torture ARGS="--deaths 20000"` to tests.torture, and `make pythons
# ARGS="-m 'not server'"` to pytest on each version.

SHELL := /bin/bash
MAKEFLAGS += --no-print-directory

# The tests start many processes, and each would compile the package anew if the environment forbade to keep it compiled.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
ARGS ?=

# The first interpreter that runs, is new enough and can make a virtual environment. A name on the PATH
# proves little: version managers put names there that only say "not installed".
PYTHON ?= $(shell for python in python3.11 python3.15 python3.14 python3.13 python3.12 python3; do \
	$$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

.PHONY: demo test thorough pythons newest django check typecheck-user docs pictures dist fuzz torture mutants soak bench \
	venv servers help
.DEFAULT_GOAL := demo

demo: venv
	@$(PY) -m smtp_async demo

# Not in pytest's own options: who calls it for one test needs no other processes. Each has servers of its own, hence
# a limit where there are many processors. What one has left when another is done, the other takes over.
test: venv servers
	@$(PY) -m pytest -n auto --maxprocesses 8 --dist worksteal $(ARGS)

thorough: venv servers
	@SMTP_ASYNC_THOROUGH=1 $(PY) -m pytest -n auto --maxprocesses 8 --dist worksteal --timeout 3600 $(ARGS)

pythons: venv servers
	@$(PY) -m tests.pythons $(ARGS)

# By the interpreter of `venv`, which need not be made for it.
newest:
	@$(PYTHON) -m tests.pythons --newest $(ARGS)

django: venv
	@$(PY) -m tests.django_suite $(ARGS)

check: venv
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m pytest -q tests/test_layering.py

# Without the project's own settings: a user has none of them.
typecheck-user: venv
	@$(PY) -m mypy --config-file= --strict tests/typing/application.py
	@$(PY) -m pyright --pythonpath $(PY) tests/typing/application.py
	@$(PY) -m ty check --python $(VENV) tests/typing/application.py

docs: venv
	@$(PY) docs/draw.py
	@$(PY) -m pytest -q tests/test_docs.py tests/test_man_pages.py
	@$(PY) -m sphinx -q -n -W --keep-going -c docs . build/site
	@echo "The site is in build/site/index.html"

pictures: venv
	@$(PY) -m pytest -q tests/web/catcher/test_page.py tests/web/console/test_page.py -k test_the_look
	@cp screenshots/{catcher,console}-{light,dark}.webp docs/images/

dist: venv
	@rm -rf dist
	@$(PY) -m tests.dist --keep dist

help:
	@sed -n '/^#   make/p' Makefile | cut -c 5-

fuzz: venv
	@$(PY) -m tests.fuzz $(ARGS)

torture: venv servers
	@$(PY) -m tests.torture $(ARGS)
	@$(PY) -m tests.torture postgres $(ARGS)
	@$(PY) -m tests.torture power $(ARGS)
	@$(PY) -m tests.torture wire $(ARGS)

mutants: venv servers
	@$(PY) -m tests.mutants $(ARGS)

soak: venv servers
	@$(PY) -m tests.torture soak $(ARGS)

bench: venv
	@$(PY) -m benchmarks

venv: $(READY)

# Made anew when pyproject.toml changes, so that a dependency that was dropped there is gone here too.
$(READY): pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "No Python >= 3.11 with venv was found; set PYTHON=/path/to/python" >&2; exit 1; fi
	@echo "Making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

servers:
	@tests/servers/install.sh
