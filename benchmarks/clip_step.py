"""Images per second of contrastive training: Limner's loop against plain transformers loops, and the memory of a batch.

    python benchmarks/clip_step.py             # some three minutes on one core

The same model, batch size and optimizer in all. *Habit* is the loop of transformers' own examples: the processor reads
PIL pictures that lie in memory and pads captions to the longest, the model gives the loss. *Floor* has pixels and ids
of every batch computed beforehand, padded to the longest: nothing is left but the model and AdamW. Limner's step is
everything between two reports of a real run: order, reading and decoding files, captions, duplicates, proof, log and
status. They take turns, step by step, in one process. Memory is that of processes of their own. Writes nothing but to a
temporary folder.
"""

from __future__ import annotations

import argparse
import io
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

from limner.builtin.pictures import draw_pictures
from limner.builtin.untrained import clip_tokenizer
from limner.config import RunConfig
from limner.run import finetune

SIDE, BATCH, COUNT, WARM_UP = 64, 16, 128, 4
WORDS = (
    "a", "an", "the", "of", "on", "in", "and", "to", "left", "right", "above",
    "below", "red", "green", "blue", "yellow", "circle", "square", "dog", "cat", "photo",
)  # fmt: skip


def make_model(folder: Path) -> int:
    """Writes a CLIP model of a few million parameters; returns their number."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    tokenizer = clip_tokenizer(WORDS)
    tower = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 4, "num_hidden_layers": 6}
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    model = CLIPModel(
        CLIPConfig(
            text_config={**tower, **special, "vocab_size": len(tokenizer), "max_position_embeddings": 77},
            vision_config={**tower, "image_size": SIDE, "patch_size": 8},
            projection_dim=128,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    CLIPImageProcessorPil(**sizes).save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def config(root: Path, out: str, steps: int, **train: Any) -> RunConfig:
    settings = {
        "steps": steps,
        "batch_size": BATCH,
        "save_every": 10_000,
        "device": "cpu",
        "precision": "fp32",
        **train,
    }
    return RunConfig.model_validate(
        {
            "out": str(root / out),
            "model": {"kind": "clip", "path": str(root / "model")},
            "dataset": {"kind": "table", "path": str(root / "pictures")},
            "images": {"resolution": SIDE, "buckets": False},
            "method": {"kind": "towers"},
            "objective": {"kind": "contrastive"},
            "optimizer": {"kind": "adamw", "lr": 1e-5},
            "train": settings,
            "cache": {"folder": str(root / "cache")},
        }
    )


class Plain:
    """A loop of transformers alone."""

    def __init__(self, root: Path, *, ready: bool) -> None:
        from PIL import Image
        from transformers import CLIPModel, CLIPTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        self.model = CLIPModel.from_pretrained(root / "model").train()
        self.tokenizer = CLIPTokenizer.from_pretrained(root / "model")
        self.processor = CLIPImageProcessorPil.from_pretrained(root / "model")
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)
        self.rows = []
        for example in config(root, "unused", 1).dataset.read().examples:
            with Image.open(io.BytesIO(example.image.read())) as picture:
                self.rows.append((picture.convert("RGB"), example.captions[0]))
        self.steps = 0
        self.ready = [self.inputs(number) for number in range(COUNT // BATCH)] if ready else []

    def inputs(self, number: int) -> dict[str, Any]:
        start = number * BATCH % COUNT
        pictures, captions = zip(*self.rows[start : start + BATCH], strict=True)
        ids = self.tokenizer(list(captions), padding=True, truncation=True, max_length=77, return_tensors="pt")
        return {**ids, **self.processor(list(pictures), return_tensors="pt")}

    def step(self) -> float:
        """Takes one step; returns its seconds."""
        started = time.perf_counter()
        inputs = self.ready[self.steps % len(self.ready)] if self.ready else self.inputs(self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.model(**inputs, return_loss=True).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        loss.item()
        self.steps += 1
        return time.perf_counter() - started


class TakingTurns:
    """A listener to a run that lets other loops take a step after each of the run's."""

    def __init__(self, others: Mapping[str, Callable[[], float]]) -> None:
        self.others = others
        self.seconds: dict[str, list[float]] = {"limner": [], **{name: [] for name in others}}
        self._resumed = time.perf_counter()

    def step(self, line: Mapping[str, Any], steps: int) -> None:
        self.seconds["limner"].append(time.perf_counter() - self._resumed)
        for name, other in self.others.items():
            self.seconds[name].append(other())
        self._resumed = time.perf_counter()

    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None: ...
    def stage(self, name: str, done: int, total: int) -> None: ...


def measure_steps(root: Path, steps: int) -> dict[str, float]:
    turns = TakingTurns({name: Plain(root, ready=name == "floor").step for name in ("habit", "floor")})
    finetune(config(root, "turns", steps + WARM_UP), progress=turns)
    medians = {name: statistics.median(values[WARM_UP:]) for name, values in turns.seconds.items()}
    return {
        **{f"{name}_images_per_second": BATCH / median for name, median in medians.items()},
        "speed_against_habit": medians["habit"] / medians["limner"],
        "speed_against_floor": medians["floor"] / medians["limner"],
    }


def alone(root: Path, micro: int) -> float:
    """Returns the most memory that this process has had after two steps of a batch of COUNT, in MiB."""
    finetune(config(root, f"micro_{micro}", 2, batch_size=COUNT, micro_batch_size=micro))
    # not getrusage: its maximum begins with that of the process that started this one
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--alone", type=int, help="micro-batch size")
    parser.add_argument("--root", type=Path)
    arguments = parser.parse_args()
    if arguments.alone:
        print(alone(arguments.root, arguments.alone))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        parameters = make_model(root / "model")
        draw_pictures(root / "pictures", count=COUNT, seed=0, captions=2, side=SIDE)
        print(f"CLIP of {parameters / 1e6:.1f} M parameters, {SIDE} px, batch {BATCH}, "
              f"{torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)  # fmt: skip
        found = measure_steps(root, arguments.steps)
        for micro in (COUNT, BATCH):
            command = [sys.executable, __file__, "--alone", str(micro), "--root", str(root)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[f"peak_mib_batch_{COUNT}_micro_{micro}"] = json.loads(printed.splitlines()[-1])
    for name, value in found.items():
        print(f"{name:34s} {value:12.3f}")


if __name__ == "__main__":
    main()
