"""What a run may be resumed with: the same settings, classes and clients; images that have changed are told of."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue

from fedsup_deploy import files
from fedsup_deploy.config.schema import AveragingConfig, TrainConfig
from fedsup_deploy.data.source import counted
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.federation.client import called
from fedsup_deploy.federation.server.client_sampling import USUAL_CLIENTS
from fedsup_deploy.federation.server.late import MOST_ROUNDS_LATE
from fedsup_deploy.federation.simulation import FederatedData
from fedsup_deploy.run_events import Round
from fedsup_deploy.runs import run as runs
from fedsup_deploy.runs.clients import ClientFacts
from fedsup_deploy.runs.history import read_history
from fedsup_deploy.runs.joined import with_joined


def settings_hash(config: TrainConfig) -> str:
    """Return the SHA-256 of the settings that decide the weights, whoever answers."""
    return files.sha256_of(_what_matters(config))


def check_same_settings(before: TrainConfig, now: TrainConfig, folder: Path) -> None:
    """Refuse to go on with other settings than the run was begun with, but for those that change no weight.

    Raises:
        ConfigError: One is another; the message names it.
    """
    old, new = _flat(_what_matters(before)), _flat(_what_matters(now))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"cannot resume {folder}: {key} is {json.dumps(new.get(key))}, the run was started with "
                f"{json.dumps(old.get(key))}; "
                "use the same config or choose another --out"
            )


def changes_of_cohorts(before: TrainConfig, now: TrainConfig) -> list[str]:
    """Return what is to be said where other clients count in a round from here on, though all answer as before."""
    changed = {
        name: (old, new)
        for name in ("oversample", "stale", "stale_weight")
        if (old := getattr(before.federation, name)) != (new := getattr(now.federation, name))
    }
    return [
        f"federation.{name} is {json.dumps(new)}, the run was started with {json.dumps(old)}; "
        "it ends otherwise than if undisturbed"
        for name, (old, new) in changed.items()
    ]


def taken_up(
    folder: Path, first_round: int, data: FederatedData
) -> tuple[runs.ImageFacts | None, FederatedData, list[str]]:
    """Return what a run that goes on says of its images, the data with devices that have joined it, and notes.

    Args:
        folder: Of the run.
        first_round: Rounds that are done; of a run without any nothing is taken up.
        data: Of those that it was begun with.

    Raises:
        ConfigError: As of `changes_of_images`.
    """
    facts = runs.read_image_facts(folder) if first_round > 0 else None
    if facts is None:
        return None, data, []
    changes = changes_of_images(folder, facts, data)
    # Who came after the checkpoint was written comes again.
    joined = tuple(each for each in facts.joined if each.since <= first_round)
    data = with_joined(data, [each.device for each in joined])
    return facts.model_copy(update={"joined": joined}), data, changes


def changes_of_images(folder: Path, facts: runs.ImageFacts, data: FederatedData) -> list[str]:
    """Return what is to be said of images that a run goes on with: a mended file may be another, but not a client.

    Raises:
        ConfigError: The classes or the clients are others than those the run was begun with.
    """
    now = ClientFacts.of(data)
    others = None
    if facts.classes != data.train.classes:
        others = _others("classes", facts.classes, data.train.classes)
    elif facts.clients is not None and facts.clients != now:
        before = facts.clients
        others = _others("clients", before.names or (), now.names or ())
        if before.num_clients != now.num_clients:
            others += f": {now.num_clients} take part, {before.num_clients} did"
    if others is not None:
        raise ConfigError(f"cannot resume {folder}: {others}; put the images back or choose another --out")
    if facts.fingerprint in {None, data.fingerprint}:
        return []
    how = "some were added, removed or changed, or another release of Pillow reads them"
    return [f"the images are not those the run was begun with ({how}); it ends otherwise than if undisturbed"]


def lost_updates(folder: Path, first_round: int) -> list[str]:
    """Return what is to be said of late updates that were waited for when a run was stopped.

    Args:
        folder: Of the run, whose events are those of the rounds that are done.
        first_round: With which it goes on.
    """
    asked: dict[int, int] = {}
    for each in read_history(folder).asked:
        came = {int(client) for client in (*each.late_joined, *each.late_refused)} if isinstance(each, Round) else set()
        asked = {client: when for client, when in asked.items() if client not in came}
        asked |= dict.fromkeys(each.late, each.round)
    lost = sorted(client for client, when in asked.items() if first_round - when <= MOST_ROUNDS_LATE)
    names = [called(client, None) for client in lost]
    if not lost:
        return []
    return [f"late updates that were under way when the run was stopped are lost: {counted(names)}"]


def _what_matters(config: TrainConfig) -> dict[str, JsonValue]:
    """Return the config without the settings that a run may be resumed with others of.

    They change no weight, or only by who answers in time: `changes_of_cohorts` tells of those.
    """
    document = config.model_dump(mode="json", exclude={"engine", "federation"})
    del document["training"]["checkpoint_every"], document["data"]["cache_mib"]
    if config.data.server is None:
        del document["data"]["server"]
    else:
        del document["data"]["server"]["cache_mib"]
    del document["training"]["evaluate_every"], document["training"]["keep"]
    if config.training.keep == "best":
        document["training"]["keep"] = f"best, evaluate_every {config.training.evaluate_every}"
    # Runs that an older version began say the same in other words, or do not know it.
    document["data"] |= {
        "server_images": config.server_has_images,
        "client_validation_fraction": config.held_out_fraction,
    }
    document["training"]["clients_per_round"] = config.training.clients_per_round or USUAL_CLIENTS
    if not config.training.class_weights:
        del document["training"]["class_weights"]
    if config.averaging == AveragingConfig():
        del document["averaging"]
    if config.partition.unseen is None:
        del document["partition"]["unseen"]
    return document


def _flat(document: JsonValue, prefix: str = "") -> dict[str, JsonValue]:
    if not isinstance(document, dict):
        return {prefix: document}
    items = [_flat(value, f"{prefix}.{key}" if prefix else key) for key, value in document.items()]
    return {key: value for item in items for key, value in item.items()}


def _others(what: str, before: Sequence[str], now: Sequence[str]) -> str:
    """Return that some are others than those a run was begun with, and their names."""
    gone, new = ([name for name in some if name not in rest] for some, rest in ((before, now), (now, before)))
    told = [f"{word} {counted(names)}" for word, names in (("gone", gone), ("new", new)) if names]
    return f"the {what} are not those the run was begun with" + (f" ({', '.join(told)})" if told else "")
