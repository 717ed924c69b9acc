"""How the judge learns: softened and shifted pictures, a loss for each thing that it is asked, averaged weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from limner.builtin.judge.network import GRID, Maps, judge_network, look
from limner.builtin.judge.pictures import MOST_THINGS, SHARD
from limner.builtin.judge.reading import WORLD, is_kept, scaled
from limner.core.rng import tensor_stream
from limner.core.rundir import write_atomic
from limner.training.muon import make_muon

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from limner.builtin.judge.pictures import Labels, Pixels

SEED = 730_000
BATCH = 64
PEAK_RATE = 4e-3
WEIGHT_DECAY = 0.02
WARMUP = 0.06
"""Share of the steps in which the learning rate rises."""
AVERAGE_DECAY = 0.995
"""How much of the averaged weights stays at each step; fewer in the first steps."""
CHECKPOINT_EVERY = 200


@dataclass(frozen=True)
class Truth:
    """What is true of B pictures. ``kind`` is -1 where there is no thing, ``colour`` where it is not asked for."""

    kind: Tensor
    """[B, MOST_THINGS], as ``colour``, ``x`` and ``y``; the last two in shares of the side."""
    colour: Tensor
    x: Tensor
    y: Tensor
    background: Tensor
    """[B], as ``style``."""
    style: Tensor


def truth(labels: Labels) -> Truth:
    """Returns the labels of pictures, [B, LABELS], as tensors."""
    import torch

    rows = torch.from_numpy(labels)
    things = rows[:, : 4 * MOST_THINGS].reshape(-1, MOST_THINGS, 4)
    return Truth(
        things[..., 0].long(),
        things[..., 1].long(),
        things[..., 2],
        things[..., 3],
        rows[:, -2].long(),
        rows[:, -1].long(),
    )


def changed(pixels: Tensor, true: Truth, rng: torch.Generator) -> tuple[Tensor, Truth]:
    """Returns pictures mirrored, moved, softened, tinted and noisy, each by chance, and what is true of them now.

    ``pixels`` as :func:`scaled` gives them.
    """
    import torch
    from torch.nn import functional

    count = len(pixels)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=rng) * (high - low) + low

    def chosen(share: float) -> Tensor:
        return (torch.rand(count, generator=rng) < share).float()

    moves = chosen(0.5)
    zoom = 1 + moves * uniform(-0.06, 0.06)
    dx, dy = moves * uniform(-0.05, 0.05), moves * uniform(-0.05, 0.05)
    mirror = 1 - 2 * chosen(0.5)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = mirror * zoom, 2 * dx
    theta[:, 1, 1], theta[:, 1, 2] = zoom, 2 * dy
    grid = functional.affine_grid(theta, list(pixels.shape), align_corners=False)
    pixels = functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    x = ((true.x - 0.5 - dx[:, None]) / (mirror * zoom)[:, None] + 0.5).clamp(0, 0.999)
    y = ((true.y - 0.5 - dy[:, None]) / zoom[:, None] + 0.5).clamp(0, 0.999)

    softness = (chosen(0.5) * uniform(0, 1)).reshape(-1, 1, 1, 1)
    pixels = pixels + softness * (softened(pixels, 1.0) - pixels)
    gain, lift = 1 + 0.08 * uniform(-1, 1, 3, 1, 1), 0.06 * uniform(-1, 1, 3, 1, 1)
    grain = (chosen(0.5) * uniform(0, 0.06)).reshape(-1, 1, 1, 1)
    pixels = pixels * gain + lift + grain * torch.randn(pixels.shape, generator=rng)
    return pixels.clamp(-1, 1), Truth(true.kind, true.colour, x, y, true.background, true.style)


def softened(pixels: Tensor, radius: float) -> Tensor:
    """Returns pictures blurred by a Gaussian of ``radius`` pixels, as reconstructions are."""
    import torch

    reach = math.ceil(2 * radius)
    weights = [math.exp(-0.5 * (step / radius) ** 2) for step in range(-reach, reach + 1)]
    for axis in (2, 3):
        side = pixels.shape[axis]
        padded = pixels.index_select(axis, torch.arange(-reach, side + reach).clamp(0, side - 1))
        pixels = torch.zeros_like(pixels)
        for start, weight in enumerate(weights):
            pixels.add_(padded.narrow(axis, start, side), alpha=weight / sum(weights))
    return pixels


def losses(maps: Maps, true: Truth) -> dict[str, Tensor]:
    """Returns a loss for each thing that the judge is asked, each a mean."""
    from torch.nn import functional

    there = true.kind >= 0
    x, y = true.x * GRID, true.y * GRID
    found = {
        "heat": heat_loss(maps.heat[:, 0], x, y, there),
        "background": functional.cross_entropy(maps.background, true.background),
        "style": functional.cross_entropy(maps.style, true.style),
    }
    picture, thing = there.nonzero(as_tuple=True)
    x, y, kind, colour = x[picture, thing], y[picture, thing], true.kind[picture, thing], true.colour[picture, thing]
    row, column = y.long(), x.long()

    def at_centres(values: Tensor) -> Tensor:
        return values[picture, :, row, column]

    offset = at_centres(maps.offset)
    found["offset"] = ((offset[:, 0] - (x - column - 0.5)) ** 2 + (offset[:, 1] - (y - row - 0.5)) ** 2).mean()
    found["kind"] = functional.cross_entropy(at_centres(maps.kind), kind)
    found["colour"] = functional.cross_entropy(at_centres(maps.colour), colour, ignore_index=-1)
    return found


def heat_loss(heat: Tensor, x: Tensor, y: Tensor, there: Tensor) -> Tensor:
    """Returns the focal loss of centres, less strict near them (arXiv:1808.01244, equation 1), per thing.

    ``heat`` [B, GRID, GRID] as logits; ``x`` and ``y`` [B, MOST_THINGS] in cells.
    """
    import torch
    from torch.nn import functional

    middles = torch.arange(GRID) + 0.5
    squared = (middles - x[..., None])[:, :, None, :] ** 2 + (middles - y[..., None])[:, :, :, None] ** 2
    near = (torch.exp(-squared / (2 * 0.7**2)) * there[..., None, None]).amax(dim=1)
    centre = torch.zeros_like(heat, dtype=torch.bool)
    picture, thing = there.nonzero(as_tuple=True)
    centre[picture, y[picture, thing].long(), x[picture, thing].long()] = True
    sure = heat.sigmoid()
    hit = (1 - sure) ** 2 * functional.logsigmoid(heat) * centre
    clear = (1 - near) ** 4 * sure**2 * functional.logsigmoid(-heat) * ~centre
    return -(hit + clear).sum() / there.sum()


def rate(step: int, steps: int) -> float:
    """Returns the learning rate of a step: it rises in a line and falls as a cosine to zero."""
    warmup = WARMUP * steps
    if step < warmup:
        return PEAK_RATE * (step + 1) / warmup
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


@dataclass
class Pupil:
    """All that changes while the judge learns."""

    network: nn.ModuleDict
    average: nn.ModuleDict
    """A slow copy of the network: what is examined and shipped."""
    optimizer: torch.optim.Optimizer
    step: int = 0


def pupil() -> Pupil:
    """Returns a network that has learned nothing yet, always the same one."""
    import copy

    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = judge_network().to(memory_format=torch.channels_last)
    groups = [{"params": list(network.parameters()), "lr": PEAK_RATE}]
    optimizer = make_muon(groups, momentum=0.95, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY)
    return Pupil(network, copy.deepcopy(network), optimizer)


def learn(learner: Pupil, pictures: list[Pixels], labels: Labels, steps: int) -> Iterator[dict[str, float]]:
    """Takes the steps that are left; yields the losses after each.

    Which pictures a step sees, and how they are changed, is settled by the step's number alone.
    """
    import numpy as np
    import torch

    learner.network.train()
    while learner.step < steps:
        step = learner.step
        rng = tensor_stream(SEED, step, "judge")
        chosen = positions(step, len(labels))
        pixels = torch.from_numpy(np.stack([pictures[index // SHARD][index % SHARD] for index in chosen]))
        seen, true = changed(scaled(pixels), truth(labels[chosen]), rng)
        for group in learner.optimizer.param_groups:
            group["lr"] = rate(step, steps)
        found = losses(look(learner.network, seen.contiguous(memory_format=torch.channels_last)), true)
        learner.optimizer.zero_grad()
        torch.stack(list(found.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(learner.network.parameters(), 5.0, error_if_nonfinite=True)
        learner.optimizer.step()
        _follow(learner)
        learner.step += 1
        yield {name: float(value.detach()) for name, value in found.items()}


def positions(step: int, count: int) -> list[int]:
    """Returns the pictures of a step: all ``count`` in one order after the other, each pass shuffled anew."""
    import torch

    start = step * BATCH
    taken: list[int] = []
    while len(taken) < BATCH:
        turn, place = divmod(start + len(taken), count)
        order = torch.randperm(count, generator=tensor_stream(SEED, turn, "judge's order"))
        taken += order[place : place + BATCH - len(taken)].tolist()
    return taken


def _follow(learner: Pupil) -> None:
    """Moves the averaged weights towards the network's."""
    import torch

    decay = min(AVERAGE_DECAY, (1 + learner.step) / (10 + learner.step))
    with torch.no_grad():
        new = learner.network.state_dict()
        for name, value in learner.average.state_dict().items():
            if is_kept(name):
                value.lerp_(new[name], 1 - decay)


