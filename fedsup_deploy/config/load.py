"""Strict YAML to a validated model and back, for configs, spaces, profiles and manifests alike.

Owns the way in and out of files: every error names the file and line, or the `--set`, that it comes from. It never
guesses or converts a value: `"3"` is not an integer and `1` is not `true`.
"""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, JsonValue, ValidationError

from fedsup_deploy.config import problems, reader
from fedsup_deploy.config.document import Document, display, dotted, show
from fedsup_deploy.config.reader import KeyPath
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.ondevice.reading import read_bytes

__all__ = ["Document", "apply_overrides", "dump", "load_yaml", "validate"]

Model = TypeVar("Model", bound=BaseModel)

#: Of a YAML file: a hundred times the largest of ours, and read in seconds.
MOST_BYTES: Final = 2**20


def load_yaml(path: Path) -> Document:
    """Read a YAML file that holds one mapping.

    Raises:
        ConfigError: The file cannot be read, is empty, is not plain YAML or is not a mapping; `file:line: ...`.
    """
    name = display(path)
    try:
        content = read_bytes(path, MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise ConfigError(f"cannot read {name}: {error}; expected a config, space, profile or architecture") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}:{line}: not UTF-8 text; save the file as UTF-8") from error
    data, lines = reader.read(text, lambda line: f"{name}:{line}")
    if data is None:
        raise ConfigError(f"{name}:1: the file is empty, expected 'key: value' lines")
    if not isinstance(data, dict):
        raise ConfigError(f"{name}:1: got {show(data)}, expected 'key: value' lines")
    return Document(path, data, lines, {})


def validate(document: Document, model: type[Model]) -> Model:
    """Return the document as a model, strictly: no value is converted.

    Raises:
        ConfigError: Something is missing, unknown, of another type or out of range. One line: the first problem in
            the order of the file, and how many more there are.
    """
    try:
        # As JSON: strict for scalars, while a list may become a tuple and text a path.
        return model.model_validate_json(json.dumps(document.data, allow_nan=False), strict=True)
    except ValidationError as error:
        raise ConfigError(problems.describe(error, model, document)) from error


def apply_overrides(document: Document, assignments: Sequence[str]) -> Document:
    """Return a copy in which `a.b=value` assignments replace or add values; the last one of a key wins.

    Args:
        document: What was loaded.
        assignments: `training.rounds=3`, `strategy.tiers.0.params=[1000, 2000]`: keys or list indices, then a value
            in YAML. Whether a key exists is only known to the model, so `validate` says it, naming the `--set`.

    Raises:
        ConfigError: An assignment is malformed, goes through something that holds no keys, or names an entry that a
            list has not.
    """
    data = copy.deepcopy(document.data)
    lines, overrides = dict(document.lines), dict(document.overrides)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        words = key.strip().split(".")
        if not equals or not all(words):
            raise ConfigError(f"--set {assignment}: expected key.path=value, such as training.rounds=3")
        label = f"--set {key.strip()}"
        value, _ = reader.read(text, lambda _, label=label: label)  # type: ignore[misc]
        path, created = _assign(data, words, value, label)
        for origins in (lines, overrides):
            for below in [known for known in origins if known[: len(path)] == path]:
                del origins[below]
        overrides |= dict.fromkeys((*created, path), label)
    return Document(document.path, data, lines, overrides)


def dump(model: BaseModel) -> str:
    """Return a model as YAML, in the order of its fields, such that reading it gives the same model."""
    return yaml.dump(
        model.model_dump(mode="json", by_alias=True), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120
    )


def _assign(data: dict[str, Any], words: list[str], value: JsonValue, label: str) -> tuple[KeyPath, list[KeyPath]]:
    """Set one value in place. Returns its path, and those of the mappings that had to be made on the way."""
    node: Any = data
    path: KeyPath = ()
    created = []
    for word in words[:-1]:
        step = _step(node, word, path, label)
        path = (*path, step)
        if isinstance(node, dict) and step not in node:
            node[step] = {}
            created.append(path)
        node = node[step]
    step = _step(node, words[-1], path, label)
    node[step] = value
    return (*path, step), created


def _step(node: Any, word: str, path: KeyPath, label: str) -> str | int:
    if isinstance(node, dict):
        return word
    name = dotted(path)
    if not isinstance(node, list):
        raise ConfigError(f"{label}: {name} is {show(node)}, it has no key {word!r}")
    if not (word.isascii() and word.isdecimal()) or int(word) >= len(node):
        raise ConfigError(f"{label}: got {word!r}, expected the index of an entry of {name}, below {len(node)}")
    return int(word)


class _Dumper(yaml.SafeDumper):
    """Quotes what our reader or a YAML 1.1 reader would take for something other than text; writes no aliases."""

    def ignore_aliases(self, _data: object) -> bool:
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        style = "'" if not reader.resolves_to_text(data) else None if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)

    def represent_entries(self, data: list[object]) -> yaml.SequenceNode:
        is_short = not any(isinstance(entry, (dict, list)) for entry in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=is_short)


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_representer(list, _Dumper.represent_entries)
