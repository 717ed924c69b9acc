"""RunConfig: everything that a run is, and what concerns two of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from limner.core.config import Config, Origins, read_recipe, validate
from limner.core.errors import ConfigError
from limner.data import DatasetConfig
from limner.data.buckets import ImageConfig
from limner.data.caption_tools import Captions
from limner.data.masks import Masks
from limner.data.prompts import has_word
from limner.data.several import layouts, subjects
from limner.evaluation import MetricConfig
from limner.evaluation.report import Report
from limner.evaluation.samples import Samples
from limner.export import Export, ExportConfig, default_exports
from limner.export.kohya import NO_DORA
from limner.methods import MethodConfig
from limner.methods.lora import Lora
from limner.models import ModelConfig
from limner.training.objectives import Denoising, ObjectiveConfig
from limner.training.optimizers import AdamW, OptimizerConfig
from limner.training.precision import PrecisionName
from limner.training.schedules import Schedule
from limner.training.validation import Validation


class Train(Config):
    """How long, how much at once, on what."""

    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps. Set this, epochs or steps_per_picture."""
    epochs: float | None = Field(default=None, gt=0)
    """Times that every picture is seen; turned into steps, rounded up."""
    steps_per_picture: int | None = Field(default=None, ge=1)
    """Optimizer steps for each picture of the subject, class pictures not counted; DreamBooth's habit is 100 to 200."""
    batch_size: int = Field(default=1, ge=1)
    """Pictures that one optimizer step sees."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Pictures in memory at once; gradients of the parts add up to that of the batch. Unset: the whole batch."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0 switches it off."""
    precision: PrecisionName = "auto"
    """fp32, bf16, fp16 (with a gradient scaler); auto is bf16 on a GPU that has it, fp16 on an older one, else fp32."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; auto takes a GPU where there is one."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory; the numbers stay the same."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Keep a running average of the weights with this decay (often 0.9999) and use it for samples and exports."""
    save_every: Annotated[int, Field(ge=1)] | Literal["epoch"] = 500
    """Optimizer steps between checkpoints, or epoch; one more is written at the end and when the run is stopped."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Number of newest checkpoints that stay on the disk."""
    keep_best: bool = False
    """Compare all checkpoints that stay on the disk at the end, and export the one that the report recommends."""

    def saves(self, step: int, *, visits: int) -> bool:
        """Returns whether a checkpoint belongs to ``step`` (from 1), where an epoch has so many visits of pictures."""
        if self.save_every == "epoch":  # the step in which an epoch's last picture is seen
            return step * self.batch_size // visits > (step - 1) * self.batch_size // visits
        return step % self.save_every == 0

    @model_validator(mode="after")
    def _one_length(self) -> Train:
        given = {"steps": self.steps, "epochs": self.epochs, "steps_per_picture": self.steps_per_picture}
        names = [name for name, value in given.items() if value is not None]
        if len(names) != 1:
            said = " and ".join(names) if names else "none"
            raise ValueError(f"set exactly one of steps, epochs and steps_per_picture ({said} set).")
        return self

    @model_validator(mode="after")
    def _micro_fits(self) -> Train:
        if self.micro_batch_size is not None and self.micro_batch_size > self.batch_size:
            raise ValueError(f"micro_batch_size {self.micro_batch_size} is more than batch_size {self.batch_size}.")
        return self


class Cache(Config):
    """Latents and text states on the disk, found again by what they were computed from."""

    latents: bool = True
    """Keep the autoencoder's output, and the mask if there is one, for each picture, crop and flip; with method heads
    the picture tower's output."""
    captions: bool = True
    """Keep the text encoder's states for each caption; not done where the text encoder trains, or where captions.
    shuffle_tags or tag_dropout makes ever new captions. With method heads the text tower's output."""
    folder: Path | None = None
    """Where; shared by all runs. Unset: $LIMNER_CACHE, else ~/.cache/limner."""


