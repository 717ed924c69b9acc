"""Chromium is installed where nobody has to be asked, and make goes on where it cannot be."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "install_chromium.sh"
SKIPPED = "the tests of the pages in a browser will be skipped.\n"


def run(folder: Path, **programs: str) -> tuple[str, list[str]]:
    """Returns what the script says, and what it runs, on a machine that has these programs only."""
    for name, body in {"env": 'exec /usr/bin/env "$@"', **programs}.items():
        path = folder / name.replace("_", "-")
        path.write_text(f'#!/bin/sh\necho "$(basename $0) $*" >> {folder}/log\n{body}\n')
        path.chmod(0o755)
    (folder / "basename").symlink_to("/usr/bin/basename")
    done = subprocess.run(
        ["/bin/sh", str(SCRIPT)], env={"PATH": str(folder)}, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    log = folder / "log"
    return done.stdout, [line for line in log.read_text().splitlines() if "apt-get" in line] if log.exists() else []


@pytest.mark.parametrize("name", ["chromium", "chromium_browser", "google_chrome"])
def test_nothing_is_done_where_a_browser_is(tmp_path: Path, name: str) -> None:
    assert run(tmp_path, **{name: ""}, apt_get="", id="echo 0") == ("", [])


def test_root_installs_it_without_questions(tmp_path: Path) -> None:
    said, ran = run(tmp_path, apt_get='test "$DEBIAN_FRONTEND" = noninteractive', id="echo 0")
    assert "skipped" not in said
    installed = [line for line in ran if line.startswith("apt-get")]
    assert len(installed) == 2
    assert " update" in installed[0]
    assert " install -y " in installed[1]
    assert " chromium " in installed[1]


def test_sudo_without_a_password_installs_it(tmp_path: Path) -> None:
    said, ran = run(tmp_path, apt_get="", id="echo 1000", sudo='shift; exec "$@"', true="")
    assert "skipped" not in said
    assert len([line for line in ran if line.startswith("sudo -n env DEBIAN_FRONTEND=noninteractive apt-get")]) == 2


@pytest.mark.parametrize(
    ("programs", "reason"),
    [
        ({}, "no apt-get"),
        ({"apt_get": "", "id": "echo 1000"}, "needs a password"),
        ({"apt_get": "", "id": "echo 1000", "sudo": "exit 1"}, "needs a password"),
        ({"apt_get": "exit 100", "id": "echo 0"}, "could not install it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_it_cannot_one_line_says_so(tmp_path: Path, programs: dict[str, str], reason: str) -> None:
    said, _ = run(tmp_path, **programs)
    assert said.endswith(SKIPPED)
    assert reason in said
    assert said.count("\n") <= 2
