"""The steps that make the built-in model, beside its trainings: ``python -m limner.builtin_make COMMAND``.

``pictures`` draws what it learns from, ``new`` writes it with random weights, ``rescale`` follows the training of the
autoencoder, ``limner new-clip`` that of the denoiser, and ``pack`` writes what ships with the package. The trainings
between them are recipes/builtin/*.yaml; ``make builtin`` does it all.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.builtin.pictures import draw_pictures
from limner.builtin.untrained import new_builtin
from limner.builtin.world.split import Split
from limner.core.errors import UserError
from limner.core.rng import tensor_stream
from limner.core.rundir import write_json
from limner.data.bad_image import BadImage
from limner.data.buckets import ImageConfig, place
from limner.data.image import decode, to_pixels
from limner.data.table import Table
from limner.export.portable import make_portable
from limner.export.result import RECORD, staged
from limner.models.probe import difference, probe
from limner.models.safety import read_config
from limner.models.sd1 import SD1, SD1Model
from limner.models.weights import quiet

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPModel

LARGEST_PACK = 30_000_000
"""Bytes that the files of the packed model may have together."""
AT_ONCE = 16
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_OF_THE_FILE = ("architectures", "dtype", "torch_dtype", "transformers_version", "projection_dim", "_name_or_path")
"""Settings of a text encoder that decide nothing of the states that it computes."""


# ----------------------------------------------------------------------------------------------------- the commands
def pictures(out: Path, *, count: int, seed: int, captions: int, split: Split, distinct: bool, processes: int) -> None:
    """Draws pictures with a table of their captions; a call that was stopped can be repeated.

    Prints how far it is to stderr.
    """
    draw_pictures(
        out,
        count=count,
        seed=seed,
        captions=captions,
        split=split,
        distinct=distinct,
        processes=processes,
        on_progress=lambda done, total: _tell("pictures", done, total),
    )


def new(out: Path) -> None:
    """Writes the built-in model as it is before its training as a diffusers folder, which must not be there yet."""
    with staged(out) as part, quiet():
        new_builtin().save_pretrained(part, safe_serialization=True)


def rescale(model: Path, pictures: Path, out: Path, *, count: int) -> float:
    """Copies a pipeline folder, its latents scaled to unit variance; returns and prints the new ``scaling_factor``.

    It is 1 / std of all numbers in the latents of the first ``count`` pictures that the table in ``pictures`` names,
    sampled from the posterior (arXiv:2112.10752, app. G). Weights are copied byte for byte.
    """
    with staged(out) as part:
        latents = _latents(_load(model), pictures, count)
        std = float(latents.double().std(correction=0))
        if not (math.isfinite(std) and std > 0):
            raise UserError(
                f"gives latents whose standard deviation is {std}.", where=str(model), fix="Train its autoencoder anew."
            )
        shutil.copytree(model, part, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RECORD))
        settings = part / "vae" / "config.json"
        write_json(settings, {**read_config(settings), "scaling_factor": 1 / std})
    print(f"scaling_factor {1 / std:.5f}, from {count} pictures; the latents, scaled by it:")
    scaled = latents.double().transpose(0, 1).flatten(1) / std
    for channel, numbers in enumerate(scaled):
        print(f"  channel {channel}: mean {float(numbers.mean()):+.3f}, std {float(numbers.std(correction=0)):.3f}")
    return 1 / std


def pack(model: Path, out: Path, *, clip: Path | None = None) -> None:
    """Writes a pipeline folder with float16 weights for older releases too, of at most 30 MB, and reads it back.

    ``clip`` is a transformers CLIPModel whose text half is the pipeline's text encoder, bit for bit; it is written to
    ``out``/clip. It is whole there, its text half too: a weight file cannot name another folder's in a way that every
    reader follows. Raises UserError, and leaves nothing, for weights that float16 cannot hold, another text encoder,
    or too many bytes. Prints how large it became and what the rounding changes.
    """
    with staged(out) as part:
        loaded = _load(model)
        exact = probe(loaded)
        text_weights = {name: value.clone() for name, value in loaded.text_encoder.state_dict().items()}
        _write_pipeline(loaded, part, where=model)
        if clip is not None:
            _write_clip(_load_clip(clip, loaded.text_encoder.config.to_dict(), text_weights), clip, part)
        size = _refuse_too_large(part, out)
        again = _load(part)
        _refuse_other_weights(again, loaded, out)
        change = difference(probe(again), exact).relative
    print(f"{out}: {size / 1e6:.1f} MB; float16 changes the prediction by {change:.1e} of its largest value")


# ----------------------------------------------------------------------------------------------------------- rescale
def _latents(model: SD1Model, pictures: Path, count: int) -> Tensor:
    """Returns latents without any scaling, [count, C, h, w] float32, of the first pictures that the table names."""
    import torch

    examples = Table(path=pictures).read().examples[:count]
    if len(examples) < count:
        raise UserError(
            f"has {len(examples)} pictures, not {count}.", where=str(pictures), fix=f"Use --count {len(examples)}."
        )
    images, bucket = ImageConfig(), (model.default_size, model.default_size)
    latents = []
    for start in range(0, count, AT_ONCE):
        pixels = []
        for example in examples[start : start + AT_ONCE]:
            try:
                picture = decode(
                    example.image.read(), background=images.background_rgb, max_pixels=images.max_pixels
                ).image
            except BadImage as error:
                raise UserError(f"{error}.", where=example.id, fix="Draw it again.") from None
            placement = place(picture.size, bucket, crop="center", flip=False, rng=random.Random(0))
            pixels.append(to_pixels(picture, placement))
        moments = model.encode_images(torch.stack(pixels))
        shape = (moments.shape[1] // 2, *moments.shape[2:])
        positions = range(start, start + len(pixels))
        eps = torch.stack([torch.randn(shape, generator=tensor_stream(0, at, "latent")) for at in positions])
        latents.append(model.sample_latents(moments, eps) / model.vae.config.scaling_factor)
        _tell("latents", start + len(pixels), count)
    return torch.cat(latents)


# -------------------------------------------------------------------------------------------------------------- pack
def _write_pipeline(model: SD1Model, folder: Path, *, where: Path) -> None:
    """Puts the model's networks into float16 and saves them; its tokenizer is copied byte for byte."""
    for name, network in model.networks.items():
        network.half()
        _refuse_overflow({f"{name}.{key}": value for key, value in network.state_dict().items()}, where)
    with quiet():
        model.pipeline().save_pretrained(folder, safe_serialization=True)
    make_portable(folder, {"tokenizer": model.folder / "tokenizer"}, model.folder / "model_index.json")


