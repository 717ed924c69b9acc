"""CLIP once more, from the published architecture (arXiv:2103.00020, sections 2.4 and 2.5), to judge ours by.

Its parts have the names of OpenAI's and open_clip's files, so that its state dict is such a file. It is slow and plain.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """Attention, then a perceptron, each after a norm and added to what came in."""

    def __init__(self, width: int, heads: int, hidden: int, quick: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        parts = [("c_fc", nn.Linear(width, hidden)), ("gelu", QuickGELU() if quick else nn.GELU())]
        self.mlp = nn.Sequential(OrderedDict([*parts, ("c_proj", nn.Linear(hidden, width))]))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        grown: Tensor = x + self.mlp(self.ln_2(x))
        return grown


class Blocks(nn.Module):
    def __init__(self, layers: int, width: int, heads: int, hidden: int, quick: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([Block(width, heads, hidden, quick) for _ in range(layers)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Vision(nn.Module):
    def __init__(self, side: int, patch: int, width: int, heads: int, hidden: int, dim: int, quick: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((side // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Blocks(2, width, heads, hidden, quick)
        self.proj = nn.Parameter(torch.randn(width, dim) / width)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1)
        x = self.ln_pre(torch.cat([first, patches], 1) + self.positional_embedding)
        nothing = torch.zeros(x.shape[1], x.shape[1], dtype=x.dtype)
        out: Tensor = self.ln_post(self.transformer(x, nothing)[:, 0]) @ self.proj
        return out


class ReferenceClip(nn.Module):
    """Both towers; pictures are in the model's own colours, captions are rows of token numbers."""

    def __init__(
        self,
        *,
        words: int,
        tokens: int = 77,
        side: int = 16,
        patch: int = 8,
        widths: tuple[int, int] = (128, 64),
        heads: tuple[int, int] = (2, 1),
        hidden: tuple[int, int] = (512, 256),
        dim: int = 24,
        quick: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.visual = Vision(side, patch, widths[0], heads[0], hidden[0], dim, quick)
            self.transformer = Blocks(2, widths[1], heads[1], hidden[1], quick)
            self.token_embedding = nn.Embedding(words, widths[1])
            self.positional_embedding = nn.Parameter(torch.randn(tokens, widths[1]))
            self.ln_final = nn.LayerNorm(widths[1])
            self.text_projection = nn.Parameter(torch.randn(widths[1], dim) / widths[1])
            self.logit_scale = nn.Parameter(torch.tensor(2.5))
            with torch.no_grad():  # norms and biases that do nothing would hide that two of them were exchanged
                for name, parameter in self.named_parameters():
                    if name.endswith("bias") or ".ln_" in f".{name}":
                        parameter.add_(torch.randn_like(parameter) / 4)

    def encode_text(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding
        later = torch.full((ids.shape[1], ids.shape[1]), float("-inf"), dtype=x.dtype).triu(1)
        x = self.ln_final(self.transformer(x, later))
        out: Tensor = x[torch.arange(len(x)), ids.argmax(-1)] @ self.text_projection
        return out

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.visual(pixels), self.encode_text(ids)


def rows(tokenizer: CLIPTokenizer, captions: Sequence[str], tokens: int) -> Tensor:
    """Returns token numbers as OpenAI's and open_clip's tokenizers write them: zeros after the end."""
    ids = torch.zeros(len(captions), tokens, dtype=torch.long)
    for row, caption in zip(ids, captions, strict=True):
        found = tokenizer(caption).input_ids
        row[: len(found)] = torch.tensor(found)
    return ids
