"""What a bundle says of itself, computed again: from its files, its graph, and the rules by which it was made.

Hashes tell of accidents. Whoever changes a file can change its hash as well, so what follows from something else is
compared with it. What does not follow from anything in the bundle needs a signature: accuracies, predicted and measured
latencies, memory, names of classes, lineage, and what is in the weights. docs/devices.md has the whole list.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from fedsup_deploy import resources
from fedsup_deploy.artifact import program
from fedsup_deploy.artifact.graph import Shape, check_int8, read_graph
from fedsup_deploy.artifact.manifest import Manifest, TensorSpec
from fedsup_deploy.artifact.model_card import CARD, render_model_card
from fedsup_deploy.artifact.variants import Int8Gate
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.variant import MAIN_INT8
from fedsup_deploy.version import __version__

_NAME_OF_A_NETWORK: Final = re.compile(r"a[0-9a-f]{11}(-refined-[0-9a-f]{8})?")


def check_consistency(folder: Path, manifest: Manifest, sizes: Mapping[str, int], place: Path) -> None:
    """Compare a bundle with what follows from its own content.

    Args:
        folder: Where its files are; they are those of SHA256SUMS.
        manifest: What it says.
        sizes: Bytes of each file.
        place: Where it belongs. Below `PROFILE/ARCH_ID` it must be that; under any other name, as on a device, it may
            be whatever it is.

    Raises:
        ArtifactError: It contradicts itself; the message says where.
    """
    try:
        preprocessing = Preprocessing.from_dict(dict(manifest.preprocessing))
        problems = (
            *_of_the_place(place, manifest),
            *_of_the_architecture(manifest, preprocessing),
            *_of_the_files(manifest, sizes),
            *_of_the_graph(folder / bundle_files.MODEL, manifest),
            *_of_the_int8_graph(folder, manifest),
            *_of_what_was_rendered(folder, manifest, sizes),
        )
    except (ArtifactError, ConfigError) as error:
        raise ArtifactError(f"{place}: {error}") from error
    if problems:
        raise ArtifactError(f"{place}: {problems[0]}; copy or export the bundle again")


def not_compared(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Return the files that another version of this program wrote, which alone could write their text again."""
    if _is_of_this_version(manifest):
        return ()
    return (CARD, *(name for name in program.PROGRAMS if (folder / name).is_file()))


def _is_of_this_version(manifest: Manifest) -> bool:
    """Return whether this version of the program made a bundle, so that it can write card and runner again."""
    return manifest.versions.get("fedsup-deploy") == __version__


def _of_the_place(place: Path, manifest: Manifest) -> Iterator[str]:
    name, above = place.resolve().name, place.resolve().parent.name
    if _NAME_OF_A_NETWORK.fullmatch(name) is None:
        return
    if name != manifest.arch_id:
        yield f"arch_id: got {manifest.arch_id}, expected {name} as the folder's name"
    if above in resources.known_names("profiles") and above != manifest.profile.name:
        yield f"profile.name: got {manifest.profile.name}, expected {above} as the folder's above"


def _of_the_architecture(manifest: Manifest, preprocessing: Preprocessing) -> Iterator[str]:
    refinement = manifest.refinement
    source = Architecture.from_dict(manifest.arch if refinement is None else manifest.arch.get("trimmed_from"))
    if refinement is None:
        arch_id = source.arch_id
    else:
        arch_id = source.refined_id({name: layer.model_dump() for name, layer in refinement.layers.items()})
        if refinement.source_arch_id != source.arch_id:
            yield f"refinement.source_arch_id: got {refinement.source_arch_id}, expected {source.arch_id} as of arch"
    if manifest.arch_id != arch_id:
        yield f"arch_id: got {manifest.arch_id}, expected {arch_id} as of arch"
    if preprocessing.size != source.resolution:
        yield f"preprocessing.size: got {preprocessing.size}, expected {source.resolution} as of arch"
    shape = (manifest.inputs[0].shape[0], len(preprocessing.mean), preprocessing.size, preprocessing.size)
    if tuple(each.shape for each in manifest.inputs) != (shape,):
        yield f"inputs: got {[each.shape for each in manifest.inputs]}, expected {shape} as of preprocessing"


def _of_the_files(manifest: Manifest, sizes: Mapping[str, int]) -> Iterator[str]:
    present = sizes.keys() - bundle_files.BESIDE_SUMS
    fixed = {bundle_files.MANIFEST, bundle_files.VECTORS, CARD, program.FILENAME, *_programs_in(present)}
    expected = fixed | manifest.model_files.keys()
    if fixed & manifest.model_files.keys() or expected != present:
        yield f"models: got {_listed(manifest.model_files)}, expected {_listed(present - fixed)} as in the folder"
        return
    for name, size in manifest.model_files.items():
        if sizes[name] != size:
            yield f"models: got {size} bytes for {name}, expected {sizes[name]} as in the folder"


def _of_the_graph(path: Path, manifest: Manifest) -> Iterator[str]:
    graph = read_graph(path)
    stated = manifest.costs
    for name, got, expected in (
        ("costs.num_macs", stated.num_macs, graph.num_macs),
        ("costs.num_params", stated.num_params, graph.num_params),
        ("inputs", _signature(manifest.inputs), dict(graph.inputs)),
        ("outputs", _signature(manifest.outputs), dict(graph.outputs)),
        ("the stem's width in arch", manifest.arch.get("stem_width", graph.first_width), graph.first_width),
    ):
        if got != expected:
            yield f"{name}: got {got}, expected {expected} as in {path.name}"


def _of_the_int8_graph(folder: Path, manifest: Manifest) -> Iterator[str]:
    record = manifest.models.get(MAIN_INT8.name)
    if record is None:
        return
    where, name = f"models.{MAIN_INT8.name}", bundle_files.INT8_MODEL
    if tuple(record.files) != (name,) or not isinstance(record.gate, Int8Gate):
        yield f"{where}.files: got {_listed(record.files)}, expected {name}"
        return
    graph = read_graph(folder / name)
    for key, got, expected in (
        ("inputs", _signature(manifest.inputs), dict(graph.inputs)),
        ("outputs", _signature(manifest.outputs), dict(graph.outputs)),
    ):
        if got != expected:
            yield f"{key}: got {got}, expected {expected} as in {name}"
    for problem in check_int8(folder / name, folder / bundle_files.MODEL, record.gate.scheme):
        yield f"{where}.{problem}"


def _of_what_was_rendered(folder: Path, manifest: Manifest, sizes: Mapping[str, int]) -> Iterator[str]:
    if not _is_of_this_version(manifest):
        return
    programs = {name: program.program(name) for name in _programs_in(sizes)}
    for name, expected in {**programs, CARD: render_model_card(manifest).encode()}.items():
        if sizes[name] != len(expected) or (folder / name).read_bytes() != expected:
            yield f"{name}: got another text, expected that of fedsup-deploy {__version__} for this manifest"


def _programs_in(names: Collection[str]) -> list[str]:
    return [name for name in program.PROGRAMS if name in names]


def _signature(tensors: tuple[TensorSpec, ...]) -> dict[str, Shape]:
    return {each.name: each.shape for each in tensors}


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