def _load_clip(folder: Path, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> CLIPModel:
    """Returns the CLIP model of a folder in float32; raises unless its text half has these settings and weights."""
    import torch
    from transformers import CLIPModel

    if not (folder / "model.safetensors").is_file() or not (folder / "config.json").is_file():
        what = "has no config.json with a model.safetensors."
        raise UserError(what, where=str(folder), fix="Name the folder of a transformers CLIPModel.")
    read_config(folder / "config.json")
    with quiet():
        clip, found = CLIPModel.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    gaps = [*found["missing_keys"], *found["unexpected_keys"], *(str(name) for name, *_ in found["mismatched_keys"])]
    if gaps:
        what = f"lacks, or has too many of, {len(gaps)} tensors of a CLIPModel, such as {min(gaps)!r}."
        raise UserError(what, where=str(folder), fix="Name the folder of a transformers CLIPModel.")
    different = _differences(clip.text_model.state_dict(), weights)
    said = clip.config.text_config.to_dict()
    names = (said.keys() | settings.keys()) - set(_OF_THE_FILE)
    different += sorted(name for name in names if said.get(name) != settings.get(name))
    if different:
        raise UserError(
            f"has another text encoder than the pipeline; it differs in {different[0]!r}.",
            where=str(folder),
            fix="Pack the pipeline that was trained with this CLIP model's text encoder, kept as it was.",
        )
    return clip


def _write_clip(clip: CLIPModel, origin: Path, pipeline: Path) -> None:
    """Saves a CLIP model in float16 into ``pipeline``/clip, with the tokenizer and the settings of its pictures."""
    folder = pipeline / "clip"
    clip.half()
    for config in (clip.config, clip.config.text_config, clip.config.vision_config):
        config.name_or_path = ""  # the folder that it was loaded from, of no use to anyone else
    _refuse_overflow(clip.state_dict(), origin)
    with quiet():
        clip.save_pretrained(folder, safe_serialization=True)
    for path in sorted((pipeline / "tokenizer").iterdir()):
        shutil.copyfile(path, folder / path.name)
    for name in _PROCESSOR_FILES:
        if (origin / name).is_file():
            shutil.copyfile(origin / name, folder / name)


def _refuse_overflow(weights: Mapping[str, Tensor], where: Path) -> None:
    bad = [name for name, value in weights.items() if not bool(value.isfinite().all())]
    if bad:
        what = f"has {len(bad)} tensors with numbers that float16 cannot hold, such as {bad[0]!r}."
        raise UserError(what, where=str(where), fix="Train it again with a lower optimizer.lr.")


def _refuse_too_large(folder: Path, out: Path) -> int:
    """Returns the bytes of all files in a folder."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = sum(sizes.values())
    if total > LARGEST_PACK:
        largest = max(sizes, key=lambda name: sizes[name])
        raise UserError(
            f"would have {total / 1e6:.1f} MB, and {LARGEST_PACK / 1e6:.0f} are allowed; {largest} has "
            f"{sizes[largest] / 1e6:.1f}. Nothing was kept.",
            where=str(out),
            fix="Train a smaller network.",
        )
    return total


def _refuse_other_weights(again: SD1Model, packed: SD1Model, out: Path) -> None:
    for name, network in packed.networks.items():
        rounded = {key: value.float() for key, value in network.state_dict().items()}
        different = _differences(again.networks[name].state_dict(), rounded)
        if different:
            raise UserError(
                f"reads back with other numbers in {name}: {different[0]!r}. Nothing was kept.",
                where=str(out),
                fix="This is a defect of Limner or of these releases of diffusers and transformers: please report it.",
            )


def _differences(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> list[str]:
    """Returns the names of the tensors that are not equal bit for bit, or only in one of the two."""
    import torch

    shared = weights.keys() & others.keys()
    return sorted(
        {name for name in shared if not torch.equal(weights[name], others[name])} | (weights.keys() ^ others.keys())
    )


# ------------------------------------------------------------------------------------------------------ command line
def _load(folder: Path) -> SD1Model:
    if not folder.is_dir():
        raise UserError("is no folder.", where=str(folder), fix="Name a pipeline in diffusers' layout.")
    return SD1(path=str(folder)).load()


def _tell(stage: str, done: int, total: int) -> None:
    print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)


def main(words: Sequence[str] | None = None) -> None:
    """Runs one command."""
    parser = argparse.ArgumentParser(
        prog="python -m limner.builtin_make",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    drawn = commands.add_parser("pictures", help="draw pictures and write a table of their captions")
    drawn.set_defaults(command=pictures)
    drawn.add_argument("out", type=Path, metavar="OUT", help="folder of the pictures and the table")
    drawn.add_argument("--count", type=_positive, default=40_000, help="pictures (default: %(default)s)")
    drawn.add_argument("--seed", type=int, default=1, help="of scenes and captions (default: %(default)s)")
    drawn.add_argument("--captions", type=_positive, default=6, help="captions of each (default: %(default)s)")
    drawn.add_argument(
        "--split", choices=("train", "test"), default="train", help="test: of combinations that are never trained on"
    )
    drawn.add_argument("--distinct", action="store_true", help="no two that a caption may not tell apart")
    drawn.add_argument("--processes", type=_positive, default=os.cpu_count() or 1, help="default: %(default)s")

    made = commands.add_parser("new", help="write the model with random weights")
    made.set_defaults(command=new)
    made.add_argument("out", type=Path, metavar="OUT", help="a folder that is empty or not there")

    scaled = commands.add_parser("rescale", help="copy a pipeline, its latents scaled to unit variance")
    scaled.set_defaults(command=rescale)
    scaled.add_argument("model", type=Path, metavar="MODEL", help="a pipeline in diffusers' layout")
    scaled.add_argument("pictures", type=Path, metavar="PICTURES", help="a folder of pictures with a table")
    scaled.add_argument("out", type=Path, metavar="OUT", help="a folder that is empty or not there")
    scaled.add_argument("--count", type=_positive, default=1000, help="pictures to look at (default: %(default)s)")

    packed = commands.add_parser("pack", help="write the float16 folder that ships with the package")
    packed.set_defaults(command=pack)
    packed.add_argument("model", type=Path, metavar="MODEL", help="a pipeline in diffusers' layout")
    packed.add_argument("out", type=Path, metavar="OUT", help="a folder that is empty or not there")
    packed.add_argument("--clip", type=Path, metavar="FOLDER", help="a CLIPModel with the same text encoder")

    chosen = vars(parser.parse_args(words))
    command = chosen.pop("command")
    try:
        command(**chosen)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


if __name__ == "__main__":
    main()
