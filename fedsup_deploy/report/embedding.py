"""Text of others in a page or a picture: it is shown, and never read as markup, script or a command to a screen.

Owns the ways in: values of the template, JSON documents in a script element, and plots, here or in pictures.
"""

import json

from pydantic import JsonValue

from fedsup_deploy.ondevice.printable import printable

#: What would end the element, or a line of script, as JSON writes it otherwise.
_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def shown(value: object) -> object:
    """Return a value of a template; of a text all that is no sign is an escape that can be read."""
    return printable(value) if type(value) is str else value


def readable(document: JsonValue) -> JsonValue:
    """Return a JSON document whose texts, keys as well, can be shown."""
    if isinstance(document, str):
        return printable(document)
    if isinstance(document, dict):
        return {printable(key): readable(value) for key, value in document.items()}
    if isinstance(document, list):
        return [readable(value) for value in document]
    return document


def embedded(document: JsonValue) -> str:
    """Return a JSON document as it can stand inside a script element, in ASCII."""
    text = json.dumps(readable(document), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)
