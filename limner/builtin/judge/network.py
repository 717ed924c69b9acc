"""The judge's network: it finds the centres of things and names what is there (as in arXiv:1904.07850, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from limner.builtin.judge.pictures import ALL_STYLES, SEEN_KINDS
from limner.builtin.world.colours import COLOURS
from limner.builtin.world.scenes import BACKGROUNDS

if TYPE_CHECKING:
    from torch import Tensor, nn

GRID = 16
"""Cells along each side of a picture; the network looks for a centre in each."""

_WIDTHS = (16, 32, 48, 96, 64)
_HEADS = {"heat": 1, "offset": 2, "kind": len(SEEN_KINDS), "colour": len(COLOURS)}


@dataclass(frozen=True)
class Maps:
    """What the network says about each cell of B pictures, and about each whole picture, as logits."""

    heat: Tensor
    """Whether a thing has its centre here, [B, 1, GRID, GRID]."""
    offset: Tensor
    """Where in the cell the centre is, in cells from the cell's middle: x and y, [B, 2, GRID, GRID]."""
    kind: Tensor
    """[B, kinds, GRID, GRID]."""
    colour: Tensor
    """[B, colours, GRID, GRID]."""
    background: Tensor
    """[B, backgrounds]."""
    style: Tensor
    """[B, styles]."""


def judge_network() -> nn.ModuleDict:
    """Returns the network with fresh weights; :func:`look` applies it."""
    from torch import nn

    stem, fine, middle, coarse, joint = _WIDTHS
    return nn.ModuleDict(
        {
            "stem": _convolution(3, stem, stride=2),
            "texture": _convolution(stem, stem),
            "fine": _convolution(stem, fine, stride=2),
            "middle": nn.Sequential(_convolution(fine, middle, stride=2), _convolution(middle, middle)),
            "coarse": nn.Sequential(
                _convolution(middle, coarse, stride=2), _convolution(coarse, coarse), _convolution(coarse, coarse)
            ),
            "from_middle": nn.Conv2d(middle, joint, 1),
            "from_coarse": nn.Conv2d(coarse, joint, 1),
            "joint": _convolution(joint, joint),
            "cells": nn.Conv2d(joint, sum(_HEADS.values()), 1),
            "background": nn.Linear(2 * coarse, len(BACKGROUNDS)),
            "style": nn.Linear(2 * (coarse + fine + stem), len(ALL_STYLES)),
        }
    )


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    from torch import nn

    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def look(network: nn.ModuleDict, pixels: Tensor) -> Maps:
    """Returns what the network sees in ``pixels``, [B, 3, 128, 128] in [-1, 1]."""
    import torch
    from torch.nn import functional

    stem = network["stem"](pixels)
    fine = network["fine"](stem)
    middle = network["middle"](fine)
    coarse = network["coarse"](middle)
    whole = _pooled(coarse)
    enlarged = functional.interpolate(network["from_coarse"](coarse), scale_factor=2.0, mode="nearest")
    joint = functional.relu(network["from_middle"](middle) + enlarged)
    cells = network["cells"](network["joint"](joint))
    heat, offset, kind, colour = cells.split(list(_HEADS.values()), dim=1)
    style = network["style"](torch.cat([whole, _pooled(fine), _pooled(network["texture"](stem))], dim=1))
    return Maps(heat, offset, kind, colour, network["background"](whole), style)


def look_twice(network: nn.ModuleDict, pixels: Tensor) -> Maps:
    """Returns the mean of what the network sees in pictures and in their mirror images: fewer slips, twice the work."""
    import torch

    straight, mirrored = look(network, pixels), look(network, pixels.flip(3))
    offset = mirrored.offset.flip(3) * torch.tensor([-1.0, 1.0])[:, None, None]
    return Maps(
        (straight.heat + mirrored.heat.flip(3)) / 2,
        (straight.offset + offset) / 2,
        (straight.kind + mirrored.kind.flip(3)) / 2,
        (straight.colour + mirrored.colour.flip(3)) / 2,
        (straight.background + mirrored.background) / 2,
        (straight.style + mirrored.style) / 2,
    )


def _pooled(features: Tensor) -> Tensor:
    """Returns mean and spread of each channel over the picture, [B, 2 C]."""
    import torch

    mean = features.mean(dim=(2, 3))
    return torch.cat([mean, (features.var(dim=(2, 3)) + 1e-4).sqrt()], dim=1)
