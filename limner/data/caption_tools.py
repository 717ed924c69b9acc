"""What is done to a caption before it is read: tags shuffled and dropped, the trigger word, a prefix and a suffix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field, field_validator, model_validator

from limner.core.config import Config
from limner.core.errors import UserError
from limner.core.rng import stream
from limner.data.example import Example, Role
from limner.data.prompts import has_word
from limner.data.text import counted

if TYPE_CHECKING:
    from limner.data.ledger import Prepared


class Captions(Config):
    """What is done to each caption at each visit, in this order: tags shuffled, tags dropped, trigger word, prefix and
    suffix. The files stay as they are. What objective.caption_dropout empties stays empty; a caption that is empty in
    the data is treated like any other.
    """

    prefix: str = ""
    """Text put before each caption exactly as written: end it with the blank or comma that shall stand between, in
    quotation marks ('a drawing of '), as YAML drops a blank at the end."""
    suffix: str = ""
    """Text put after each caption exactly as written: begin it with the blank or comma that shall stand between, in
    quotation marks (', oil on canvas')."""
    add_trigger_word: bool = False
    """Put trigger_word at the beginning of captions that lack it as a word, but not into those of DreamBooth's class
    pictures: as a tag of its own where tags are shuffled or dropped, else with a blank."""
    shuffle_tags: bool = False
    """Put the tags of a caption into another order at each visit."""
    separator: str = ","
    """What stands between two tags. Tags lose the blanks around them, and are joined again by it and a blank."""
    keep_first: int = Field(default=0, ge=0)
    """So many tags at the beginning are neither shuffled nor dropped."""
    tag_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Each tag after the first keep_first is left out of a visit with this probability; one tag at least stays."""

    @field_validator("separator")
    @classmethod
    def _separator_is_a_sign(cls, separator: str) -> str:
        if separator != separator.strip() or not separator:
            raise ValueError(
                f"{separator!r} begins or ends with a blank, or is empty. Tags are trimmed: write the sign."
            )
        return separator

    @model_validator(mode="after")
    def _texts_do_not_run_into_the_caption(self) -> Captions:
        for name, text, touching, example in (
            ("prefix", self.prefix, self.prefix[-1:], "a photo of "),
            ("suffix", self.suffix, self.suffix[:1], ", in red"),
        ):
            if touching.isascii() and touching.isalnum():
                raise ValueError(
                    f"{name} {text!r} would run into the caption's own words. Write the blank or comma that shall "
                    f"stand between, in quotation marks: {name}: {example!r}."
                )
        return self

    @model_validator(mode="after")
    def _every_option_does_something(self) -> Captions:
        if self.edits_tags:
            return self
        for name, changed in (("keep_first", self.keep_first != 0), ("separator", self.separator != ",")):
            if changed:
                raise ValueError(f"{name} does nothing without shuffle_tags or tag_dropout. Set one, or leave it out.")
        return self

    @property
    def edits_tags(self) -> bool:
        """Whether a caption may read differently from visit to visit."""
        return self.shuffle_tags or self.tag_dropout > 0

    def conflicts(self, trigger_word: str | None) -> list[str]:
        """Returns what is wrong between these options and the trigger word of the run, one sentence each."""
        if not self.add_trigger_word:
            return []
        if trigger_word is None or not trigger_word.strip():
            return ["captions.add_trigger_word: there is no trigger_word to add. Set trigger_word."]
        problems = [
            f"captions.add_trigger_word: captions.{name} has {trigger_word!r} already. Leave one of them out."
            for name, text in (("prefix", self.prefix), ("suffix", self.suffix))
            if has_word(text, trigger_word)
        ]
        if self.edits_tags and self.separator in trigger_word:
            problems.append(
                f"captions.add_trigger_word: {trigger_word!r} holds the separator {self.separator!r}, so it would be "
                "taken apart like a row of tags. Take it out of trigger_word."
            )
        return problems