def save_checkpoint(learner: Pupil, path: Path) -> None:
    """Writes everything that :func:`load_checkpoint` needs to go on."""
    from safetensors.torch import save

    tensors = {f"network.{name}": value for name, value in learner.network.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in learner.average.state_dict().items()}
    for index, state in learner.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    write_atomic(path, save(contiguous, metadata={"step": str(learner.step)}))


def load_checkpoint(learner: Pupil, path: Path) -> None:
    """Puts the learner into the state that was saved."""
    from safetensors import safe_open

    saved: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
    with safe_open(path, framework="pt") as file:
        learner.step = int(file.metadata()["step"])
        for name in file.keys():  # noqa: SIM118
            owner, _, key = name.partition(".")
            saved[owner][key] = file.get_tensor(name)
    learner.network.load_state_dict(saved["network"])
    learner.average.load_state_dict(saved["average"])
    state = learner.optimizer.state_dict()
    for key, value in saved["optimizer"].items():
        index, _, name = key.partition(".")
        state["state"].setdefault(int(index), {})[name] = value
    learner.optimizer.load_state_dict(state)


def save_weights(network: nn.ModuleDict, path: Path) -> None:
    """Writes the judge that ships: float16 safetensors with the world's words in the metadata."""
    import torch
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: value.to(torch.float16).contiguous() for name, value in network.state_dict().items() if is_kept(name)
    }
    write_atomic(path, save(tensors, metadata=WORLD))


def describe(learner: Pupil, found: dict[str, float]) -> str:
    """Returns a line of the log."""
    return json.dumps({"step": learner.step} | {name: round(value, 4) for name, value in found.items()})
