"""Writes docs/options.md from the config classes: python docs/make_options.py"""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path
from typing import Any

from limner.config import RunConfig
from limner.core.config import Config

TARGET = Path(__file__).parent / "options.md"
HEAD = """# Every key of a recipe

Made from the config classes by `python docs/make_options.py`; a test keeps it current. Any key can be set on the
command line too, as in `limner train RECIPE.yaml train.steps=500 method.rank=8`. Unknown keys are refused.
"""


def config_classes(annotation: Any) -> list[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [found for inner in typing.get_args(annotation) for found in config_classes(inner)]


def type_name(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return f"the keys of `kind: {annotation.model_fields['kind'].default}`"
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_name(inner[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return ", ".join(type_name(one) for one in inner if one is not type(None))
    if origin is tuple:
        one = type_name(inner[0])
        return f"list of {one}" if inner[-1] is Ellipsis else f"{len(inner)} x {one}"
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return f"`{kind_of(annotation) or annotation.__name__.lower()}`"
    names = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}
    return names.get(annotation, str(annotation))


def kind_of(cls: type[Config]) -> str:
    return str(typing.get_args(cls.model_fields["kind"].annotation)[0]) if "kind" in cls.model_fields else ""


def default(field: Any) -> str:
    if field.is_required():
        return "must be set"
    value = field.default
    if value is None:
        return "unset"
    if isinstance(value, Config):
        return "its defaults"
    shown = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
    if isinstance(shown, tuple):
        shown = "[" + ", ".join(str(item) for item in shown) + "]"
    return f"`{shown}`" if str(shown) else "empty"


def sentence(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip()


def section(name: str, cls: type[Config], heading: str) -> list[str]:
    lines = [
        f"{heading} `{name}`",
        "",
        sentence(cls.__doc__),
        "",
        "| key | value | default | |",
        "| --- | --- | --- | --- |",
    ]
    return [*lines, *rows(cls), ""]


def rows(cls: type[Config], prefix: str = "") -> list[str]:
    """Returns a row per key; the keys of a config inside another stand below it, written with a dot."""
    lines = []
    for key, field in cls.model_fields.items():
        if key == "kind" and len(typing.get_args(field.annotation)) == 1:
            continue
        inner = [one for one in config_classes(field.annotation) if not kind_of(one)]
        below = "list of the keys below" if typing.get_origin(field.annotation) is tuple else "the keys below"
        shown = ("unset" if field.default is None else "as below") if inner else default(field)
        if field.is_required():
            shown = "must be set"
        value = below if inner else type_name(field.annotation)
        lines.append(f"| `{prefix}{key}` | {value} | {shown} | {sentence(field.description)} |")
        for one in inner:
            lines += rows(one, f"{prefix}{key}.")
    return lines


def render() -> str:
    lines = [HEAD]
    plain = ["## At the top", "", "| key | value | default | |", "| --- | --- | --- | --- |"]
    sections: list[str] = []
    for key, field in RunConfig.model_fields.items():
        classes = config_classes(field.annotation)
        if not classes:
            plain.append(
                f"| `{key}` | {type_name(field.annotation)} | {default(field)} | {sentence(field.description)} |"
            )
        elif len(classes) == 1:
            sections += section(key, classes[0], "##")
        else:
            sections += [f"## `{key}`", "", sentence(field.description), ""]
            for cls in classes:
                (kind,) = typing.get_args(cls.model_fields["kind"].annotation)
                sections += section(f"{key}: kind: {kind}", cls, "###")
    return "\n".join([*lines, *plain, "", *sections]).rstrip() + "\n"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
