# make demo    sets everything up and fine-tunes the built-in model (PHOTOS=folder: on your own pictures)
# make test    sets everything up and runs all the tests; those of the pages need Chromium, see tests/browser
# make check   lint, types and the fast tests
# make builtin makes the built-in model anew below runs/builtin, from random weights; stopped, it goes on where it was
PYTHON ?= python3
PHOTOS ?=
V := .venv/bin
JOBS ?= 2

.PHONY: demo test check format builtin browser

demo: .venv/ready
	$(V)/limner demo $(if $(PHOTOS),--photos "$(PHOTOS)")

test: .venv/ready browser
	OMP_NUM_THREADS=1 $(V)/pytest -q -n $(JOBS) --dist worksteal

check: .venv/ready
	$(V)/ruff format --check .
	$(V)/ruff check .
	$(V)/mypy
	OMP_NUM_THREADS=1 $(V)/pytest -q -n $(JOBS) --dist worksteal -m "not slow"

# For the tests of the pages; installed only where nobody has to be asked.
browser:
	@tests/browser/install_chromium.sh

format: .venv/ready
	$(V)/ruff format .
	$(V)/ruff check --fix .

# Each training goes on from its newest checkpoint; what is done already is not done again. To see the whole way in
# miniature: make builtin B=runs/try COUNT=64 CAPTIONS=4 SETTINGS="train.steps=2 train.batch_size=4 schedule.warmup_steps=0"
B := runs/builtin
COUNT ?= 40000
CAPTIONS ?= 1000
SETTINGS ?=
TRAIN = $(V)/limner train recipes/builtin/$(1).yaml out=$(B)/$(1) model.path=$(B)/$(2) dataset.path=$(B)/pictures \
  $(SETTINGS) $(if $(wildcard $(B)/$(1)/checkpoints/step_*),--resume)

builtin: .venv/ready
	test -d $(B)/new || $(V)/python -m limner.builtin_make new $(B)/new
	test -f $(B)/pictures/metadata.jsonl || \
	  $(V)/python -m limner.builtin_make pictures $(B)/pictures --count $(COUNT) --processes $(JOBS)
	test -d $(B)/autoencoder/export || $(call TRAIN,autoencoder,new)
	test -d $(B)/with-autoencoder || $(V)/python -m limner.builtin_make rescale \
	  $(B)/autoencoder/export/diffusers $(B)/pictures $(B)/with-autoencoder --count $$(( $(COUNT) < 1000 ? $(COUNT) : 1000 ))
	test -d $(B)/diffusion/export || $(call TRAIN,diffusion,with-autoencoder)
	test -d $(B)/new-clip || $(V)/limner new-clip $(B)/new-clip --text $(B)/diffusion/export/diffusers
	test -d $(B)/clip/export || $(call TRAIN,clip,new-clip)
	test -d $(B)/packed || $(V)/python -m limner.builtin_make pack \
	  $(B)/diffusion/export/diffusers $(B)/packed --clip $(B)/clip/export/transformers
	$(V)/python -m limner.builtin_report $(B)/packed --out $(B)/report --count $(CAPTIONS)

# One virtual environment, made anew when the dependencies change.
.venv/ready: pyproject.toml constraints.txt
	test -x $(V)/python || $(PYTHON) -m venv .venv
	$(V)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch .venv/ready
