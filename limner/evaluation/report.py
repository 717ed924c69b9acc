"""What a report of a run measures its pictures with, and whether one is made at the run's end."""

from __future__ import annotations

from typing import Literal

from limner.core.config import Config

LEAST_SECONDS = 600.0
"""A report may take so long after a training that was shorter."""


class Report(Config):
    """What limner compare measures, and whether the run's end does the same."""

    at_end: Literal["auto", "always", "never"] = "auto"
    """When the run ends, draw with its weights and with the base model, measure both, and write the page OUT/report.
    auto leaves it out where drawing would take longer than the training did and longer than ten minutes."""
    clip: str = "openai/clip-vit-base-patch32"
    """The CLIP model that says how well pictures fit their prompts and how like the training pictures they are, as in
    model.path; empty: none."""
    vision: str = "facebook/dinov2-small"
    """The DINO or DINOv2 that says how like the training pictures they are: a Hub id or a folder; empty: none."""
    download: bool = False
    """Download these two where they are not on the disk yet. Otherwise what they measure is left out, and the report
    says so."""

    def plan(self, *, keep_best: bool) -> str:
        """Returns what will be done at the end, for people."""
        if self.at_end == "never":
            return "none at the end; limner compare makes one afterwards"
        models = "all checkpoints that stay" if keep_best else "the exported and the last weights"
        always = keep_best or self.at_end == "always"
        when = "" if always else ", unless drawing takes longer than the training and than ten minutes"
        return f"at the end, with pictures by the base model and by {models}{when}"

    def most_seconds(self, training: float, *, keep_best: bool) -> float | None:
        """Returns how long the pictures may take after a training of so many seconds; None: as long as they take."""
        return None if keep_best or self.at_end == "always" else max(LEAST_SECONDS, training)
