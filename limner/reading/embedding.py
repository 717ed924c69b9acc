"""Pictures and texts as points in a CLIP model's space; those of pictures are kept in the cache by their content."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.config import validate
from limner.core.errors import UserError
from limner.core.progress import Progress
from limner.core.rundir import RunDir
from limner.data.bad_image import BadImage
from limner.data.buckets import ImageConfig
from limner.data.cache import TensorCache, content_key, shared_folder
from limner.data.example import ImageSource
from limner.data.image import decode
from limner.data.text import first_few

if TYPE_CHECKING:
    from torch import Tensor

    from limner.models.clip import ClipModel

DEFAULT_CLIP = "openai/clip-vit-base-patch32"
PICTURES_AT_ONCE = 32
_EMBEDDING_VERSION = 1
"""Raise it when pictures are decoded or prepared in another way: older entries of the cache are then passed over."""


@dataclass(frozen=True)
class Picture:
    """A picture to embed."""

    id: str
    image: ImageSource


@dataclass(frozen=True)
class Embedded:
    """The pictures that could be read, in the order in which they were given, and those that could not."""

    ids: tuple[str, ...]
    sha256: tuple[str, ...]
    """Of each picture's bytes."""
    vectors: Tensor
    """[N, D], unit norm, float32, on the CPU."""
    unreadable: tuple[tuple[str, str], ...]
    """Ids and reasons."""
    made: int
    """So many were computed now; the others were in the cache."""


def load_clip(name: str, *, revision: str | None, device: str, progress: Progress) -> ClipModel:
    """Returns the CLIP model called ``name``, in float32 on the device; a run's folder stands for what it exported."""
    import torch

    from limner.models.clip import Clip, exported_clip
    from limner.training.precision import choose_device

    if RunDir(Path(name)).status.is_file():
        exported = exported_clip(Path(name))
        if exported is None:
            raise UserError(
                f"{name!r} is a run that has exported no CLIP model.",
                where="--model",
                fix="Let it end (limner train RECIPE --resume), or name another model.",
            )
        name = str(exported)
    with options_named():
        model = validate(Clip, {"path": name, "revision": revision}, where="--model").load()
    for notice in model.notices:
        progress.warn(notice)
    model.to(choose_device(device), torch.float32)
    return model


@contextlib.contextmanager
def options_named() -> Iterator[None]:
    """Makes errors about keys of a recipe speak of what stands for them on the command line."""
    options = {"model.path": "--model", "model.revision": "--revision"}
    try:
        yield
    except UserError as error:
        if error.where == "cache.folder":
            fix = "Make room, or set the environment variable LIMNER_CACHE to another folder."
            raise UserError(error.what, where="cache", fix=fix) from None
        raise UserError(error.what, where=options.get(error.where, error.where), fix=error.fix) from None


def embed_pictures(
    model: ClipModel,
    pictures: Sequence[Picture],
    *,
    cache: Path | None,
    images: ImageConfig,
    progress: Progress,
) -> Embedded:
    """Returns the embeddings of pictures; ``cache`` unset is the folder that all runs share.

    Only ``background`` and ``max_pixels`` of ``images`` are looked at: the model crops in its own way.
    """
    import torch

    kept = TensorCache((cache or shared_folder()) / "tensors")
    read: list[tuple[str, str, Tensor]] = []
    unreadable: list[tuple[str, str]] = []
    for start in range(0, len(pictures), PICTURES_AT_ONCE):
        hashes: list[tuple[str, str]] = []
        new: dict[str, Tensor] = {}
        for picture in pictures[start : start + PICTURES_AT_ONCE]:
            try:
                data = picture.image.read()
                sha256 = hashlib.sha256(data).hexdigest()
                if kept.find(_key(model, sha256, images)) is None and sha256 not in new:
                    decoded = decode(data, background=images.background_rgb, max_pixels=images.max_pixels)
                    new[sha256] = model.prepare(decoded.image)
                hashes.append((picture.id, sha256))
            except (BadImage, OSError) as error:
                unreadable.append((picture.id, why_unreadable(error)))
        with options_named():
            for sha256, vector in _embed(model, new).items():
                kept.get(_key(model, sha256, images), functools.partial(dict, embedding=vector))
        for id, sha256 in hashes:
            entry = kept.find(_key(model, sha256, images))
            assert entry is not None
            read.append((id, sha256, entry["embedding"]))
        progress.stage("pictures", min(start + PICTURES_AT_ONCE, len(pictures)), len(pictures))
    ids, hashes_read, vectors = zip(*read, strict=True) if read else ((), (), ())
    stacked = torch.stack(vectors) if vectors else torch.zeros(0, model.network.config.projection_dim)
    return Embedded(ids, hashes_read, stacked, tuple(unreadable), kept.made)


def warn_of_cuts(model: ClipModel, texts: Sequence[str], what: str, progress: Progress) -> None:
    """Warns of texts of which the model does not read the end; ``what`` is one of them: 'query', 'caption'."""
    counts = model.count_tokens(texts)
    cut = [(text, count) for text, count in zip(texts, counts, strict=True) if count > model.token_limit]
    if len(cut) == 1:
        text, count = cut[0]
        progress.warn(f"the {what} {text!r} has {count} tokens; {model.token_limit} are read")
    elif cut:
        some = first_few([repr(text) for text, _ in cut])
        progress.warn(f"of {len(cut)} {what}s only the first {model.token_limit} tokens are read: {some}")


def why_unreadable(error: BadImage | OSError) -> str:
    """Returns the reason why a picture cannot be used, as a ledger gives it."""
    if isinstance(error, BadImage):
        return str(error)
    return f"cannot be read: {error.strerror or type(error).__name__}"


def _key(model: ClipModel, sha256: str, images: ImageConfig) -> str:
    return content_key(
        kind="embedding of a picture",
        made=_EMBEDDING_VERSION,
        picture=sha256,
        background=images.background,
        model=model.identity(),
        preprocessing=dataclasses.asdict(model.preprocessing),
    )


def _embed(model: ClipModel, prepared: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the embedding of each prepared picture, by the same key."""
    import torch

    from limner.models.evaluating import evaluating

    if not prepared:
        return {}
    pixels = torch.stack(list(prepared.values())).to(model.logit_scale.device)
    with evaluating(list(model.networks.values())):
        vectors = model.embed_images(pixels).cpu()
    return {key: vector.clone() for key, vector in zip(prepared, vectors, strict=True)}