@dataclass(frozen=True)
class CaptionTools:
    """The caption options of a run together with its trigger word."""

    options: Captions
    trigger_word: str | None = None

    def read(self, caption: str, *, role: Role, seed: int, position: int) -> str:
        """Returns the caption as the visit at ``position`` reads it: a pure function of its arguments."""
        return self._framed(self._with_tags_drawn(caption, seed, position), role)

    def fixed(self, example: Example) -> str:
        """Returns the first caption with all that is put around it, its tags as they are written."""
        return self._framed(example.captions[0], example.role)

    def longest(self, example: Example) -> tuple[str, ...]:
        """Returns each caption of the example with all that is put around it and no tag dropped.

        Where tags are shuffled or dropped it stands again with its tags joined anew, and with each tag that ends in a
        sign at the end: ``a), b`` may have a token less than ``b, a)``.
        """
        forms = [form for caption in example.captions for form in (caption, *self._orders(caption))]
        return tuple(self._framed(form, example.role) for form in forms)

    def _orders(self, caption: str) -> list[str]:
        """Returns the orders of the tags that may differ in their number of tokens."""
        if not self.options.edits_tags:
            return []
        tags = self.tags(caption)
        moved = range(self.options.keep_first, len(tags)) if self.options.shuffle_tags else ()
        last = [place for place in moved if not tags[place][-1].isalnum()]
        orders = [tags, *([*tags[:place], *tags[place + 1 :], tags[place]] for place in last)]
        return [self._joined(order) for order in orders]

    def tags(self, caption: str) -> list[str]:
        """Returns the tags of a caption, trimmed; empty ones are none."""
        return [tag for part in caption.split(self.options.separator) if (tag := part.strip())]

    def _with_tags_drawn(self, caption: str, seed: int, position: int) -> str:
        options = self.options
        tags = self.tags(caption) if options.edits_tags else []
        first, rest = tags[: options.keep_first], tags[options.keep_first :]
        if not rest:
            return caption
        places = list(range(len(rest)))
        kept = set(places)
        if options.tag_dropout:
            rng = stream(seed, position, "tag dropout")
            kept = {place for place in places if rng.random() >= options.tag_dropout}
            if not kept and not first:
                kept = {rng.choice(places)}
        if options.shuffle_tags:
            stream(seed, position, "tag order").shuffle(places)
        drawn = first + [rest[place] for place in places if place in kept]
        return caption if drawn == tags else self._joined(drawn)

    def _joined(self, tags: Sequence[str]) -> str:
        return f"{self.options.separator} ".join(tags)

    def _framed(self, caption: str, role: Role) -> str:
        """Returns the caption with the trigger word, where it lacks it, and prefix and suffix around both."""
        word = self.trigger_word if self.options.add_trigger_word and role == "instance" else None
        if word is not None and not has_word(caption, word):
            glue = f"{self.options.separator} " if self.options.edits_tags else " "
            caption = f"{word}{glue}{caption}" if caption else word
        return f"{self.options.prefix}{caption}{self.options.suffix}"


AS_WRITTEN = CaptionTools(Captions())
"""Changes no caption."""


def caption_rows(tools: CaptionTools, prepared: Sequence[Prepared], *, seed: int) -> list[tuple[str, str]]:
    """Returns labels and values for people: what the tools do to these captions, and one caption as it will be read.

    Raises UserError for a tool that would change no caption, and for a trigger word in those of class pictures.
    """
    options = tools.options
    if options == Captions():
        return []
    captions = [(picture.example.role, caption) for picture in prepared for caption in picture.example.captions]
    _check_class_pictures(tools, [caption for role, caption in captions if role == "class"])
    rows = []
    if options.edits_tags:
        rows.append(("tags", _tags_row(tools, [caption for _, caption in captions])))
    if options.add_trigger_word and tools.trigger_word is not None:
        word = tools.trigger_word
        mine = [caption for role, caption in captions if role == "instance"]
        lacking = sum(not has_word(caption, word) for caption in mine)
        rows.append(("trigger word", f"{word!r} is put before {lacking:,} of {counted(len(mine), 'caption')}"))
    read = ((caption, tools.read(caption, role=role, seed=seed, position=0)) for role, caption in captions)
    before, after = next((pair for pair in read if pair[0] != pair[1]), (captions[0][1], captions[0][1]))
    return [*rows, ("a caption reads", f"{after!r}, and stands in the data as {before!r}")]


def _tags_row(tools: CaptionTools, captions: Sequence[str]) -> str:
    options = tools.options
    counts = [len(tools.tags(caption)) for caption in captions]
    loose = [count - options.keep_first for count in counts]
    shuffled = sum(count >= 2 for count in loose)
    thinned = sum(one >= 1 and count >= 2 for one, count in zip(loose, counts, strict=True))
    for name, active, found in (
        ("shuffle_tags", options.shuffle_tags, shuffled),
        ("tag_dropout", options.tag_dropout > 0, thinned),
    ):
        if active and not found:
            kept = f" after the first {options.keep_first}" if options.keep_first else ""
            raise UserError(
                f"would change nothing: no caption has enough tags{kept}; the longest has {max(counts)}, "
                f"separated by {options.separator!r}.",
                where=f"captions.{name}",
                fix="Set captions.separator to what separates the tags, or leave it out.",
            )
    done = [f"{shuffled:,} shuffled"] if options.shuffle_tags else []
    done += [f"{thinned:,} thinned out"] if options.tag_dropout else []
    spread = f"{min(counts)} to {max(counts)}" if min(counts) != max(counts) else f"{max(counts)}"
    return f"{spread} in a caption; of {counted(len(captions), 'caption')} {' and '.join(done)}"


def _check_class_pictures(tools: CaptionTools, captions: Sequence[str]) -> None:
    """Refuses a trigger word that prefix or suffix would put into the captions of class pictures."""
    word = tools.trigger_word
    if word is None or not captions:
        return
    for name, text in (("prefix", tools.options.prefix), ("suffix", tools.options.suffix)):
        if has_word(text, word):
            raise UserError(
                f"has the trigger word {word!r}, and would put it into the captions of the class pictures too.",
                where=f"captions.{name}",
                fix="Use captions.add_trigger_word, which leaves class pictures alone.",
            )