class RunConfig(Config):
    """A fine-tuning run. Recipes are this in YAML."""

    out: Path
    """The folder of the run; made if it is not there."""
    seed: int = Field(default=0, ge=0)
    """Decides the order of the pictures, their crops, captions, noise and timesteps."""
    model: ModelConfig
    """The model to start from."""
    dataset: DatasetConfig
    """The pictures and their captions."""
    images: ImageConfig = ImageConfig()
    """How pictures are cropped and scaled."""
    captions: Captions = Captions()
    """What is done to captions when they are read."""
    masks: Masks | None = None
    """Train on a part of each picture, which a mask marks. Unset: on the whole."""
    method: MethodConfig
    """What trains, and how: lora, loha, lokr, full, textual_inversion, pivotal or autoencoder; of CLIP towers, heads or
    lora."""
    objective: ObjectiveConfig = Denoising()
    """What is minimised."""
    optimizer: OptimizerConfig = AdamW()
    """How weights move along the gradient."""
    schedule: Schedule = Schedule()
    """The learning rate over the run."""
    train: Train
    """How long, how much at once, on what."""
    samples: Samples = Samples()
    """Pictures drawn while training."""
    validation: Validation | None = None
    """Pictures held out, the loss on them, and which checkpoint is exported. Unset: all pictures are trained on."""
    metrics: tuple[MetricConfig, ...] = ()
    """What is measured of the model before training and after, each with a data set of its own: zero_shot,
    linear_probe, retrieval."""
    report: Report = Report()
    """The page that shows what the training changed."""
    cache: Cache = Cache()
    """What is kept between runs."""
    export: tuple[ExportConfig, ...] | None = None
    """The files to write at the end. Unset: diffusers, PEFT and kohya for a LoRA, PEFT and kohya for LoHa and LoKr, a
    diffusers folder for a full model, an embedding for a new word."""
    trigger_word: str | None = Field(default=None, min_length=1)
    """The word that calls what was learned; it must stand in a caption as it is read (captions.add_trigger_word puts it
    there), and is written into the exported files."""
    private: bool = False
    """Leave names of your files, folders and prompts out of the exported files."""
    tensorboard: bool = False
    """Also log to OUT/tensorboard. Extra: limner[tensorboard]."""


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Returns the config of a recipe file with ``key=value`` overrides; raises one error with every problem."""
    return load_recipe(Path(path), overrides)[0]


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[RunConfig, Origins]:
    """Returns the config of a recipe and where each of its values came from."""
    values, origins = read_recipe(path, overrides)
    config = validate(RunConfig, values, where=str(path), origins=origins)
    problems = conflicts(config)
    if problems:
        raise ConfigError(problems, where=str(path))
    return config, origins


def conflicts(config: RunConfig) -> list[str]:
    """Returns what is wrong between the parts of a config, one sentence each."""
    from importlib.util import find_spec

    problems = []
    packages = {"adamw8bit": ("bitsandbytes", "gpu"), "prodigy": ("prodigyopt", "optimizers")}
    if config.optimizer.kind in packages:
        package, extra = packages[config.optimizer.kind]
        if find_spec(package) is None:
            problems.append(
                f'optimizer.kind: {config.optimizer.kind!r} needs the package {package}: pip install "limner[{extra}]".'
            )
    if config.tensorboard and find_spec("tensorboard") is None:
        problems.append('tensorboard: the package is not installed: pip install "limner[tensorboard]".')
    if config.samples.every is not None and not config.samples.prompts:
        problems.append("samples.every: there are no samples.prompts to draw.")
    if config.train.steps is not None and config.schedule.warmup_steps >= config.train.steps:
        problems.append(
            f"schedule.warmup_steps: {config.schedule.warmup_steps} is not less than train.steps "
            f"({config.train.steps}); the learning rate would never be reached."
        )
    method = config.method
    if config.optimizer.kind == "prodigy":
        problems += [f"{key}: Prodigy finds one learning rate for all; leave it at 1." for key in _own_rates(method)]
    for export in config.export or ():
        if method.kind not in export.methods or config.model.kind not in export.models:
            problems.append(
                f"export: {export.kind!r} cannot hold what method {method.kind!r} trains of {config.model.kind!r}."
            )
        elif export.kind == "kohya" and trains_dora(method):
            problems.append(f"export: {NO_DORA} Use the layouts of diffusers and PEFT.")
    problems += config.captions.conflicts(config.trigger_word)
    problems += [*_metric_conflicts(config), *_family_conflicts(config), *_tower_conflicts(config)]
    return [*problems, *_class_conflicts(config), *_mask_conflicts(config), *_report_conflicts(config)]


def learns_to_draw(config: RunConfig) -> bool:
    """Returns whether a run teaches pictures of prompts, so that it can be compared with its base model by them."""
    return config.model.kind == "sd1" and config.objective.kind == "denoising"


def _report_conflicts(config: RunConfig) -> list[str]:
    """Returns why no report can say which checkpoint is best, where it is asked to."""
    if not config.train.keep_best:
        return []
    if not learns_to_draw(config):
        return ["train.keep_best: only runs that learn to draw are reported on; set validation.export=best."]
    if config.report.at_end == "never":
        return ["train.keep_best: the report says which is best, and report.at_end=never makes none."]
    return []


def trains_dora(method: MethodConfig) -> bool:
    """Returns whether magnitudes train beside directions."""
    return (method.kind == "lora" and method.dora) or (method.kind == "pivotal" and method.lora.dora)


def _metric_conflicts(config: RunConfig) -> list[str]:
    """Returns where metrics cannot be measured of the model, or cannot be told apart."""
    problems = [
        f"metrics: {metric.kind!r} measures model {' or '.join(metric.models)}, not {config.model.kind!r}."
        for metric in config.metrics
        if config.model.kind not in metric.models
    ]
    titles = [metric.title for metric in config.metrics]
    twice = sorted({title for title in titles if titles.count(title) > 1})
    return problems + [f"metrics: two are called {title!r}; give each a name of its own." for title in twice]


def _own_rates(method: MethodConfig) -> list[str]:
    """Returns the keys by which a part of what trains gets a learning rate of its own."""
    if method.kind == "pivotal":
        scaled = ["method.token_lr_scale"] if method.token_lr_scale != 1 else []
        return scaled + [key.replace("method.", "method.lora.") for key in _own_rates(method.lora)]
    if method.kind == "autoencoder" or method.kind == "textual_inversion" or method.kind == "heads":
        return []
    if method.kind == "towers":
        rates = {"text_lr_scale": method.text_lr_scale, "layer_decay": method.layer_decay}
        return [f"method.{key}" for key, scale in rates.items() if scale != 1]
    if method.kind == "lora" and method.towers is not None:
        return ["method.towers.text_lr_scale"] if method.towers.text_lr_scale != 1 else []
    return ["method.text_encoder_lr_scale"] if method.text_encoder and method.text_encoder_lr_scale != 1 else []


_FITTING = {
    "denoising": ("sd1", ("lora", "loha", "lokr", "full", "textual_inversion", "pivotal")),
    "reconstruction": ("sd1", ("autoencoder",)),
    "contrastive": ("clip", ("towers", "heads", "lora")),
}
"""By objective: the kind of model that it trains, and the methods."""


def _family_conflicts(config: RunConfig) -> list[str]:
    """Returns where model, method and objective do not belong together."""
    model, methods = _FITTING[config.objective.kind]
    if config.model.kind != model or config.method.kind not in methods:
        return [
            f"objective: {config.objective.kind!r} trains model {model!r} by method {' or '.join(methods)}; this is "
            f"model {config.model.kind!r} with method {config.method.kind!r}."
        ]
    problems = []
    if config.objective.kind == "reconstruction" and config.captions != Captions():
        problems.append("captions: an autoencoder reads none, so these options would do nothing. Leave them out.")
    if config.method.kind == "textual_inversion" and config.objective.caption_dropout > 0:
        problems.append(
            f"objective.caption_dropout: {config.objective.caption_dropout} leaves captions empty, and without its "
            "word textual inversion learns nothing from a picture; leave it at 0."
        )
    if config.objective.kind == "contrastive":
        if config.train.batch_size == 1:
            problems.append("train.batch_size: 1 leaves no other caption to tell a picture's own from.")
        if config.samples.prompts:
            problems.append("samples.prompts: this model does not draw.")
        if config.validation is not None and config.validation.draws != Validation().draws:
            problems.append("validation.draws: this loss has no noise to draw; leave it out.")
    return problems


def _tower_conflicts(config: RunConfig) -> list[str]:
    """Returns where a method does not fit the towers of a CLIP model, or speaks of towers that are not there."""
    method, problems = config.method, []
    if config.model.kind != "clip":
        lora = method.lora if method.kind == "pivotal" else method
        if lora.kind == "lora" and lora.towers is not None:
            key = "method.lora.towers" if method.kind == "pivotal" else "method.towers"
            problems.append(f"{key}: model {config.model.kind!r} has none; leave it out.")
        return problems
    if method.kind == "lora":
        if method.towers is None:
            problems.append("method.towers: say where the adapters go in a CLIP model; {} puts them into both towers.")
        elif method.towers.temperature and any(export.kind == "peft" for export in config.export or ()):
            problems.append(
                "export: 'peft' has no place for what method.towers.temperature trains; leave one of both out."
            )
        keys = {"targets", "text_encoder", "text_encoder_targets", "text_encoder_lr_scale"}
        plain = Lora().model_dump(include=keys)
        spoken = sorted(key for key, value in method.model_dump(include=keys).items() if value != plain[key])
        problems += [f"method.{key}: is for a diffusion model; write method.towers instead." for key in spoken]
    still = method.kind == "heads" or (method.kind == "towers" and method.image == "none" and method.text == "none")
    if still and config.train.gradient_checkpointing:
        problems.append("train.gradient_checkpointing: saves nothing where no tower trains; leave it out.")
    return problems


def exports_of(config: RunConfig, *, trains_text: bool) -> tuple[Export, ...]:
    """Returns the files that a run writes: those of the config, or all that can hold what it trains."""
    if config.export is not None:
        return config.export
    exports = default_exports(config.model.kind, config.method.kind, dora=trains_dora(config.method))
    towers = config.method.towers if config.method.kind == "lora" else None
    left_out = {
        "peft": towers is not None and towers.temperature,  # PEFT has no place for it
        "clip_text_encoder": not trains_text,  # it would be the base's
    }
    return tuple(export for export in exports if not left_out.get(export.kind, False))


def _class_conflicts(config: RunConfig) -> list[str]:
    """Returns where the class of a subject cannot be kept as it is."""
    sets = [dataset for _, dataset in subjects(config.dataset)]
    if any(dataset.class_pictures for dataset in sets) and config.model.kind != "sd1":
        return [f"dataset.class_pictures: model {config.model.kind!r} does not draw; leave it out."]
    if config.objective.kind != "denoising" or config.objective.preservation is None:
        return []
    if config.method.kind == "textual_inversion":
        return ["objective.preservation: textual inversion moves no word but its own; leave it out."]
    prompt = config.objective.preservation.prompt
    words = [("trigger_word", config.trigger_word), *(("dataset.token", dataset.token) for dataset in sets)]
    return [
        f"objective.preservation.prompt: {prompt!r} has {name} {word!r}, which would keep it from being learned."
        for name, word in words
        if word is not None and has_word(prompt, word)
    ]


def _mask_conflicts(config: RunConfig) -> list[str]:
    """Returns where masks would have no effect or cannot be."""
    if config.masks is None:
        return []
    problems = []
    if config.objective.kind != "denoising":
        problems.append(f"masks: objective {config.objective.kind!r} looks at whole pictures; leave masks out.")
    kinds = sorted({layout.kind for layout in layouts(config.dataset)} & {"cifar10", "hub"})
    if config.masks.source == "files" and kinds:
        problems.append(f"masks.source: the pictures of dataset {kinds[0]!r} are not files that masks can lie beside.")
    return problems
