"""Trains twice on the same pictures, once undisturbed and once killed again and again, and draws both loss curves.

    python benchmarks/killed.py PICTURES --kills 6 --out docs/images/killed.png

The killed run gets SIGKILL at random moments and is continued with --resume. Both curves, and every bit of the weights,
must be the same; otherwise the script fails. PICTURES is any folder that `limner check` understands.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from limner.builtin.untrained import save_untrained
from limner.core.rundir import RunDir, read_metrics

RECIPE = """
model: {{kind: sd1, path: {root}/model}}
dataset: {{kind: auto, path: {pictures}}}
images: {{resolution: 128, bucket_step: 32, crop: random, flip: true}}
method: {{kind: full}}
objective: {{caption_dropout: 0.1}}
optimizer: {{kind: adamw, lr: 5e-4}}
train: {{steps: {steps}, batch_size: 8, micro_batch_size: 4, save_every: 10, ema_decay: 0.99, device: cpu}}
cache: {{folder: {root}/cache}}
out: {root}/whole
"""


def train(recipe: Path, out: Path, *, resume: bool = False) -> subprocess.Popen[bytes]:
    limner = str(Path(sys.executable).parent / "limner")
    return subprocess.Popen([limner, "train", str(recipe), f"out={out}", *(["--resume"] if resume else [])])


def finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait() != 0:
        raise SystemExit(f"the run ended with {process.returncode}")


def kill_again_and_again(recipe: Path, out: Path, kills: int, steps: int) -> list[int]:
    """Returns the steps after which the run died; it is whole in the end."""
    rng = random.Random(0)
    died: list[int] = []
    for number in range(kills):
        process = train(recipe, out, resume=number > 0)
        goal = round(steps * (number + 1) / (kills + 1)) + rng.randint(-2, 2)
        while len(read_metrics(RunDir(out).metrics)) < goal:
            if process.poll() is not None:
                raise SystemExit(f"the run ended with {process.returncode}")
            time.sleep(0.02)
        time.sleep(rng.random() * 0.5)
        process.kill()
        process.wait()
        died.append(read_metrics(RunDir(out).metrics)[-1]["step"])
    finish(train(recipe, out, resume=True))
    return died


def weights_hash(out: Path) -> str:
    run = RunDir(out)
    folder = run.checkpoint(run.checkpoint_steps()[-1])
    files = sorted(folder.glob("*.safetensors"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def draw(whole: list[float], killed: list[float], died: list[int], path: Path, pictures: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 3.4), dpi=110, layout="constrained")
    axes.plot(range(1, len(whole) + 1), whole, color="#9ec5e8", linewidth=5, label="never stopped")
    axes.plot(range(1, len(killed) + 1), killed, color="#1b3a57", linewidth=1.1, label="killed and resumed")
    for number, step in enumerate(died):
        label = f"SIGKILL ({len(died)} times)" if number == 0 else None
        axes.axvline(step, color="#c8442e", linewidth=1, linestyle=":", label=label)
    axes.set(xlabel="optimizer step", ylabel="loss", title=f"The same run twice, on {pictures}: equal in every bit")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--title", default="your pictures", help="what the pictures are, for the title")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        save_untrained(root / "model")
        recipe = root / "recipe.yaml"
        recipe.write_text(RECIPE.format(root=root, pictures=arguments.pictures.resolve(), steps=arguments.steps))
        finish(train(recipe, root / "whole"))
        died = kill_again_and_again(recipe, root / "killed", arguments.kills, arguments.steps)
        losses = [[line["loss"] for line in read_metrics(RunDir(root / name).metrics)] for name in ("whole", "killed")]
        if losses[0] != losses[1] or weights_hash(root / "whole") != weights_hash(root / "killed"):
            raise SystemExit("the two runs differ")
        draw(*losses, died, arguments.out, arguments.title)
    print(f"equal; killed after steps {died}; {arguments.out}")


if __name__ == "__main__":
    main()
