PYTHON ?= python3
V := .venv/bin
PHOTOS ?=

.PHONY: demo test check format clean

# One virtual environment for everything; made anew when the dependencies change.
.venv/ready: pyproject.toml constraints.txt
	test -x $(V)/python || $(PYTHON) -m venv .venv
	$(V)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch .venv/ready
