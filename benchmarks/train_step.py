"""What a training step of Limner costs above the floor, and how long a warm start takes.

    python benchmarks/train_step.py            # about four minutes on two cores

The floor is a plain loop with everything precomputed: noisy latents, noise, timesteps and text states lie in memory, a
step is forward, loss, backward, clipping and a fused AdamW. Limner's step is everything between two reports of a real
run: order, captions, caches, noise, the same forward and backward, proof, log and status. The two take turns, step by
step, in one process, so that a machine that changes its speed changes it for both. Memory is that of two processes of
their own. Writes nothing but to a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limner.builtin.drawings import draw_folder
from limner.builtin.untrained import untrained_pipeline
from limner.config import RunConfig
from limner.core.rundir import RunDir, read_metrics
from limner.run import finetune

RESOLUTION, BATCH, WARM_UP = 256, 2, 5
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def make_model(folder: Path) -> int:
    """Writes a pipeline with a denoiser of 10 to 20 million parameters; returns their number."""
    pipeline = untrained_pipeline(unet_channels=(96, 160, 224), text_width=128, sample_size=RESOLUTION // 8)
    pipeline.save_pretrained(folder)
    return sum(parameter.numel() for parameter in pipeline.unet.parameters())


def config(root: Path, out: str, steps: int) -> RunConfig:
    return RunConfig.model_validate(
        {
            "out": str(root / out),
            "model": {"kind": "sd1", "path": str(root / "model")},
            "dataset": {"kind": "folder", "path": str(root / "pictures")},
            "images": {"resolution": RESOLUTION, "flip": True},
            "method": {"kind": "lora"},
            "train": {"steps": steps, "batch_size": BATCH, "save_every": 10_000, "device": "cpu", "precision": "fp32"},
            "cache": {"folder": str(root / "cache")},
        }
    )


class Floor:
    """The plain loop."""

    def __init__(self, model: Path) -> None:
        from diffusers import UNet2DConditionModel
        from peft import LoraConfig

        torch.manual_seed(0)
        self.unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet", use_safetensors=True)
        self.unet.requires_grad_(False)
        self.unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=TARGETS))
        self.unet.train()
        self.params = [p for p in self.unet.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.params, lr=1e-4, fused=True)
        side = RESOLUTION // 8
        self.x_t, self.eps = torch.randn(BATCH, 4, side, side), torch.randn(BATCH, 4, side, side)
        self.t = torch.tensor([100, 700])
        self.states = torch.randn(BATCH, 77, self.unet.config.cross_attention_dim)

    def loss(self) -> Tensor:
        prediction = self.unet(self.x_t, self.t, encoder_hidden_states=self.states).sample
        return torch.nn.functional.mse_loss(prediction, self.eps)

    def step(self) -> float:
        """Takes one step; returns its seconds."""
        started = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        return time.perf_counter() - started


class TakingTurns:
    """A listener to a run that lets another loop take a step after each of the run's."""

    def __init__(self, other: Callable[[], float]) -> None:
        self.other = other
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self._resumed = time.perf_counter()

    def step(self, line: Mapping[str, Any], steps: int) -> None:
        self.ours.append(time.perf_counter() - self._resumed)
        self.theirs.append(self.other())
        self._resumed = time.perf_counter()

    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None: ...
    def stage(self, name: str, done: int, total: int) -> None: ...


def flops(floor: Floor) -> int:
    """Returns the floating point operations of forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        floor.loss().backward()
    return int(counter.get_total_flops())


def peak_flops() -> float:
    """Returns the machine's measured float32 rate in a large matrix product, per second."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    torch.mm(a, b)
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - started)
    return 2 * 2048**3 / min(seconds)


def measure_steps(root: Path, steps: int) -> dict[str, Any]:
    """Returns the seconds per step of both, taking turns."""
    floor = Floor(root / "model")
    turns = TakingTurns(floor.step)
    finetune(config(root, "turns", steps + WARM_UP), progress=turns)
    ours, theirs = turns.ours[WARM_UP:], turns.theirs[WARM_UP:]
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    work, peak = flops(floor), peak_flops()
    return {
        "limner_seconds": statistics.median(ours),
        "floor_seconds": statistics.median(theirs),
        "ratio_of_medians": statistics.median(ours) / statistics.median(theirs),
        "median_of_ratios": statistics.median(ratios),
        "gigaflop_per_step": work / 1e9,
        "peak_gigaflop_per_second": peak / 1e9,
        "seconds_at_peak": work / peak,
    }


def run_alone(root: Path, what: str, steps: int) -> dict[str, Any]:
    """Runs one of the two in a process of its own; returns what it printed."""
    command = [sys.executable, __file__, "--alone", what, "--root", str(root), "--steps", str(steps)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))


def alone(root: Path, what: str, steps: int) -> dict[str, Any]:
    if what == "limner":
        finetune(config(root, "alone", steps))
    else:
        floor = Floor(root / "model")
        for _ in range(steps):
            floor.step()
    # not getrusage: its maximum begins with that of the process that started this one
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return {"peak_mib": int(line.split()[1]) / 1024}


def warm_start(root: Path) -> float:
    """Returns the seconds from the command to the beginning of the first step of a second run on the same data."""
    recipe = root / "recipe.yaml"
    recipe.write_text(config(root, "first", 1).model_dump_json())
    run = [str(Path(sys.executable).parent / "limner"), "train", str(recipe)]
    subprocess.run([*run, f"out={root / 'first'}"], check=True, capture_output=True)
    started = time.time()
    subprocess.run([*run, f"out={root / 'second'}"], check=True, capture_output=True)
    metrics = RunDir(root / "second").metrics
    return metrics.stat().st_mtime - started - float(read_metrics(metrics)[0]["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--alone", choices=["limner", "floor"])
    parser.add_argument("--root", type=Path)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(alone(arguments.root, arguments.alone, arguments.steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        parameters = make_model(root / "model")
        draw_folder(root / "pictures")
        print(f"denoiser of {parameters / 1e6:.1f} M parameters, {RESOLUTION} px, batch {BATCH}, "
              f"{torch.get_num_threads()} threads, torch {torch.__version__}")  # fmt: skip
        found = measure_steps(root, arguments.steps)
        found["warm_start_seconds"] = warm_start(root)
        for what in ("limner", "floor"):
            found[f"{what}_peak_mib"] = run_alone(root, what, 8)["peak_mib"]
    for name, value in found.items():
        print(f"{name:26s} {value:12.4f}")


if __name__ == "__main__":
    main()
