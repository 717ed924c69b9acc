"""The class pictures of a DreamBooth run: those that lack are drawn before training, by the base model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from limner.config import RunConfig
from limner.core.progress import Progress
from limner.data.dreambooth import DreamBooth
from limner.data.several import subjects
from limner.evaluation.class_pictures import check_record, class_request, draw_missing, write_record
from limner.preflight import plan

if TYPE_CHECKING:
    from limner.models.protocol import DiffusionModel, Trained
    from limner.training.precision import Precision


def draw_class_pictures(config: RunConfig, progress: Progress) -> Trained | None:
    """Draws the class pictures that ``config.dataset`` asks for and that are not there; those that are stay.

    Whatever else would stop the run stops it before. Each picture is written whole, so that a run that is killed goes
    on with the next one.

    Returns the model that drew, for the run to train, so that it is loaded once. None where nothing lacked, and where
    drawing in half precision has rounded weights that the method keeps in float32 (networks that train whole): they
    are the base's no longer and must be loaded anew. Where the method keeps none, a run in half precision rounds them
    all in the same way before it trains, so nothing is lost.
    """
    lacking = [dataset for dataset in _drawing(config) if dataset.class_folder().missing]
    if not lacking:
        return None
    from limner.training.precision import choose_device, choose_precision

    plan(config)  # raises what would stop the run
    precision = choose_precision(config.train.precision, choose_device(config.train.device))
    assert config.model.kind == "sd1"  # plan has seen it
    model = config.model.load()
    model.identity()  # the hashes of the weights as they are in the files, which the model keeps
    refuse_others_pictures(config, model)
    float32 = config.method.float32_parts(cast("Any", model))
    model.to(precision.device, precision.dtype)
    for dataset in lacking:
        _draw(config, dataset, model, precision, progress)
    return None if float32 and precision.name != "fp32" else model


def _drawing(config: RunConfig) -> list[DreamBooth]:
    """Returns the data sets whose class pictures may be drawn."""
    return [d for _, d in subjects(config.dataset) if d.class_path is not None and d.class_pictures is not None]


def _draw(
    config: RunConfig, dataset: DreamBooth, model: DiffusionModel, precision: Precision, progress: Progress
) -> None:
    assert dataset.class_path is not None
    folder, content = dataset.class_path.expanduser(), dataset.class_folder()
    request = class_request(dataset.class_caption, config.images.resolution, dataset.class_drawing)
    folder.mkdir(parents=True, exist_ok=True)
    if not content.drawn:
        write_record(folder, request, model=model.source.name, identity=model.identity(), precision=precision.name)
    drawing = draw_missing(
        model,
        folder,
        request,
        content.missing,
        drawn={number: content.listing.images[id] for number, id in content.drawn.items()},
        batch_size=dataset.class_drawing.batch_size,
    )
    told: set[str] = set()
    for done, warnings in enumerate(drawing, start=1):
        for warning in set(warnings) - told:
            progress.warn(warning)
            told.add(warning)
        progress.stage("class pictures", done, len(content.missing))
    progress.say(f"drew {len(content.missing)} pictures of {request.prompt!r} into {folder}")


def refuse_others_pictures(config: RunConfig, model: Trained) -> None:
    """Raises UserError if drawn class pictures that the run uses are by another model. Call it before the method."""
    for dataset in _drawing(config):
        content = dataset.class_folder()
        if len(content.numbers):
            check_record(
                content.listing.root,
                class_request(dataset.class_caption, config.images.resolution, dataset.class_drawing),
                drawn=len(content.drawn),
                model=model.source.name,
                identity=model.identity(),
            )
