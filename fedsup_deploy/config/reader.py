"""The YAML we read: maps with text keys, lists, text, integers, finite numbers, true, false and null. Nothing else.

Owns the meaning of a scalar: that of the YAML 1.2 core schema, so `1e-4` is a number and `on` is text. Anchors,
aliases and tags are refused, and so are duplicate keys. It never builds an object that JSON could not hold.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Any, Final

import yaml
from pydantic import JsonValue

from fedsup_deploy.errors import ConfigError

KeyPath = tuple[str | int, ...]

_MAX_DEPTH: Final = 32
#: Keys, values and entries of one document: a profile with hundreds of measurements has fewer, and each takes time.
_MAX_NODES: Final = 50_000
_CONSTANTS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_NUMBER: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def read(text: str, where: Callable[[int], str]) -> tuple[JsonValue, dict[KeyPath, int]]:
    """Return the JSON-like value a YAML text stands for, and the line of every key and list entry.

    Args:
        text: One YAML document; empty text is null.
        where: Names a line (from 1) at the start of an error message.

    Raises:
        ConfigError: The text is not YAML, or uses more of YAML than we read.
    """
    lines: dict[KeyPath, int] = {}
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        value = None if node is None else _value(node, (), lines)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{where(line)}: character U+{ord(text[error.position]):04X} is not allowed in YAML"
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        number, problem = mark.line + 1 if mark else 1, error.problem
        if not isinstance(error, _Refused):
            number, problem = _not_yaml(text, error, number)
        raise ConfigError(f"{where(number)}: {problem}") from error
    return value, lines


def resolves_to_text(plain: str) -> bool:
    """Return whether a plain (unquoted) scalar is read as text."""
    return plain not in _CONSTANTS and not any(p.fullmatch(plain) for p in (_INTEGER, _NUMBER, _NOT_FINITE))


class _Refused(yaml.MarkedYAMLError):
    """Valid YAML that we do not read."""

    def __init__(self, problem: str, node_or_event: Any) -> None:
        super().__init__(problem=problem, problem_mark=node_or_event.start_mark)


class _Loader(yaml.SafeLoader):
    """Only composes: no scalar is resolved, nothing is constructed."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Refused(
                "anchors and aliases (&x, *x) are not allowed; write the value out, or quote the text", event
            )
        if getattr(event, "tag", None) is not None:
            raise _Refused(f"tag {event.tag!r} is not allowed; write plain YAML, or quote the text", event)
        if self._depth == _MAX_DEPTH:
            raise _Refused(f"nested deeper than {_MAX_DEPTH} levels", event)
        if self._nodes == _MAX_NODES:
            raise _Refused(f"more than {_MAX_NODES:,} keys and values", event)
        self._nodes += 1
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _value(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> JsonValue:
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            lines[(*path, index)] = child.start_mark.line + 1
        return [_value(child, (*path, index), lines) for index, child in enumerate(node.value)]
    mapping: dict[str, JsonValue] = {}
    for key_node, child in node.value:
        if isinstance(node, yaml.MappingNode) and node.flow_style:
            _refuse_decimal_comma(key_node, child, mapping)
        key = _key(key_node)
        if key in mapping:
            raise _Refused(f"key {key!r} is already given on line {lines[(*path, key)]}", key_node)
        lines[(*path, key)] = key_node.start_mark.line + 1
        mapping[key] = _value(child, (*path, key), lines)
    return mapping


def _not_yaml(text: str, error: yaml.MarkedYAMLError, last: int) -> tuple[int, str]:
    """Return the line of a syntax error that was noticed on the line `last`, and what it is."""
    first = error.context_mark.line + 1 if error.context_mark else last
    for number, line in enumerate(text.split("\n")[first - 1 : last], start=first):
        if (space := _odd_space(line)) is not None:
            return number, f"not valid YAML: it holds a {space}; replace that by a plain space"
    context = f" {error.context}" if error.context else ""
    return last, f"not valid YAML{context}: {error.problem}"


def _odd_space(line: str) -> str | None:
    """Return the name of a character that looks like a plain space, or like nothing, and is neither to YAML."""
    odd = (character for character in line if unicodedata.category(character) in {"Zs", "Cf"} and character != " ")
    return next((unicodedata.name(character, "space").lower() for character in odd), None)


def _refuse_decimal_comma(key: yaml.Node, value: yaml.Node, before: dict[str, JsonValue]) -> None:
    """Refuse `{x: 0,1}`, which is a map of x and of a key 1 without a value."""
    last = list(before.items())[-1:]
    is_number = isinstance(key, yaml.ScalarNode) and key.style is None and _INTEGER.fullmatch(key.value) is not None
    is_bare = isinstance(value, yaml.ScalarNode) and value.style is None and value.value == ""
    if is_number and is_bare and last and type(last[0][1]) is int:
        name, whole = last[0]
        raise _Refused(f"{name}: got {whole},{key.value}, expected a number with a point: {whole}.{key.value}", key)


def _key(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode) and node.style is None:
        if node.value == "<<":
            raise _Refused("merge keys (<<) are not allowed; write the keys out", node)
        if (space := _odd_space(node.value)) is not None:
            raise _Refused(f"the key {node.value!r} holds a {space}; replace that by a plain space", node)
    key = _scalar(node) if isinstance(node, yaml.ScalarNode) else None
    if not isinstance(key, str):
        what = node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"
        raise _Refused(f"got the key {what}, expected text; put it in quotes", node)
    return key


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text: str = node.value
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _Refused("half a surrogate pair is not text", node)
    if node.style is not None or resolves_to_text(text):
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        # The length is looked at first: turning a huge literal into an integer takes quadratic time.
        number = int(text, 0 if text[:2] in {"0o", "0x"} else 10) if len(text) <= 40 else None
        if number is None or not -(2**63) <= number < 2**63:
            raise _Refused(f"got {text[:20]}..., expected an integer of at most 64 bits", node)
        return number
    value = float(text) if _NUMBER.fullmatch(text) else float("inf")
    if value in {float("inf"), float("-inf")}:
        raise _Refused(f"got {text[:20]}, expected a finite number", node)
    return value
