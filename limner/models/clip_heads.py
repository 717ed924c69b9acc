"""Projection heads in the place of a CLIP model's own projections: how they compute, and how a folder holds them.

A folder with heads has no config.json at its top, so that no other program takes it for a plain CLIPModel::

    clip_heads.json     the shape of each head
    heads.safetensors   its weights, ``visual_projection.out.weight`` and so on
    clip/               a CLIPModel: the towers, and the projections that the heads stand on or in place of
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from limner.core.config import Config
from limner.core.errors import UserError
from limner.core.rng import example_seed
from limner.core.rundir import write_json
from limner.models.safety import check_tree, read_json, read_safetensors_header

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import CLIPModel

SHAPES, WEIGHTS, TOWERS = "clip_heads.json", "heads.safetensors", "clip"
PROJECTIONS = ("visual_projection", "text_projection")
FORMAT = 1
HeadKind = Literal["linear", "mlp", "residual"]


class HeadShape(Config):
    """What a head is. It reads the tower's pooled output, or, if residual, the projection of it."""

    head: HeadKind
    dim: int = Field(ge=1, le=65_536)
    """Numbers of an embedding."""
    hidden: int | None = Field(default=None, ge=1, le=65_536)
    """Width in the middle of mlp and residual."""


def make_head(shape: HeadShape, projection: nn.Linear) -> nn.Module:
    """Returns a head, float32, with random weights; a residual one gives exactly what ``projection`` gives.

    The projection's weight stays in it as the buffer ``weight``, which never trains.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    width = projection.out_features if shape.head == "residual" else projection.in_features
    place: dict[str, Any] = {"device": projection.weight.device, "dtype": torch.float32}

    class Head(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.shape = shape
            self.register_buffer("weight", projection.weight.detach().clone())
            if shape.head == "linear":
                self.out = nn.Linear(width, shape.dim, bias=False, **place)
                nn.init.normal_(self.out.weight, std=width**-0.5)
                return
            self.inner = nn.Linear(width, shape.hidden or width, **place)
            self.out = nn.Linear(shape.hidden or width, shape.dim, **place)
            if shape.head == "residual":
                nn.init.zeros_(self.out.weight)
                nn.init.zeros_(self.out.bias)

        def forward(self, pooled: Tensor) -> Tensor:
            """Returns [B, dim] of pooled outputs [B, width]."""
            if shape.head == "linear":
                return self.out(pooled)
            z = functional.linear(pooled, self.weight) if shape.head == "residual" else pooled
            change = self.out(functional.gelu(self.inner(z)))
            return z + change if shape.head == "residual" else change

    return Head()


def shape_of(projection: Any) -> HeadShape | None:
    """Returns the shape of a head; None for a plain projection."""
    from torch import nn

    return None if isinstance(projection, nn.Linear) else projection.shape


def put_head(network: CLIPModel, part: str, shape: HeadShape, *, seed: int) -> None:
    """Puts a new head in the place of a projection; ``seed`` decides its first values."""
    import torch

    projection = network.get_submodule(part)
    if shape_of(projection) is not None:
        raise UserError(
            f"has a head as its {part} already.",
            where="model.path",
            fix="Train that one: method {kind: towers, image: none, text: none}; or start from a plain CLIP model.",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(example_seed(seed, 0, f"head {part}"))
        setattr(network, part, make_head(shape, projection))


def plain_projections(network: CLIPModel) -> bool:
    """Makes linear heads the model's own projections where both sides allow it; returns whether no head is left."""
    import torch
    from torch import nn

    projections = {part: network.get_submodule(part) for part in PROJECTIONS}
    shapes = [shape_of(projection) for projection in projections.values()]
    if any(shape is not None and shape.head != "linear" for shape in shapes):
        return False
    for part, projection in projections.items():
        if shape_of(projection) is None:
            continue
        plain: Any = nn.Linear(projection.out.in_features, projection.out.out_features, bias=False)
        with torch.no_grad():
            plain.weight.copy_(projection.out.weight)
        setattr(network, part, plain.requires_grad_(False).eval())
        for config in (network.config, network.config.text_config, network.config.vision_config):
            config.projection_dim = projection.out.out_features
    return True


