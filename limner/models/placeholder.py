"""Placeholders: new words of a text encoder, each of one or several vectors (textual inversion, arXiv:2208.01618).

The names of the vectors are diffusers': ``<cat>``, ``<cat>_1``, ``<cat>_2``. :func:`limner.models.tokens.spell_out`
writes them out in a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from limner.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import CLIPTextModel, CLIPTokenizer

_ANOTHER = "Choose another, for instance '<my-dog>'."


def names_of(token: str, vectors: int) -> tuple[str, ...]:
    """Returns the names of a placeholder's vectors, its own first."""
    return (token, *(f"{token}_{number}" for number in range(1, vectors)))


# ---------------------------------------------------------------------------------------------------- the tokenizer
def add_names(tokenizer: CLIPTokenizer, token: str, vectors: int, *, where: str) -> int:
    """Makes the placeholder known to the tokenizer; returns the id of its first vector, the others follow.

    Raises UserError, before anything is added, where the tokenizer would not read ``token`` as a new word of its own.
    """
    _check_new(tokenizer, token, vectors, where)
    names = names_of(token, vectors)
    if tokenizer.add_tokens(list(names)) != vectors:
        raise RuntimeError(f"the tokenizer took fewer than {vectors} names for {token!r}")
    ids = [int(number) for number in tokenizer.convert_tokens_to_ids(list(names))]
    first = ids[0]
    if ids != list(range(first, first + vectors)) or _ids(tokenizer, f"a {token} b").count(first) != 1:
        raise UserError(f"{token!r} is not read as one word by this tokenizer.", where=where, fix=_ANOTHER)
    return first


def _check_new(tokenizer: CLIPTokenizer, token: str, vectors: int, where: str) -> None:
    ids = _ids(tokenizer, token)
    if len(ids) == 1:
        raise UserError(
            f"the tokenizer has {token!r} as a word already (id {ids[0]}), and its meaning would be overwritten.",
            where=where,
            fix=_ANOTHER,
        )
    normalizer = tokenizer.backend_tokenizer.normalizer
    read_as = token if normalizer is None else normalizer.normalize_str(token)
    if read_as != token:
        raise UserError(
            f"the tokenizer reads {token!r} as {read_as!r}.",
            where=where,
            fix=f"Write {read_as!r}, here and in captions and prompts.",
        )
    vocabulary = tokenizer.get_vocab()
    taken = [name for name in names_of(token, vectors + 1) if name in vocabulary]  # one more: it would be read as ours
    if taken:
        raise UserError(
            f"the tokenizer has {taken[0]!r} already (id {vocabulary[taken[0]]}).", where=where, fix=_ANOTHER
        )
    for other in tokenizer.added_tokens_encoder:
        if other in token or token in other:
            raise UserError(f"{token!r} and the word {other!r} lie one in the other.", where=where, fix=_ANOTHER)


def initial_ids(tokenizer: CLIPTokenizer, initialise: str, vectors: int) -> list[int]:
    """Returns the ids of the tokens from which the vectors begin: one for all of them, or one for each, in order."""
    ids = _ids(tokenizer, initialise)
    if len(ids) in (1, vectors):
        return ids * vectors if len(ids) == 1 else ids
    pieces = ", ".join(repr(piece) for piece in tokenizer.convert_ids_to_tokens(ids)) or "nothing"
    raise UserError(
        f"{initialise!r} is cut into {len(ids)} tokens ({pieces}), and there {_are(vectors)} to begin from them.",
        where="method.initialise",
        fix="Use a word that is one token"
        + (f", or set method.vectors: {len(ids)}, one for each." if len(ids) > 1 else "."),
    )


def _are(vectors: int) -> str:
    return "is 1 vector" if vectors == 1 else f"are {vectors} vectors"


def vectors_read(tokenizer: CLIPTokenizer, prompts: Sequence[str], token: str, *, limit: int) -> list[int]:
    """Returns for each prompt how many of the placeholder's vectors are read in their order, from the first on.

    It is less than all where the prompt is cut in the middle of them, or where the placeholder is not written as the
    tokenizer knows it (``<Cat>`` for a ``<cat>`` of two vectors reads the first one only).
    """
    from limner.models.tokens import spell_out

    known = tokenizer.added_tokens_encoder
    names = [token]
    while f"{token}_{len(names)}" in known:
        names.append(f"{token}_{len(names)}")
    whole = [known[name] for name in names]
    texts = spell_out(prompts, tokenizer)
    read = tokenizer(texts, truncation=True, max_length=limit, padding=False).input_ids if texts else []
    return [_longest_start(whole, ids) for ids in read]


