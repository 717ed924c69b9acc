"""Captions that lie beside pictures: ``x.txt`` or ``x.caption`` for ``x.jpg``; and files that hold many captions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from limner.core.errors import UserError
from limner.data.listing import Listing, split_suffix
from limner.data.text import counted, first_few

SUFFIXES = (".txt", ".caption")

_CAPTION_FILE = re.compile(
    r"(meta[ _-]?datas?|captions?|prompts?|results|flickr8k\.token|results_20130124)"
    r"\.(txt|csv|tsv|jsonl?|jsonlines|ndjson|parquet|token)",
    re.IGNORECASE,
)


def find_sidecars(listing: Listing) -> dict[str, list[str]]:
    """Returns the sidecars, by their ids, of each picture that has any."""
    by_stem: dict[str, list[str]] = {}
    for id in listing.others:
        stem, suffix = split_suffix(id)
        if suffix in SUFFIXES:
            by_stem.setdefault(stem, []).append(id)
    stems = {id: split_suffix(id)[0] for id in listing.images}
    return {id: by_stem[stem] for id, stem in stems.items() if stem in by_stem}


def find_caption_files(listing: Listing, sidecars: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the ids of files that by their name hold the captions of many pictures (``metadata.jsonl``)."""
    taken = {sidecar for several in sidecars.values() for sidecar in several}
    return [id for id in listing.others if id not in taken and _CAPTION_FILE.fullmatch(id.rpartition("/")[2])]


def refuse_unused_captions(
    listing: Listing, sidecars: Mapping[str, Sequence[str]], *, where: str, instead: str, fix: str
) -> None:
    """Raises UserError if captions lie among the pictures while the config says to use something else."""
    files = find_caption_files(listing, sidecars)
    if sidecars:
        found = [sidecar for several in sidecars.values() for sidecar in several]
        what = f"{counted(len(sidecars), 'picture')} in {listing.name!r} have captions beside them"
    elif files:
        found, what = files, f"{listing.name!r} holds captions"
    else:
        return
    raise UserError(f"{what} ({first_few(found)}), and they are not used: {instead}.", where=where, fix=fix)


def one_sidecar_each(listing: Listing, sidecars: Mapping[str, Sequence[str]], *, where: str) -> dict[str, str]:
    """Returns the one sidecar of each picture that has any; raises UserError where it is not clear which is whose."""
    owner: dict[str, str] = {}
    for id, found in sidecars.items():
        if len(found) > 1:
            raise UserError(
                f"{id!r} has several caption files: {', '.join(found)}.", where=where, fix="Keep one of them."
            )
        if found[0] in owner:
            raise UserError(
                f"{found[0]!r} stands beside two pictures of that name, {owner[found[0]]} and {id}.",
                where=where,
                fix="Rename one picture, and give each its own caption.",
            )
        owner[found[0]] = id
    return {id: found[0] for id, found in sidecars.items()}


def looks_misnamed(listing: Listing, uncaptioned: Collection[str]) -> str:
    """Returns a sentence if captions stand under ``x.jpg.txt`` instead of ``x.txt``, else ""."""
    for id in uncaptioned:
        for suffix in SUFFIXES:
            if id + suffix in listing.others:
                return f"{id + suffix} is there: name it {split_suffix(id)[0] + suffix}."
    return ""
