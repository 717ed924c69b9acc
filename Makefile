# make demo    sets everything up and trains a small model (PHOTOS=folder: on your own pictures)
# make test    sets everything up and runs all the tests
# make check   lint, types and the fast tests
PYTHON ?= python3
PHOTOS ?=
V := .venv/bin
JOBS ?= 2

.PHONY: demo test check format

demo: .venv/ready
	$(V)/limner demo $(if $(PHOTOS),--photos "$(PHOTOS)")

test: .venv/ready
	OMP_NUM_THREADS=1 $(V)/pytest -q -n $(JOBS) --dist worksteal

check: .venv/ready
	$(V)/ruff format --check .
	$(V)/ruff check .
	$(V)/mypy
	OMP_NUM_THREADS=1 $(V)/pytest -q -n $(JOBS) --dist worksteal -m "not slow"

format: .venv/ready
	$(V)/ruff format .
	$(V)/ruff check --fix .

# One virtual environment, made anew when the dependencies change.
.venv/ready: pyproject.toml constraints.txt
	test -x $(V)/python || $(PYTHON) -m venv .venv
	$(V)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch .venv/ready
