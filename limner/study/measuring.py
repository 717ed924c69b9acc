"""What the judge reads in the pictures of a lesson's prompts, and the numbers that follow."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from limner.builtin.scoring import Share, Tally
from limner.core.errors import UserError
from limner.core.progress import Progress
from limner.core.rundir import write_atomic
from limner.study.diversity import diversity
from limner.study.grid import Conditions, Setting
from limner.study.lessons import Lesson, score_of
from limner.study.training import export_kind

if TYPE_CHECKING:
    from PIL.Image import Image

    from limner.builtin.judge import Reading
    from limner.models.adapters import LoadedAdapter
    from limner.models.embedding_files import LoadedEmbedding
    from limner.models.sd1 import SD1Model

Readings = tuple[tuple["Reading", ...], ...]
"""By prompt, then by seed."""
SEEDS_APART = 1_000_000
"""Picture s of prompt k has the seed s * SEEDS_APART + k: each has a noise of its own, whatever the counts."""


class Reader(Protocol):
    """Who can read pictures: :class:`limner.builtin.judge.Judge`."""

    def read(self, pictures: Sequence[Image]) -> list[Reading]:
        """Returns what is on each picture."""


@dataclass(frozen=True)
class Seen:
    """What the judge read in a model's pictures."""

    called: Readings
    """Of the prompts for what was taught."""
    of_class: Readings
    """Of the class prompts."""
    cut_prompts: int
    """Prompts of which the model did not read the end."""


@dataclass(frozen=True)
class Numbers:
    """What follows from the readings of one model's pictures."""

    recognised: Share
    things: Share
    colours: Share
    background: Share
    class_drawn: Share
    """Of the pictures of class prompts, those that show a member."""
    drift: Share
    """Of the pictures of class prompts, those that show what was taught."""
    diversity: tuple[float, ...] | None
    """Of each class prompt; None where there is one picture of each only."""
    pictures: int


# ------------------------------------------------------------------------------------------------------- the drawing
@dataclass(frozen=True)
class Tuned:
    """A model with what a setting taught it."""

    model: SD1Model
    adapters: tuple[LoadedAdapter, ...] = ()
    embeddings: tuple[LoadedEmbedding, ...] = ()


def load_base(model: str) -> SD1Model:
    """Returns the model on the device and in the precision that suit this machine."""
    from limner.models.sd1 import SD1
    from limner.training.precision import choose_device, choose_precision

    loaded = SD1(path=model).load()
    chosen = choose_precision("auto", choose_device("auto"))
    loaded.to(chosen.device, chosen.dtype)
    return loaded


def load_tuned(model: str, setting: Setting, folder: Path) -> Tuned:
    """Returns the base model with what ``folder`` holds of a setting, as other programs would load it."""
    from limner.models.adapters import AdapterRef, load_adapters
    from limner.models.embedding_files import EmbeddingRef, companions, load_embeddings

    kind = export_kind(setting)
    if kind == "diffusers":
        return Tuned(load_base(str(folder / kind)))
    loaded = load_base(model)
    adapters = load_adapters(loaded.networks, [] if kind == "embedding" else [AdapterRef(folder / kind)])
    given = [EmbeddingRef(folder / kind)] if kind == "embedding" else companions(adapters, [])[0]
    return Tuned(loaded, adapters, load_embeddings(loaded.tokenizer, loaded.text_encoder, given))


def see(
    tuned: Tuned, lesson: Lesson, setting: Setting | None, conditions: Conditions, judge: Reader, progress: Progress
) -> Seen:
    """Draws every prompt of the lesson with every seed and returns what the judge reads; ``setting`` None is the base.

    The noise is the same for every model.
    """
    subject = lesson.subject(setting)
    called = [prompt.text(subject) for prompt in lesson.called]
    classes = [prompt.text for prompt in lesson.of_class]
    limit, counts = tuned.model.token_limit, tuned.model.count_tokens([*called, *classes])
    total = conditions.seeds * len(counts)

    def read(texts: Sequence[str], done: int, embeddings: tuple[LoadedEmbedding, ...]) -> Readings:
        def tell(pictures: int) -> None:
            progress.stage("pictures to judge", done + pictures, total)

        return _read(Tuned(tuned.model, tuned.adapters, embeddings), texts, conditions, judge, tell)

    return Seen(
        called=read(called, 0, tuned.embeddings),
        of_class=read(classes, conditions.seeds * len(called), ()),
        cut_prompts=sum(count > limit for count in counts),
    )


