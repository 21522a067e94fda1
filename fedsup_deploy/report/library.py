"""The plotting library: Vega-Lite, by way of vl-convert. Nobody else imports it.

Owns what is asked of it: the program that draws plots in a page, and plots as pictures. Both need no network.
"""

import functools
import importlib.util
import json
from typing import Final

from fedsup_deploy.errors import DependencyError
from fedsup_deploy.report import look
from fedsup_deploy.report.embedding import readable
from fedsup_deploy.report.figure import WIDTH, Figure

#: What is imported, and which package brings it.
NEEDED: Final = {"jinja2": "jinja2", "vl_convert": "vl-convert-python"}
INSTALL: Final = "pip install 'fedsup-deploy[report]'"
#: Pixels of a picture for each of the plot's.
_SCALE: Final = 2.0


def missing() -> list[str]:
    """Return the packages that a report needs and that are not installed."""
    return [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]


def require() -> None:
    """Fail now if a report cannot be made.

    Raises:
        DependencyError: A library is not installed; the message says how to install it.
    """
    if found := missing():
        raise DependencyError(f"report: {', '.join(found)} is not installed; run: {INSTALL}")


@functools.cache
def program() -> str:
    """Return the JavaScript that draws Vega-Lite in a page, as the function `vegaEmbed`."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def versions() -> str:
    """Return which releases draw."""
    import vl_convert

    return f"Vega {vl_convert.get_vega_version()}, Vega-Lite {vl_convert.get_vegalite_versions()[-1]}"


def svg(figure: Figure) -> str:
    """Return a plot under its title as SVG, light."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(_pictured(figure)))


def png(figure: Figure) -> bytes:
    """Return a plot under its title as PNG, light."""
    import vl_convert

    return bytes(vl_convert.vegalite_to_png(_pictured(figure), scale=_SCALE))


def _pictured(figure: Figure) -> str:
    # Also because the library ends the whole process at a control character.
    plot = readable({"width": WIDTH, "title": figure.title, **figure.spec, "padding": 12})
    assert isinstance(plot, dict), "it was one before"
    return json.dumps({**plot, "config": look.config(look.LIGHT)})
