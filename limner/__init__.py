"""Limner fine-tunes text-to-image models on your own pictures, and proves what changed.

    import limner
    config = limner.load_config("recipes/sd1_lora.yaml", ["dataset.path=photos"])
    result = limner.finetune(config)

The names below are imported when they are first used, so that ``import limner`` and ``limner --help`` stay instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limner.blend_curve import blend
    from limner.config import RunConfig, load_config
    from limner.core.errors import UserError
    from limner.drawing import draw
    from limner.measuring import measure
    from limner.preflight import Plan, plan
    from limner.reading.captioning import caption
    from limner.reading.scoring import score
    from limner.reading.searching import search
    from limner.run import RunResult, finetune

__version__ = "0.1.0"
__all__ = ["Plan", "RunConfig", "RunResult", "UserError", "__version__"]
__all__ += ["blend", "caption", "draw", "finetune", "load_config", "measure", "plan", "score", "search"]

_HOME = {
    "RunConfig": "limner.config",
    "load_config": "limner.config",
    "UserError": "limner.core.errors",
    "blend": "limner.blend_curve",
    "draw": "limner.drawing",
    "measure": "limner.measuring",
    "Plan": "limner.preflight",
    "plan": "limner.preflight",
    "RunResult": "limner.run",
    "caption": "limner.reading.captioning",
    "finetune": "limner.run",
    "score": "limner.reading.scoring",
    "search": "limner.reading.searching",
}


def __getattr__(name: str) -> Any:
    """Imports a public name on its first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'limner' has no attribute {name!r}")
    from importlib import import_module

    value: Any = vars(import_module(_HOME[name]))[name]
    globals()[name] = value
    return value
