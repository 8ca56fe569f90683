# make demo: set up and run the main job on real digits.  make test: set up and pass the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# two workers of one thread each; a file's tests stay together, so that what they share is made once
WORKERS := -n 2 --dist loadfile
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS)

.PHONY: demo test test-all fuzz bench compare docs lint setup clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      fit, audit and plan three models on real digits; writes demo/report.html"
	@echo "make test      the tests, on two workers (about 5 minutes on 2 free cores)"
	@echo "make test-all  all of them, the slow ones too"
	@echo "make fuzz      10,000 mutated files of every format; prints what is not refused in a sentence"
	@echo "make bench     every benchmark, as ratios against a peer or a limit"
	@echo "make compare BASE=COMMIT  times and results beside an earlier commit's, bit for bit"
	@echo "make docs      the site into docs/_build/html: tutorials run, examples run, a warning is an error"
	@echo "make lint      ruff and pyright"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/reverie demo

test: $(READY)
	$(PYTEST) -m "not slow"

test-all: $(READY)
	$(PYTEST)

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzzing.py 10000

bench: $(READY)
	$(BIN)/python benchmarks/run_all.py

compare: $(READY)
	$(BIN)/python benchmarks/compare_versions.py $(BASE)

docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	$(PYTEST) --doctest-modules src/reverie
	$(PYTEST) -m slow tests/test_guides.py tests/test_report.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf $(VENV) demo docs/_build docs/reference