def save_network(network: CLIPModel, folder: Path) -> Path:
    """Writes the weights into ``folder`` and returns where the tokenizer belongs: there, or beside the towers.

    A model whose heads are linear is a plain CLIPModel of transformers, with another ``projection_dim``.
    """
    import torch
    from torch import nn

    if plain_projections(network):
        network.save_pretrained(folder)
        return folder
    heads: dict[str, Any] = {part: network.get_submodule(part) for part in PROJECTIONS}
    shapes = {part: shape_of(head) for part, head in heads.items()}
    tensors: dict[str, Tensor] = {}
    for part, head in heads.items():
        if shapes[part] is None:
            continue
        tensors |= {f"{part}.{name}": value.detach().cpu() for name, value in head.named_parameters()}
        plain: Any = nn.Linear(head.weight.shape[1], head.weight.shape[0], bias=False, dtype=head.weight.dtype)
        with torch.no_grad():
            plain.weight.copy_(head.weight)
        setattr(network, part, plain)
    try:
        network.save_pretrained(folder / TOWERS)
    finally:
        for part, head in heads.items():
            setattr(network, part, head)
    _save_tensors(tensors, folder / WEIGHTS)
    told = {part: None if shape is None else shape.model_dump() for part, shape in shapes.items()}
    write_json(folder / SHAPES, {"format": FORMAT, "heads": told})
    return folder / TOWERS


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata={"format": "pt"})


def towers_folder(folder: Path) -> Path:
    """Returns where the CLIPModel of a folder lies: in it, or below the heads that belong to it."""
    return folder / TOWERS if (folder / SHAPES).is_file() else folder


def read_heads(network: CLIPModel, folder: Path) -> None:
    """Puts the heads of a folder on its towers, if it has any; raises UserError where they do not fit."""
    import torch
    from safetensors.torch import load_file

    if not (folder / SHAPES).is_file():
        return
    check_tree(folder)
    shapes = _read_shapes(folder / SHAPES)
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"has no {WEIGHTS}.", where=str(folder), fix="Export the model again, and copy the whole folder."
        )
    read_safetensors_header(folder / WEIGHTS)
    tensors = load_file(folder / WEIGHTS)
    places: dict[str, torch.Tensor] = {}
    for part, shape in shapes.items():
        put_head(network, part, shape, seed=0)
        head = network.get_submodule(part).requires_grad_(False).eval()
        places |= {f"{part}.{name}": value for name, value in head.named_parameters()}
    wrong = sorted(places.keys() ^ tensors.keys())
    wrong += [name for name in places.keys() & tensors.keys() if places[name].shape != tensors[name].shape]
    if wrong:
        raise UserError(
            f"does not fit {SHAPES}: {wrong[0]!r} is missing, too many, or of another size.",
            where=str(folder / WEIGHTS),
            fix="Export the model again, and copy the whole folder.",
        )
    _refuse_other_dims(network, folder)
    with torch.no_grad():
        for name, place in places.items():
            place.copy_(tensors[name])


def _refuse_other_dims(network: CLIPModel, folder: Path) -> None:
    """Raises UserError where the sides do not give embeddings of one size, or a residual head not its projection's."""
    dims = set()
    for part in PROJECTIONS:
        own = int(network.state_dict()[f"{part}.weight"].shape[0])
        shape = shape_of(network.get_submodule(part))
        dims |= {own} if shape is None else {shape.dim, own} if shape.head == "residual" else {shape.dim}
    if len(dims) > 1:
        raise UserError(
            f"its embeddings have {' and '.join(map(str, sorted(dims)))} numbers, which cannot be compared.",
            where=str(folder / SHAPES),
            fix="Export the model again.",
        )


def _read_shapes(path: Path) -> dict[str, HeadShape]:
    values = read_json(path)
    heads = values.get("heads")
    if values.get("format") != FORMAT or not isinstance(heads, dict) or set(heads) != set(PROJECTIONS):
        raise UserError(
            f"is not of format {FORMAT}, the one that this version reads.", where=str(path), fix="Export it again."
        )
    try:
        return {part: HeadShape.model_validate(shape) for part, shape in heads.items() if shape is not None}
    except ValidationError as error:
        raise UserError(
            f"describes no head: {error.errors()[0]['msg']}.", where=str(path), fix="Export it again."
        ) from None