def _read(
    tuned: Tuned, texts: Sequence[str], conditions: Conditions, judge: Reader, tell: Callable[[int], None]
) -> Readings:
    from limner.evaluation.generate import GenerateRequest, generate

    by_prompt: list[list[Reading]] = [[] for _ in texts]
    for seed in range(conditions.seeds):
        for start in range(0, len(texts), conditions.drawing_batch):
            batch = tuple(texts[start : start + conditions.drawing_batch])
            request = GenerateRequest(
                prompts=batch,
                seed=seed * SEEDS_APART + start,
                spread=True,
                steps=conditions.drawing_steps,
                guidance=conditions.guidance,
            )
            drawn = generate(
                tuned.model, request, adapters=tuned.adapters, embeddings=tuned.embeddings, batch_size=len(batch)
            )
            readings = judge.read([picture.image for picture in drawn])
            for place, reading in enumerate(readings, start=start):
                by_prompt[place].append(reading)
            tell(seed * len(texts) + start + len(batch))
    return tuple(tuple(readings) for readings in by_prompt)


# -------------------------------------------------------------------------------------------------------- the numbers
def numbers(lesson: Lesson, seen: Seen) -> Numbers:
    """Returns what follows from the readings."""
    tally, recognised = Tally(), 0
    for prompt, readings in zip(lesson.called, seen.called, strict=True):
        for reading in readings:
            tally.add(score_of(prompt.scene, reading))
            recognised += lesson.recognised(reading)
    drawn = drift = pictures = 0
    for member, readings in zip(lesson.of_class, seen.of_class, strict=True):
        pictures += len(readings)
        drawn += sum(any(thing.kind == member.kind for thing in reading.things) for reading in readings)
        drift += sum(map(lesson.recognised, readings))
    things, colours, background = (tally.share(aspect) for aspect in ("thing", "colour", "background"))
    assert things is not None
    assert colours is not None
    assert background is not None
    return Numbers(
        recognised=Share(recognised, tally.pictures),
        things=things,
        colours=colours,
        background=background,
        class_drawn=Share(drawn, pictures),
        drift=Share(drift, pictures),
        diversity=_diversities(lesson, seen.of_class),
        pictures=tally.pictures + pictures,
    )


def _diversities(lesson: Lesson, of_class: Readings) -> tuple[float, ...] | None:
    if len(of_class[0]) < 2:
        return None
    return tuple(diversity(found, prompt.kind) for prompt, found in zip(lesson.of_class, of_class, strict=True))


# ----------------------------------------------------------------------------------------------------------- the file
def write_seen(path: Path, key: dict[str, Any], seen: Seen) -> None:
    """Writes the readings with what they were computed from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    value = {"computed_from": key, **asdict(seen)}
    write_atomic(path, (json.dumps(value, ensure_ascii=False) + "\n").encode())


def read_seen(path: Path) -> Seen | None:
    """Returns the readings of a file that :func:`write_seen` wrote; None where there is none."""
    try:
        found = json.loads(path.read_bytes())
        return Seen(_readings(found["called"]), _readings(found["of_class"]), int(found["cut_prompts"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise UserError("is damaged.", where=str(path), fix="Remove it: it is measured again.") from None


def _readings(values: Any) -> Readings:
    from limner.builtin.judge import Reading
    from limner.builtin.judge import Seen as SeenThing

    return tuple(
        tuple(
            Reading(tuple(SeenThing(**thing) for thing in one["things"]), one["background"], one["style"])
            for one in prompt
        )
        for prompt in values
    )
