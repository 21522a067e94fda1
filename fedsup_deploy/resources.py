"""Where the shipped profiles and configs are: at the repository's top level, or inside an installed package."""

from pathlib import Path

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.registry import nearest

_PACKAGE = Path(__file__).parent


def shipped_folder(kind: str) -> Path:
    """Return the folder of shipped files: `profiles`, `configs` or `configs/spaces`."""
    installed = _PACKAGE / "shipped" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def shipped_names(kind: str) -> list[str]:
    """Return the names (file stems) shipped under `kind`, sorted."""
    return sorted(path.stem for path in shipped_folder(kind).glob("*.yaml"))


def find(kind: str, name_or_path: str | Path, *, beside: Path | None = None) -> Path:
    """Return the file a user means by a name or a path.

    Args:
        kind: `profiles`, `configs` or `configs/spaces`.
        name_or_path: A shipped name (`jetson-nano`), or a path to a YAML file.
        beside: A folder that relative paths may also be relative to: that of the file which names this one.

    Raises:
        ConfigError: Neither a file nor a shipped name; the message names the nearest.
    """
    text = str(name_or_path)
    candidates = [Path(text)] if text.endswith((".yaml", ".yml")) else [shipped_folder(kind) / f"{text}.yaml"]
    if beside is not None and not candidates[0].is_absolute():
        candidates.insert(0, beside / candidates[0])
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    word = {"profiles": "profile", "configs": "config", "configs/spaces": "search space"}[kind]
    raise ConfigError(f"no {word} {text!r}: no such file or shipped name{nearest(text, shipped_names(kind))}")
