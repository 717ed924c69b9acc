"""What can be known before training about DreamBooth's words and pictures, and about pictures that are cut."""

from __future__ import annotations

from collections.abc import Sequence

from limner.config import RunConfig
from limner.core.errors import UserError
from limner.core.progress import Progress
from limner.data.dreambooth import DreamBooth
from limner.data.ledger import Ledger, Row
from limner.data.prompts import has_word
from limner.data.several import subjects
from limner.data.summary import listed
from limner.data.text import counted
from limner.evaluation.class_pictures import check_record, class_request
from limner.models.schedulers import check_scheduler_name
from limner.models.tokens import TokenCounter
from limner.models.words import Word

MOST_PICTURES = 30
CUT = 0.15
"""A picture of the subject that loses more than this share of its area is named."""


def check_subject(config: RunConfig, ledger: Ledger, counter: TokenCounter, progress: Progress) -> None:
    """Says what may not be what the user wanted of a DreamBooth run; raises UserError for what cannot work."""
    _refuse_cut(config, ledger)
    _tell_of_preservation(config, counter, progress)
    for prefix, dataset in subjects(config.dataset):
        rows = [row for row in ledger.rows if row.used and row.id.startswith(prefix)]
        if dataset.token != _new_word(config):
            _tell_of_token(dataset, counter.look_up(dataset.token), progress)
        _tell_of_count(rows, progress)
        _tell_of_cut(rows, progress)
        _refuse_empty_class(rows)
        check_scheduler_name(dataset.class_drawing.scheduler, where="dataset.class_drawing.scheduler")
        _check_record(config, dataset)


def _tell_of_preservation(config: RunConfig, counter: TokenCounter, progress: Progress) -> None:
    objective = config.objective
    if objective.kind != "denoising" or objective.preservation is None:
        return
    prompt = objective.preservation.prompt
    (tokens,) = counter.count([prompt])
    if tokens > counter.limit:
        progress.warn(f"objective.preservation.prompt has {tokens} tokens; {counter.limit} are read")
    for _, dataset in subjects(config.dataset):
        if not has_word(prompt, dataset.class_noun):
            progress.warn(
                f"objective.preservation.prompt {prompt!r} lacks the class noun {dataset.class_noun!r}: that class is "
                "not kept as it is"
            )


def _new_word(config: RunConfig) -> str | None:
    method = config.method
    return method.token if method.kind == "textual_inversion" or method.kind == "pivotal" else None


def _tell_of_token(dataset: DreamBooth, word: Word, progress: Progress) -> None:
    if word.why_common:
        progress.warn(
            f"dataset.token {dataset.token!r} is a common word ({word.why_common}): what it means already will stand "
            "beside the subject in its pictures. A rare one, as sks, means little."
        )
    elif len(word.pieces) == 1:
        progress.say(f"dataset.token {dataset.token!r} is one rare piece for the tokenizer: {word.told()}")
    else:
        progress.say(f"dataset.token {dataset.token!r} is {len(word.pieces)} pieces for the tokenizer: {word.told()}")


def _tell_of_count(rows: Sequence[Row], progress: Progress) -> None:
    count = sum(row.role == "instance" for row in rows)
    if count == 1:
        progress.warn("there is 1 picture of the subject: its background and pose will be learned too; use 3 to 5")
    if count > MOST_PICTURES:
        progress.say(
            f"there are {count} pictures of the subject; DreamBooth is made for 3 to {MOST_PICTURES}. Where they have "
            "captions, dataset.kind: folder makes more of them."
        )


def _tell_of_cut(rows: Sequence[Row], progress: Progress) -> None:
    worst = sorted((row for row in rows if row.role == "instance"), key=lambda row: -_at_risk(row))
    cut = [f"{row.id} {_at_risk(row):.0%}" for row in worst if _at_risk(row) > CUT]
    if cut:
        progress.warn(
            f"{counted(len(cut), 'picture')} of the subject not seen whole, it may be cut: {listed(cut)} of the area "
            "lies outside of what every visit sees. images.buckets: true with crop: center cuts least; or crop by hand."
        )


def _at_risk(row: Row) -> float:
    """Returns the share of a picture's area that some visit does not see."""
    if row.resize is None or row.always_seen is None:
        return 0.0
    return 1 - row.always_seen[2] * row.always_seen[3] / (row.resize[0] * row.resize[1])


def _refuse_cut(config: RunConfig, ledger: Ledger) -> None:
    limit = config.images.max_cut
    if limit is None:
        return
    cut = [f"{row.id} {row.cut_off:.0%}" for row in ledger.rows if row.used and row.cut_off > limit]
    if cut:
        raise UserError(
            f"{limit:g} is less than what {counted(len(cut), 'picture')} would lose: {listed(cut)}.",
            where="images.max_cut",
            fix="Crop them by hand, set images.buckets: true or a smaller images.bucket_step, or raise it.",
        )


def _refuse_empty_class(used: Sequence[Row]) -> None:
    """Refuses class pictures that show nothing, and many copies of one: the class would be forgotten for them."""
    rows = [row for row in used if row.role == "class"]
    plain = [f"{row.id} {row.one_colour}" for row in rows if row.one_colour]
    copies = len(rows) > 1 and len({row.sha256 for row in rows}) == 1
    if plain:
        what = f"{len(plain)} class pictures are of one colour, as those that a safety checker blacks out: "
        what += f"{listed(plain)}."
    elif copies:
        what = f"all {len(rows)} class pictures are the same: {_names(rows)}."
    else:
        return
    raise UserError(what, where="dataset.class_path", fix="Remove them, and put real members of the class there.")


def _names(rows: Sequence[Row]) -> str:
    return listed([row.id for row in rows])


def _check_record(config: RunConfig, dataset: DreamBooth) -> None:
    """Compares the record of drawn class pictures with what is asked for; which model drew them is seen later."""
    if dataset.class_path is None or dataset.class_pictures is None:
        return
    content = dataset.class_folder()
    if len(content.numbers):
        request = class_request(dataset.class_caption, config.images.resolution, dataset.class_drawing)
        check_record(content.listing.root, request, drawn=len(content.drawn))
