"""The index of a folder of bundles, on disk: read, and written in one step whenever bundles are made.

Owns that nothing stands in it that is not there: a bundle is listed with the hash of its SHA256SUMS, and whoever reads
or writes the file passes over those that have gone or were replaced since.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from fedsup_deploy import files, places
from fedsup_deploy.artifact import document
from fedsup_deploy.artifact.index import FILENAME, SCHEMA, Index, IndexedBundle, RefusedBundle
from fedsup_deploy.artifact.index_table import TABLE, render_table
from fedsup_deploy.artifact.manifest import FILENAME as MANIFEST
from fedsup_deploy.errors import ArtifactError, as_output_error
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.ondevice.printable import reason_of
from fedsup_deploy.ondevice.reading import MOST_BYTES_OF_JSON, read_bytes

#: Folders of `PROFILE/ARCH_ID`.
_DEPTH: Final = 2


def sums_of(folder: Path) -> str:
    """Return the hash by which a bundle is known.

    Raises:
        CheckError: Its SHA256SUMS is missing or cannot be read.
    """
    return files.sha256_of_bytes(bundle_files.read_text_file(folder, bundle_files.SUMS))


def load_index(folder: Path) -> Index | None:
    """Return what a folder's index says of the bundles that are there; None without an index.

    Raises:
        ArtifactError: It is damaged, or none of its bundles is there.
    """
    path = folder / FILENAME
    try:
        content = read_bytes(path, MOST_BYTES_OF_JSON)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read: {reason_of(error)}; export again") from error
    index = document.from_text(Index, content, SCHEMA, str(path), "export again")
    bundles = tuple(_present(folder, index))
    if not bundles:
        raise ArtifactError(f"{path}: none of its bundles is there as it was made; export again")
    return index.model_copy(update={"bundles": bundles})


def bundles_in(folder: Path) -> list[Path]:
    """Return the bundles of a folder of bundles: those of its index, or without one all that lie there.

    Raises:
        ArtifactError: As of `load_index`.
    """
    index = load_index(folder)
    if index is not None:
        return [folder / bundle.folder for bundle in index.bundles]
    patterns = (f"{'*/' * depth}{MANIFEST}" for depth in range(1, _DEPTH + 1))
    return [manifest.parent for pattern in patterns for manifest in sorted(folder.glob(pattern))]


def drop_from_index(folder: Path, profiles: Collection[str]) -> None:
    """Take device classes out of an index, where there is one: their bundles are about to be replaced.

    Raises:
        OutputError: It cannot be written.
    """
    if (folder / FILENAME).exists():
        _write(folder, profiles, (), ())


def add_to_index(
    folder: Path, bundles: Sequence[IndexedBundle] = (), refused: Sequence[RefusedBundle] = ()
) -> Path | None:
    """Say in an index what device classes have now; what else it says stays, as long as it is there.

    Args:
        folder: Where all of the bundles are.
        bundles: What was made.
        refused: What was not.

    Returns:
        The file; None where there is no bundle, and so no index.

    Raises:
        OutputError: It cannot be written.
    """
    return _write(folder, (), bundles, refused)


def _write(
    folder: Path, gone: Collection[str], bundles: Sequence[IndexedBundle], refused: Sequence[RefusedBundle]
) -> Path | None:
    path, table = folder / FILENAME, folder / TABLE
    with places.hold(path, brief=True):  # from here on nobody else changes it
        try:
            before = load_index(folder)
        except ArtifactError:  # what is damaged is replaced
            before = None
        if before is not None:
            known = {each.folder for each in bundles}
            bundles = [
                *(each for each in before.bundles if each.profile not in gone and each.folder not in known),
                *bundles,
            ]
            refused = [*(each for each in before.refused if each.profile not in gone), *refused]
        with as_output_error(table):
            table.unlink(missing_ok=True)  # first, so that it never says more than the index
        if not bundles:
            with as_output_error(path):
                path.unlink(missing_ok=True)
            return None
        index = Index(
            schema=SCHEMA,
            bundles=tuple(sorted(bundles, key=lambda each: each.profile)),
            refused=tuple(sorted(refused, key=lambda each: each.profile)),
        )
        files.write_text(path, document.to_text(index))
        files.write_text(table, render_table(index))
        return path


def _present(folder: Path, index: Index) -> Iterator[IndexedBundle]:
    for bundle in index.bundles:
        try:
            is_there = sums_of(folder / bundle.folder) == bundle.sums
        except bundle_files.CheckError:
            is_there = False
        if is_there:
            yield bundle
