"""What a report of a run measures its pictures with, and whether one is made at the run's end."""

from __future__ import annotations

from limner.core.config import Config


class Report(Config):
    """What limner compare measures, and whether the run's end does the same."""

    at_end: bool = True
    """When the run ends, draw with its weights and with the base model, measure both, and write the page OUT/report."""
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
        if not self.at_end:
            return "none at the end; limner compare makes one afterwards"
        models = "all checkpoints that stay" if keep_best else "the exported and the last weights"
        return f"at the end, with pictures of some prompts by the base model and by {models}; report.at_end=false: none"
