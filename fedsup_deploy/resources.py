"""Where the shipped profiles and configs are: at the repository's top level, or inside an installed package."""

import warnings
from pathlib import Path

from fedsup_deploy import places
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.files import is_file
from fedsup_deploy.registry import nearest

_PACKAGE = Path(__file__).parent
_WORDS = {"profiles": "profile", "configs": "config", "configs/spaces": "search space"}
#: What a user makes more of: files of these kinds are also found, by name, below the current folder.
_OWN = ("profiles",)


class InPlaceOfShipped(UserWarning):
    """A name of a shipped file means one in the current folder, which may be anybody's."""


def shipped_folder(kind: str) -> Path:
    """Return the folder of shipped files: `profiles`, `configs` or `configs/spaces`."""
    installed = _PACKAGE / "shipped" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def is_installed(path: Path) -> bool:
    """Return whether a file is part of the installed package, where nobody should write."""
    return _PACKAGE / "shipped" in path.resolve().parents


def shipped_names(kind: str) -> list[str]:
    """Return the names (file stems) shipped under `kind`, sorted."""
    return sorted(path.stem for path in shipped_folder(kind).glob("*.yaml"))


def known_names(kind: str) -> list[str]:
    """Return the names that `find` knows: those shipped, then others of the user's own."""
    shipped = shipped_names(kind)
    own = sorted(path.stem for path in _own_folder(kind).glob("*.yaml")) if kind in _OWN else []
    return [*shipped, *(name for name in own if name not in shipped)]


def find(kind: str, name_or_path: str | Path, *, beside: Path | None = None) -> Path:
    """Return the file a user means by a name or a path.

    Args:
        kind: `profiles`, `configs` or `configs/spaces`.
        name_or_path: The name of a profile below `profiles/` in the current folder, a shipped name (`jetson-nano`), or
            a path to a YAML file.
        beside: A folder that relative paths may also be relative to: that of the file which names this one.

    Raises:
        ConfigError: Neither a file nor a shipped name; the message names the nearest.

    Side effects: Warns (`InPlaceOfShipped`) where a file of the user's own stands in for a shipped one.
    """
    text, word = expanded(name_or_path), _WORDS[kind]
    candidates = [Path(text)]
    if not text.endswith((".yaml", ".yml")):
        folders = [*([_own_folder(kind)] if kind in _OWN else []), shipped_folder(kind)]
        candidates = [folder / f"{text}.yaml" for folder in folders]
    if beside is not None and not candidates[0].is_absolute():
        candidates.insert(0, beside / candidates[0])
    for candidate in candidates:
        if is_file(candidate):
            shipped = shipped_folder(kind) / f"{text}.yaml"
            if kind in _OWN and candidate != shipped and shipped.is_file() and not candidate.samefile(shipped):
                warnings.warn(
                    f"{word} {text}: {candidate} is used, not the shipped one", InPlaceOfShipped, stacklevel=2
                )
            return candidate
    raise ConfigError(f"no {word} {text!r}: no such file or shipped name{nearest(text, known_names(kind))}")


def expanded(name_or_path: str | Path) -> str:
    """Return what `places.expanded` makes of a path; a name stays as it is.

    Raises:
        ConfigError: There is no such home folder.
    """
    try:
        return places.expanded(str(name_or_path))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _own_folder(kind: str) -> Path:
    return Path(kind)


def check_name(name: str) -> None:
    """Refuse a name before any work if no file can have it, or no file of ours, which are UTF-8, could hold it.

    Raises:
        ConfigError: So it is; maybe only because this process reads names of files in another encoding.
    """
    if "\0" in name:
        raise ConfigError(f"{name}: no file can have this name")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{name}: not UTF-8 in this locale; rename it, or set PYTHONUTF8=1") from error
