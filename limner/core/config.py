"""YAML and overrides to a typed config: every problem at once, each with its place and a suggestion.

The values of a config are documented by the string below each field; that string is shown to users.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from limner.core.errors import ConfigError, UserError

MAX_RECIPE_BYTES = 1_000_000


class Config(BaseModel):
    """A frozen set of choices. Unknown keys are refused; the string below a field documents it."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
    )


C = TypeVar("C", bound=Config)
Origins = dict[str, str]


# ------------------------------------------------------------------------------------------------- YAML, strictly
class _Loader(yaml.SafeLoader):
    """YAML without its surprises: no duplicate keys, no aliases, ``1e-4`` is a number, ``no`` and ``on`` are words."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not supported", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is no word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_DROPPED = (
    "tag:yaml.org,2002:bool",
    "tag:yaml.org,2002:float",
    "tag:yaml.org,2002:timestamp",
    "tag:yaml.org,2002:merge",
)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _DROPPED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"([-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, *, where: str) -> tuple[Any, dict[str, int]]:
    """Returns the value of a YAML text and the line (from 1) of each dotted key.

    A key with nothing behind it is refused: it could mean none, or the defaults of what stands there.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        value = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        place = f"{where}:{mark.line + 1}" if mark else where
        problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else str(error).splitlines()[0]
        raise UserError(f"not valid YAML: {problem}.", where=place, fix="Mend that line.") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise UserError(f"a number cannot be read: {error}.", where=where, fix="Mend that number.") from None
    except RecursionError:
        raise UserError("nested too deeply.", where=where, fix="A recipe has three levels at most.") from None
    finally:
        loader.dispose()
    lines: dict[str, int] = {}
    _collect_lines(node, "", lines)
    if empty := _empty_keys(node, ""):
        raise ConfigError(
            [
                f"{key}: nothing stands behind it. Write null for none, {{}} for the defaults, or leave it out."
                for key in empty
            ],
            where=where,
        )
    return value, lines


def _empty_keys(node: Any, prefix: str) -> list[str]:
    """Returns the dotted keys of a mapping whose value was left away."""
    if not isinstance(node, yaml.MappingNode):
        return []
    found = []
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        left_away = isinstance(value, yaml.ScalarNode) and value.value == "" and value.style is None
        found += [path] if left_away else _empty_keys(value, f"{path}.")
    return found


