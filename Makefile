# Every target sets up what it needs, from a fresh clone, as often as you like.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEMO := outputs/demo
PRETRAINED := outputs/pretrained

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check lint format bench bench-refine bench-formats bench-truth bench-robustness bench-scale bench-photographs results docs notebooks clean

help: ## what each target does
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /|/' | while IFS='|' read name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

setup: $(STAMP) ## virtual environment in .venv with the tested pins of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make setup PYTHON=python3.11")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP) ## train on embedded scenes for four minutes, then a page with what came of it
	rm -rf $(DEMO)
	$(RUN) -m sfdfd.demo output_dir=$(DEMO) $(DEMO_ARGS)

test: $(STAMP) ## quick tests
	$(RUN) -m pytest -n auto -m 'not slow'

test-slow: $(STAMP) ## the slow tests
	$(RUN) -m pytest -m slow

lint: $(STAMP) ## ruff and the import layers
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -c 'from importlinter.cli import lint_imports_command as run; run()'

check: lint ## lint, types and spelling: what a change has to pass besides the tests
	$(RUN) -m mypy
	$(VENV)/bin/codespell

format: $(STAMP) ## format the sources
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(STAMP) ## timings and accuracy of the renderer, speed of loading data and commands; writes benchmarks/results/
	$(RUN) benchmarks/renderer.py
	$(RUN) benchmarks/loading.py
	$(RUN) benchmarks/imports.py

bench-refine: $(STAMP) ## refinement, confidence, calibration on RGB-D frames (half an hour): make bench-refine ROOT=DIR
	$(RUN) benchmarks/refinement.py $(ROOT)

bench-truth: $(STAMP) ## methods on path-traced stacks, by region: make bench-truth ROOT=DIR (without: SFDFD_REAL_DATA/raytraced)
	$(RUN) benchmarks/truth.py $(ROOT)

bench-robustness: $(STAMP) ## what feed-forward answers bear: wrong cameras, noise, misalignment, 2 to 12 slices: make bench-robustness ROOT=DIR
	$(RUN) benchmarks/robustness.py $(ROOT)

results: $(STAMP) ## the tables of README and docs from benchmarks/results/
	$(RUN) benchmarks/tables.py

bench-scale: $(STAMP) ## what steps, synthesis and predictions cost by size; writes benchmarks/results/scale.md
	$(RUN) benchmarks/scale.py

bench-photographs: $(STAMP) ## seconds and memory of predict on real stacks in other forms, and on 50 slices of 12 megapixels
	$(RUN) benchmarks/photographs.py

bench-formats: $(STAMP) ## prepare three data sets from files in their official formats, train 200 steps on each
	$(RUN) benchmarks/formats.py

# on a GPU: make pretrained DISTIL_ARGS='accelerator=gpu workers=10 precision=bf16-mixed batch_size=20 micro_batch_size=20 fresh=6 memory=4096 steps=3600 optimizer.lr=2e-3 ema_decay=0'
pretrained: $(STAMP) ## path-trace stacks and distil plane_sweep from them, and from scenes of ASSETS=FOLDER if given (hours; resumable)
	test -d $(PRETRAINED)/stacks || $(RUN) -m sfdfd.prepare data=raytraced data.root=$(PRETRAINED)/stacks \
	    'data.cameras=[dslr,phone]' data.samples=256 data.train_length=54 data.val_length=0 data.test_length=0
	test -z '$(ASSETS)' || $(RUN) -m sfdfd.prepare data=assets data.assets='$(ASSETS)' data.root=$(PRETRAINED)/bank
	$(RUN) -m sfdfd.distil data=raytraced data.root=$(PRETRAINED)/stacks output_dir=$(PRETRAINED) \
	    $(if $(ASSETS),bank=$(PRETRAINED)/bank) $(DISTIL_ARGS)

docs: $(STAMP) ## draw the figures anew and build the documentation into site/
	$(RUN) docs/figures/make.py
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet --strict

notebooks: $(STAMP) ## run every notebook from top to bottom
	$(RUN) notebooks/run.py

clean: ## remove what the targets made, but not your runs in outputs/ and multirun/
	rm -rf $(VENV) site dist build docs/generated .mypy_cache .pytest_cache .ruff_cache .import_linter_cache $(DEMO)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
