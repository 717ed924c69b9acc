"""The structure that docs promise: imports point down, heavy libraries wait, nothing is read by pickle."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "limner"
LAYERS = {
    "core": 0, "diffusion": 0, "page": 0,
    "models": 1, "methods": 1, "data": 1,
    "training": 2, "evaluation": 2, "export": 2, "builtin": 2,
    "config": 3,
    "preflight": 4, "subject": 4, "class_pictures": 4, "resuming": 4, "session": 4, "run": 4,
    "reopening": 4, "exporting": 4, "publishing": 4,
    "drawing": 4, "measuring": 4, "blend_curve": 4, "inspect": 4, "builtin_make": 4, "judged": 4,
    "demo": 4, "study": 4, "reading": 4, "swap": 4, "new_clip": 4, "report": 4, "sweep": 4,
    "grid": 4,
    "console": 5, "commands": 5, "cli": 5, "builtin_study": 5, "builtin_encoders": 5,
    "builtin_report": 5,
}  # fmt: skip
SIDEWAYS = {("diffusion", "core"), ("methods", "models"), ("run", "session"), ("run", "resuming"), ("cli", "console")}
SIDEWAYS |= {("session", "preflight"), ("session", "class_pictures"), ("session", "resuming")}
SIDEWAYS |= {("preflight", "measuring"), ("session", "measuring"), ("run", "measuring"), ("blend_curve", "measuring")}
SIDEWAYS |= {("demo", "preflight"), ("demo", "run")}
SIDEWAYS |= {("swap", "drawing"), ("report", "session"), ("report", "reopening")}
SIDEWAYS |= {("reopening", "session"), ("exporting", "session"), ("exporting", "reopening")}
SIDEWAYS |= {("run", "exporting"), ("run", "report")}
SIDEWAYS |= {("sweep", "run"), ("sweep", "resuming"), ("sweep", "measuring")}
SIDEWAYS |= {("grid", "drawing"), ("grid", "reopening")}
SIDEWAYS |= {("publishing", "exporting"), ("publishing", "reopening"), ("publishing", "report")}
SIDEWAYS |= {("study", "run"), ("builtin_study", "console"), ("builtin_encoders", "console")}
SIDEWAYS |= {("preflight", "subject"), ("class_pictures", "preflight")}
SIDEWAYS |= {("cli", "commands"), ("commands", "console")}
SIDEWAYS |= {("builtin", "training")}  # the judge learns with the trainer's own optimizer
HEAVY = ("torch", "diffusers", "transformers", "peft", "accelerate", "pyarrow", "datasets", "numpy", "PIL")


def imports(path: Path, *, top_level: bool) -> list[str]:
    """Returns the modules that a file imports; imports for type checking only are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level else list(ast.walk(tree))
    typing_only = {id(n) for node in ast.walk(tree) if _checks_types(node) for n in ast.walk(node)}
    found = []
    for node in nodes:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def _checks_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


FILES = sorted(PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_folder_has_a_layer() -> None:
    assert {place(path) for path in FILES} - {"__init__"} == set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = place(path)
    if here == "__init__":
        return
    for module in imports(path, top_level=False):
        parts = module.split(".")
        if parts[0] != "limner" or len(parts) == 1 or parts[1] == here:
            continue
        there = parts[1]
        allowed = LAYERS[there] < LAYERS[here] or (here, there) in SIDEWAYS
        assert allowed, f"{path.name} ({here}) imports {module}"
        if (here, there) == ("methods", "models"):
            assert module == "limner.models.protocol"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_wait_for_the_function_that_needs_them(path: Path) -> None:
    assert not [module for module in imports(path, top_level=True) if module.split(".")[0] in HEAVY]


def test_no_code_asks_for_a_pickle_or_for_remote_code() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert "torch.load" not in ast.unparse(node.func), path
                assert "trust_remote_code" not in [keyword.arg for keyword in node.keywords], path


def test_help_and_a_broken_recipe_answer_without_the_heavy_libraries(tmp_path: Path) -> None:
    recipe = tmp_path / "broken.yaml"
    recipe.write_text("out: x\nmodle: {}\n")
    code = (
        "import sys, limner.cli\n"
        f"sys.argv = ['limner', 'check', {str(recipe)!r}]\n"
        "try:\n    limner.cli.main()\n"
        "except SystemExit as end:\n    print(end.code)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["2", "[]"]
    assert "modle" in done.stderr
