"""What `inspect` says of a bundle. Torch-free."""

import dataclasses
from pathlib import Path
from typing import Final, Literal

from pydantic import JsonValue

from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.artifact.measured import MeasuredDocument
from fedsup_deploy.artifact.signing import check_signed, claimed_signature, load_public_key
from fedsup_deploy.artifact.store import load_manifest, load_measured

_TOLD: Final = (
    "arch_id",
    "profile",
    "accuracy",
    "costs",
    "limits",
    "objective",
    "models",
    "left_out",
    "refinement",
    "lineage",
    "versions",
)


@dataclasses.dataclass(frozen=True)
class BundleSignature:
    """What the signature of a bundle says.

    Args:
        version: Of the bundle; None where another program signed it, which gives none.
        key_sha256: SHA-256 of the public key's PEM text; None where it names none.
        verdict: `valid`: that key has signed the very files that are there. `not checked`: anybody can have written it.
    """

    version: int | None
    key_sha256: str | None
    verdict: Literal["valid", "not checked"]


@dataclasses.dataclass(frozen=True)
class BundleFacts:
    """A bundle.

    Args:
        manifest: What it says of itself.
        measured: What was measured since it was made.
        signature: What its signature says; None where it is not signed.
    """

    manifest: Manifest
    measured: MeasuredDocument
    signature: BundleSignature | None

    def to_dict(self) -> dict[str, JsonValue]:
        """Return the JSON document: what a person asks of the manifest, under its names there, and what was measured.

        `measured` is of its model, `engine` of a TensorRT engine of it, `signature` null where it is not signed.
        """
        told = self.manifest.model_dump(mode="json", by_alias=True, include=set(_TOLD))
        measured = self.measured.model_dump(mode="json")
        return {
            **{name: told[name] for name in _TOLD},
            "measured": measured["latency"],
            "engine": measured["engine"],
            "signature": None if self.signature is None else dataclasses.asdict(self.signature),
        }


def bundle_facts(path: Path) -> BundleFacts:
    """Return what a bundle says of itself.

    Raises:
        ArtifactError: Its manifest, `measured.json` or signature is damaged.
    """
    manifest, measured, claimed = load_manifest(path), load_measured(path), claimed_signature(path)
    signature = None if claimed is None else BundleSignature(*claimed, "not checked")
    return BundleFacts(manifest, measured, signature)


def with_checked_signature(facts: BundleFacts, path: Path, key: Path) -> BundleFacts:
    """Return the same with its signature checked.

    Args:
        facts: Of the bundle.
        path: Its folder.
        key: The public key, in PEM, that has to have signed it.

    Raises:
        ArtifactError: It has not, or not the very files that are there.
        ConfigError: It is none.
        DependencyError: The library `cryptography` is not installed.
    """
    signed, _ = check_signed(path, load_public_key(key))
    return dataclasses.replace(facts, signature=BundleSignature(signed.version, signed.key_sha256, "valid"))
