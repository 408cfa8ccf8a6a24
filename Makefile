# `make train` and `make test` work on a fresh machine: they make .venv and install into it first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CACHE := $(or $(UNMASK_CACHE),$(HOME)/.cache/unmask)
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install train test test-sweep test-slurm test-report dashboard check bench evidence data-fashion data-glyphs data-photos data-stamps data-asterisk data-wordnet lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(READY) ## make .venv and install the pinned dependencies

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

train: $(READY) ## pretrain MAE on handwritten digits: minutes on two cores, no download
	$(BIN)/python train.py

test: $(READY) ## run the tests
	$(BIN)/python -m pytest

test-sweep: $(READY) ## a sweep of twelve arms that is killed, starved and edited: ten minutes
	$(BIN)/python -m pytest -s tests/slow/test_sweep_survives.py

test-slurm: $(READY) ## sweeps on a Slurm of this machine alone (as root, apt-get install slurm-wlm munge): minutes
	$(BIN)/python -m pytest -rs tests/slow/test_slurm.py

test-report: $(READY) ## reports in Chromium (apt-get install chromium): charts, sorting, hovering, nothing fetched
	$(BIN)/python -m pip install --quiet playwright
	$(BIN)/python -m pytest -rs tests/slow/test_report_in_a_browser.py

dashboard: $(READY) ## TensorBoard over all runs, running ones too: http://localhost:6006 (RUNS=folder)
	$(BIN)/tensorboard --logdir $(or $(RUNS),outputs)

check: $(READY) ## lint, format, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

bench: $(READY) ## train steps beside transformers, and the time to the first step
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/data2vec_step.py
	$(BIN)/python benchmarks/hiding_pays.py
	$(BIN)/python benchmarks/start_up.py

evidence: $(READY) data-fashion ## the README's tables and figures of what learns: what is missing of them, many hours
	$(BIN)/python benchmarks/evidence.py
	$(BIN)/python benchmarks/k_ablation.py
	$(BIN)/python benchmarks/mask_ratios.py
	$(BIN)/python benchmarks/label_budgets.py
	$(BIN)/python benchmarks/equal_compute.py

data-fashion: ## fetch Fashion-MNIST (MIT, 30 MB) into the cache, without root
	scripts/fetch_fashion_mnist.sh $(CACHE)/fashion_mnist

data-glyphs: ## fetch 465 fonts (free to pass on and change, 24 MB) into the cache, without root
	scripts/fetch_fonts.sh $(CACHE)/fonts

data-photos: ## fetch 27 photos (CC BY, CC BY-SA, CC0, GPL; 74 MB fetched, 31 kept) into the cache, without root
	scripts/fetch_photos.sh $(CACHE)/photos

data-stamps: data-photos ## fetch 343 cut-out pictures (GPL 2; 161 MB fetched, 16 kept), and photos, into the cache, without root
	scripts/fetch_stamps.sh $(CACHE)/stamps

data-asterisk: ## fetch recorded English prompts with transcripts (CC BY-SA, 24 MB) into the cache, without root
	scripts/fetch_asterisk_prompts.sh $(CACHE)/asterisk_prompts

data-wordnet: ## fetch WordNet's glosses (WordNet licence, 7 MB) into the cache, without root
	scripts/fetch_wordnet.sh $(CACHE)/wordnet

lock: $(READY) ## pin what pyproject.toml allows
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file requirements.lock

clean: ## remove the environment and caches, not the runs
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