def _longest_start(whole: Sequence[int], ids: Sequence[int]) -> int:
    """Returns how long a beginning of ``whole`` stands somewhere in ``ids``."""
    longest = 0
    for start in range(len(ids)):
        length = 0
        while length < len(whole) and start + length < len(ids) and ids[start + length] == whole[length]:
            length += 1
        longest = max(longest, length)
    return longest


def inside_a_word(token: str, prompt: str) -> bool:
    """Returns whether the placeholder stands in a longer word, which the tokenizer cuts: ``rex`` in ``rexford``."""
    before = r"(?<!\w)" if token[0].isalnum() else ""
    after = r"(?!\w)" if token[-1].isalnum() else ""
    every = re.findall(re.escape(token), prompt, re.IGNORECASE)
    return len(every) > len(re.findall(f"{before}{re.escape(token)}{after}", prompt, re.IGNORECASE))


def _ids(tokenizer: CLIPTokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, truncation=False, padding=False, verbose=False).input_ids)


# ------------------------------------------------------------------------------------------------- the text encoder
def add_word(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, token: str, rows: Tensor, *, where: str) -> None:
    """Gives the text encoder a word that does not train; ``rows`` are its vectors, [n, D]."""
    import torch

    first = add_names(tokenizer, token, len(rows), where=where)
    old = text_encoder.get_input_embeddings().weight.detach()
    weight = old.new_zeros(max(len(old), first + len(rows)), old.shape[1])
    weight[: len(old)] = old
    weight[first : first + len(rows)] = rows.to(old)
    text_encoder.set_input_embeddings(torch.nn.Embedding.from_pretrained(weight, freeze=True))


def check_width(rows: Tensor, width: int, *, where: str) -> None:
    """Raises UserError where vectors [n, D] are not as wide as the text encoder's."""
    if rows.shape[-1] != width:
        raise UserError(
            f"its vectors are {rows.shape[-1]} wide, and this model's text encoder has vectors {width} wide.",
            where=where,
            fix="It was made for another kind of model; use it with that one.",
        )


def add_trained_word(
    tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, token: str, vectors: int, initialise: str
) -> dict[str, nn.Parameter]:
    """Gives the text encoder a word that trains; returns its vectors, [D] float32 each, by their names in the network.

    They begin as those of ``initialise``. Nothing else of the text encoder trains because of this.
    """
    start = initial_ids(tokenizer, initialise, vectors)
    table = text_encoder.get_input_embeddings()
    rows = [table.weight.detach()[number].float().clone() for number in start]
    first = add_names(tokenizer, token, vectors, where="method.token")
    extended = _extended_embedding(table.weight, rows, first)
    text_encoder.set_input_embeddings(extended)
    trained = {id(parameter) for parameter in extended.vectors}
    return {name: value for name, value in text_encoder.named_parameters() if id(value) in trained}


def _extended_embedding(table: nn.Parameter, rows: Sequence[Tensor], first: int) -> Any:
    """Returns an embedding of the frozen ``table`` and of ``rows`` for the ids from ``first`` on.

    Each row is a parameter of its own, so that an optimizer sees the rows alone and as vectors, no matrix. The result
    has the table's number format, whatever the rows have: of a prompt without the new word nothing changes.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class ExtendedEmbedding(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = table  # first, since libraries ask the first parameter for the network's number format
            self.vectors = nn.ParameterList([nn.Parameter(row) for row in rows])

        def forward(self, ids: Tensor) -> Tensor:
            """Returns the vectors of ids [B, L], [B, L, D]."""
            place = ids - first
            new = (place >= 0) & (place < len(rows))
            old = functional.embedding(ids.masked_fill(new, 0), self.weight)
            own = torch.stack(list(self.vectors)).to(old.dtype)[place.clamp(0, len(rows) - 1)]
            return torch.where(new[..., None], own, old)

        def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExtendedEmbedding:
            """Moves to another device or format as any module does, but the trained rows keep all their digits."""
            exact = [vector.data for vector in self.vectors]
            super()._apply(fn, recurse)
            for vector, value in zip(self.vectors, exact, strict=True):
                vector.data = value.to(vector.device)
            return self

    return ExtendedEmbedding()