def _collect_lines(node: Any, prefix: str, lines: dict[str, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = f"{prefix}{key.value}"
            lines[path] = key.start_mark.line + 1
            _collect_lines(value, f"{path}.", lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[f"{prefix}{index}"] = value.start_mark.line + 1
            _collect_lines(value, f"{prefix}{index}.", lines)


# --------------------------------------------------------------------------------------------- recipe to config
def read_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], Origins]:
    """Returns the raw values of a recipe file with the ``key=value`` overrides in place, and where each came from."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror}.", where=str(path), fix="Name a recipe file (YAML)."
        ) from None
    if len(data) > MAX_RECIPE_BYTES:
        raise UserError(f"has {len(data)} bytes, too many for a recipe.", where=str(path), fix="Name a recipe file.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text (byte {error.start}).", where=str(path), fix="Save it as UTF-8.") from None
    values, lines = parse_yaml(text, where=str(path))
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"holds a {type(values).__name__}, not keys with values.", where=str(path), fix="See recipes/.")
    origins = {key: f"{path.name}:{line}" for key, line in lines.items()}
    for override in overrides:
        _apply_override(values, origins, override)
    return values, origins


def _apply_override(values: dict[str, Any], origins: Origins, override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise UserError(f"{override!r} is not key=value.", where="command line", fix="For instance train.steps=500.")
    if not text.strip():
        fix = f"Write {key}=null for none, or {key}='\"\"' for an empty text."
        raise UserError(f"{override!r} has nothing behind its =.", where="command line", fix=fix)
    value, _ = parse_yaml(text, where=f"command line, {key}")
    target = values
    for part in parts[:-1]:
        inner = target.setdefault(part, {})
        if inner is None:
            inner = target[part] = {}
        if not isinstance(inner, dict):
            fix = "Give the whole list, as in samples.prompts='[a dog, a cat]'." if isinstance(inner, list) else ""
            raise UserError(f"{part!r} in {key!r} holds no keys of its own.", where="command line", fix=fix)
        target = inner
    target[parts[-1]] = value
    for old in [name for name in origins if name == key or name.startswith(f"{key}.")]:
        del origins[old]
    _mark_origin(value, key, origins)


def _mark_origin(value: Any, key: str, origins: Origins) -> None:
    origins[key] = "command line"
    if isinstance(value, dict):
        for name, inner in value.items():
            _mark_origin(inner, f"{key}.{name}", origins)


def validate(cls: type[C], values: Mapping[str, Any], *, where: str, origins: Origins | None = None) -> C:
    """Returns the config, or raises one :class:`ConfigError` that lists every problem."""
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError([_sentence(cls, item, origins or {}) for item in error.errors()], where=where) from None


def _sentence(cls: type[Config], error: ErrorDetails, origins: Origins) -> str:
    owner, path, found = _locate(cls, error["loc"])
    kind = error["type"]
    if kind == "union_tag_invalid":
        path.append("kind")
    dotted = ".".join(path)
    origin = origins.get(dotted) or origins.get(".".join(path[:-1]))
    place = f"{dotted} ({origin})" if origin else dotted
    if kind == "extra_forbidden":
        return f"{place}: unknown key{_did_you_mean(path[-1], _keys(owner))}"
    if kind == "missing":
        return f"{place}: must be set. {_describe(owner, path[-1])}".strip()
    if kind == "union_tag_invalid":
        context = error["ctx"]
        expected = [word.strip(" '") for word in str(context["expected_tags"]).split(",")]
        return f"{place}: {context['tag']!r} is unknown{_did_you_mean(str(context['tag']), expected)}"
    if kind == "union_tag_not_found":
        return f"{place}: has no kind. Known: {', '.join(_kind(member) for member in found)}."
    if kind in ("value_error", "assertion_error"):
        message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return f"{place}: {message}" if place else message
    if kind == "literal_error":
        expected = re.findall(r"'([^']*)'", str(error["ctx"]["expected"]))
        return f"{place}: {error['input']!r} is not possible{_did_you_mean(str(error['input']), expected)}"
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{place}: {error['input']!r}: {message}. {_describe(owner, path[-1])}".strip()


def _locate(cls: Any, loc: tuple[int | str, ...]) -> tuple[Any, list[str], list[type[Config]]]:
    """Follows pydantic's location; returns the owning class, the user's own keys, and the classes possible there.

    Pydantic puts the tag of a union into the location ("method", "lora", "rank"); the user never wrote it there.
    """
    owner, path, current = cls, [], cls
    for part in loc:
        if isinstance(current, list):  # the members of a union: this part is an index, or the tag
            if isinstance(part, int):
                path.append(str(part))
            else:
                current = next((member for member in current if _kind(member) == part), None)
            continue
        owner = current
        path.append(str(part))
        current = _inner(current, part)
        if isinstance(current, list) and len(current) == 1:
            current = current[0]
    members = current if isinstance(current, list) else [current] if current is not None else []
    return (current if not path else owner), path, members


def _inner(cls: Any, part: int | str) -> Any:
    if isinstance(part, int):  # the place in a list whose entries are of this class
        return cls
    if isinstance(cls, type) and issubclass(cls, Config):
        field = cls.model_fields.get(part)
        return None if field is None else _config_classes(field.annotation)
    return None


def _config_classes(annotation: Any) -> Any:
    """Returns the Config classes that an annotation speaks of (a list), looking into unions, lists and Annotated."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return [annotation] if issubclass(annotation, Config) else []
    found = [member for inner in typing.get_args(annotation) for member in _config_classes(inner)]
    origin = typing.get_origin(annotation)
    if origin in (tuple, list):
        return found
    if origin in (typing.Annotated, typing.Union, types.UnionType):
        return found
    return []


def _kind(cls: type[Config]) -> str:
    return str(typing.get_args(cls.model_fields["kind"].annotation)[0]) if "kind" in cls.model_fields else ""


def _keys(owner: Any) -> list[str]:
    return list(owner.model_fields) if isinstance(owner, type) and issubclass(owner, Config) else []


def _describe(owner: Any, key: str) -> str:
    if key in _keys(owner):
        return " ".join((owner.model_fields[key].description or "").split())
    return ""


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f". Did you mean {close[0]!r}?"
    return f". Known: {', '.join(known)}." if known else "."


# -------------------------------------------------------------------------------------------------- config to YAML
def to_yaml(config: Config, origins: Origins) -> str:
    """Returns the resolved config as YAML, each value with a comment that says where it came from."""
    lines: list[str] = []
    _emit(config.model_dump(mode="json"), "", 0, origins, lines)
    return "\n".join(lines) + "\n"


def _emit(values: Mapping[str, Any], prefix: str, depth: int, origins: Origins, lines: list[str]) -> None:
    for key, value in values.items():
        path = f"{prefix}{key}"
        indent = "  " * depth
        if isinstance(value, dict) and value:
            lines.append(f"{indent}{key}:")
            _emit(value, f"{path}.", depth + 1, origins, lines)
        else:
            text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).removesuffix(
                "\n...\n"
            )
            lines.append(f"{indent}{key}: {text.strip()}  # {origins.get(path, 'default')}")
