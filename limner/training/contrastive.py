"""The contrastive losses: each picture finds its caption among those of the batch, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from limner.core.config import Config
from limner.data.batch import Batch
from limner.methods.base_weights import AsBase
from limner.models.evaluating import evaluating
from limner.models.protocol import DualEncoder
from limner.training.anchor import Anchor
from limner.training.backward import Backward, PerExample, grad_cache
from limner.training.contrastive_losses import balanced_bias, info_nce, info_nce_floor, positive_pairs, siglip
from limner.training.precision import Precision

if TYPE_CHECKING:
    from torch import Tensor, nn

BIAS = "logit_bias"


class Contrastive(Config):
    """Pictures and captions find each other: the loss of CLIP (arXiv:2103.00020, fig. 3), or of SigLIP (2303.15343).

    The whole batch is one, whatever train.micro_batch_size: its other captions are what each is told from.
    """

    kind: Literal["contrastive"] = "contrastive"
    loss: Literal["info_nce", "siglip"] = "info_nce"
    """info_nce: cross-entropy, each picture chooses among all captions of the batch, and back, as CLIP was made.
    siglip: each pair of picture and caption is a yes or no of its own, with a bias that trains; exported files do not
    hold that bias, since CLIPModel has no place for it and similarities are ranked the same without."""
    positives: Literal["duplicates", "own"] = "duplicates"
    """Which captions of a batch belong to a picture. duplicates: its own, the same caption (by its tokens) beside
    another picture, other captions of the same picture, and those of the same class where the data has labels. own:
    only its own, as usual elsewhere; the others are then pushed away as if they were wrong."""
    max_logit_scale: float = Field(default=100.0, gt=1)
    """The factor of the similarities is learned, up to this; CLIP's bound is 100. It is put back to this before a step,
    so the next gradient can lower it."""
    logit_bias: float | None = None
    """siglip only: where the bias begins; the paper's -10 is for random weights. Unset: where the model expects as many
    matching pairs in the first batch as there are, which is right for any model."""
    anchor: Anchor | None = None
    """Keep the text encoder readable for a diffusion model while it trains: {weight: 1.0}."""
    reads: ClassVar[Literal["moments", "pixels"]] = "pixels"
    caption_dropout: ClassVar[float] = 0.0

    @model_validator(mode="after")
    def _bias_is_used(self) -> Contrastive:
        if self.logit_bias is not None and self.loss != "siglip":
            raise ValueError(f"logit_bias does nothing with loss {self.loss!r}. Set loss: siglip, or leave it out.")
        return self

    def backward(
        self,
        model: DualEncoder,
        *,
        seed: int,
        precision: Precision,
        scale: Callable[[Tensor], Tensor],
        as_base: AsBase | None = None,
    ) -> Backward:
        """Returns the Backward of this loss; an anchor needs ``as_base``, which makes the model its base.

        Beside the losses it tells ``loss_floor``, the least that the contrastive loss could be for this batch;
        ``duplicates``, how many other captions of the batch belong to a picture, on average; and the factor and bias
        that the step began with.
        """
        if self.loss == "siglip" and BIAS not in model.loss_parameters:
            raise ValueError("siglip trains a bias: call make_parameters first")
        terms: dict[str, PerExample] = {}
        if self.anchor is not None:
            if as_base is None:
                raise ValueError("an anchor compares with the base model: give as_base")
            terms["anchor"] = partial(self.anchor.losses, model, precision=precision, as_base=as_base)

        def backward(micro_batches: Sequence[Batch]) -> dict[str, float]:
            import torch

            self._put_scale_back(model)
            pairs = _belonging(model, micro_batches)
            weights = torch.cat([batch.weights for batch in micro_batches])
            step = grad_cache(
                partial(embed, model, precision=precision),
                partial(self._compare, model, pairs=pairs, weights=weights),
                scale,
                device=precision.device,
                name="contrastive" if terms else "",
                terms=terms,
            )
            return {**step(micro_batches), **self._about(pairs, weights), **self._state(model)}

        return backward

    def losses(self, model: DualEncoder, batch: Batch, *, precision: Precision, at_once: int | None = None) -> Tensor:
        """Returns the weighted loss of each example among the others of the batch, [B] float32.

        ``at_once`` pictures are embedded at a time.
        """
        embeddings = embed(model, batch, precision=precision, at_once=at_once)
        return self._compare(model, embeddings, pairs=_belonging(model, [batch]), weights=batch.weights)

    def make_parameters(
        self, model: DualEncoder, micro_batches: Callable[[], Sequence[Batch]], *, precision: Precision
    ) -> dict[str, nn.Parameter]:
        """Makes what this loss trains beside the networks and returns it by name; for siglip the bias, else nothing.

        ``micro_batches`` gives the first batch, which is looked at only where ``logit_bias`` is unset.
        """
        import torch
        from torch import nn

        if self.loss != "siglip":
            return {}
        value = self.logit_bias
        if value is None:
            first = micro_batches()
            with evaluating(model.networks.values()):
                parts = [embed(model, batch, precision=precision) for batch in first]
                images, prompts = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
                value = balanced_bias(self._factor(model) * images @ prompts.T, self._targets(_belonging(model, first)))
        model.loss_parameters[BIAS] = nn.Parameter(torch.tensor(value, device=model.logit_scale.device))
        return {f"loss.{BIAS}": model.loss_parameters[BIAS]}

    def _compare(self, model: DualEncoder, embeddings: Sequence[Tensor], *, pairs: Tensor, weights: Tensor) -> Tensor:
        """Returns the weighted loss of each example, [B] float32; ``pairs`` [B, B] tells which belong together."""
        images, prompts = embeddings
        logits = self._factor(model) * images.float() @ prompts.float().T
        targets = self._targets(pairs).to(logits.device)
        if self.loss == "siglip":
            losses = siglip(logits + model.loss_parameters[BIAS], targets)
        else:
            losses = info_nce(logits, targets)
        return losses * weights.to(logits.device)

    def _targets(self, pairs: Tensor) -> Tensor:
        import torch

        return pairs if self.positives == "duplicates" else torch.eye(len(pairs), dtype=torch.bool)

    def _factor(self, model: DualEncoder) -> Tensor:
        return model.logit_scale.clamp(max=math.log(self.max_logit_scale)).exp()

    def _put_scale_back(self, model: DualEncoder) -> None:
        """Puts a trained scale that a step moved beyond the bound back onto it.

        A clamp in the loss alone has no gradient beyond the bound, and OpenAI's models begin a little beyond it.
        """
        import torch

        if model.logit_scale.requires_grad:
            bound = torch.tensor(math.log(self.max_logit_scale), dtype=model.logit_scale.dtype)
            model.logit_scale.data.clamp_(max=float(bound))

    def _about(self, pairs: Tensor, weights: Tensor) -> dict[str, float]:
        told = {"duplicates": float(pairs.sum()) / len(pairs) - 1}
        if self.loss == "info_nce" and self.positives == "duplicates":
            told["loss_floor"] = float((info_nce_floor(pairs) * weights).mean())
        return told

    def _state(self, model: DualEncoder) -> dict[str, float]:
        bias = {name: float(value.detach()) for name, value in model.loss_parameters.items()}
        return {"similarity_factor": float(self._factor(model).detach()), **bias}


def embed(
    model: DualEncoder, batch: Batch, *, precision: Precision, at_once: int | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the embeddings of pictures and captions, both [B, D] float32, ``at_once`` of them at a time.

    Captions that stand at several pictures, as class prompts do, go through the text tower once.
    """
    import torch

    size = at_once or len(batch)
    with precision.autocast():
        images = [model.embed_images(pixels.to(precision.device)) for pixels in batch.images.split(size)]
        if batch.conditioning is not None:  # what the frozen tower made of each is kept
            pooled = batch.conditioning["pooled"].to(precision.device).split(size)
            return torch.cat(images), torch.cat([model.embed_prompts(part) for part in pooled])
        captions = list(dict.fromkeys(batch.captions))
        parts = [model.embed_prompts(captions[start : start + size]) for start in range(0, len(captions), size)]
    places = {caption: place for place, caption in enumerate(captions)}
    return torch.cat(images), torch.cat(parts)[[places[caption] for caption in batch.captions]]


def _belonging(model: DualEncoder, micro_batches: Sequence[Batch]) -> Tensor:
    """Returns which picture and which caption of the whole batch belong together, [B, B] bool."""
    pictures = [key for batch in micro_batches for key in batch.contents or batch.ids]
    captions = model.token_ids([caption for batch in micro_batches for caption in batch.captions])
    groups = [group for batch in micro_batches for group in batch.groups or (None,) * len(batch)]
    return positive_pairs(pictures, captions, groups)
