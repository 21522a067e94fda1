"""Jobs and replies as bytes: what comes out is what went in, and what is malformed is refused in one line."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from fedsup_deploy import registry
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import DamagedFileError
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation import frame
from fedsup_deploy.federation.encoding import (
    Missing,
    absence,
    as_received,
    decode_replies,
    decode_request,
    discreet_absence,
    encode_missing,
    encode_refusal,
    encode_replies,
    encode_request,
)
from fedsup_deploy.federation.jobs.agreement import Agreement, CompareAnswers, both_of
from fedsup_deploy.federation.jobs.announce import Announce, Announcement
from fedsup_deploy.federation.jobs.classes import ClassCounts, CountClasses
from fedsup_deploy.federation.jobs.counts import CountAnswers, Counts
from fedsup_deploy.federation.jobs.moments import CountPixels, Pixels
from fedsup_deploy.federation.jobs.ranges import Ranges, TakeRanges
from fedsup_deploy.federation.jobs.statistics import CalibrationDraw, Observed, TakeStatistics
from fedsup_deploy.federation.jobs.train import Assignment, ClientUpdate, LocalTraining, Train
from fedsup_deploy.federation.messages import Blob, BlobStore, Job, Reply
from fedsup_deploy.federation.networks import SharedSubnet, standalone
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, initial_weights
from fedsup_deploy.supernet.statistics import ChannelSums, PooledStatistics
from fedsup_deploy.version import __version__

Arrays = dict[str, np.ndarray[Any, Any]]

#: Numbers that no short decimal says, and the largest and smallest of their kind.
STATISTICS = PooledStatistics(
    {
        "stem": ChannelSums(2**40 + 1, np.array([1 / 3, -1e300]), np.array([2 / 3, 5e-324])),
        "s1.0.depthwise": ChannelSums(1, np.array([0.0, -0.0, 1.0]), np.array([1.0, 2.0, 3.0])),
    }
)
NOTHING = PooledStatistics({})
NO_ROWS = np.empty((0, 4), np.int64)
NO_COUNTS = Counts.of([], 0)


@pytest.fixture(scope="module")
def supernet(tiny_space: SearchSpace) -> Supernet:
    layout = Layout(tiny_space, "parametric")
    return Supernet(layout, initial_weights(layout, 0))


@pytest.fixture(scope="module")
def jobs(supernet: Supernet) -> dict[str, list[Job[Any]]]:
    """For each kind jobs that have something in every field, and with nothing where there may be nothing."""
    layout, space = supernet.layout, supernet.layout.space
    middle = space.decode(space.enumerate_genes()[20])
    preprocessing = Preprocessing((1 / 3, 0.5), (0.1, 1e-7), 8, 10, 6)
    training = LocalTraining(2, 16, 0.9, 1e-4, 1 / 3, has_logit_adjustment=True, class_weights=(1 / 3, 2.0, 1e-9))
    train = Train(
        layout,
        Assignment(middle, inner=(space.smallest,)),
        Blob(supernet.extract(middle).weights),
        1 / 30,
        training,
        preprocessing,
        Augmentation(2, flip=True, fill=(-1 / 3, 0.0)),
        2**63 - 1,
    )
    blob = Blob(supernet.weights)
    candidates = tuple(SharedSubnet(layout, each, blob) for each in (space.largest, space.smallest))
    alone = standalone(supernet.extract(space.smallest))
    take = TakeStatistics(candidates, ("stem", "s1.0.depthwise"), STATISTICS, preprocessing, CalibrationDraw(64, 16), 5)
    count = CountAnswers((*candidates, alone), (STATISTICS, NOTHING, STATISTICS), "held-out", preprocessing)
    whole = dataclasses.replace(
        train,
        assignment=Assignment(None, 4, is_distilled=True),
        weights=blob,
        training=dataclasses.replace(training, clip_value=None, class_weights=None),
        augmentation=Augmentation(),
    )
    return {
        "train": [train, whole],
        "statistics": [take, dataclasses.replace(take, networks=(alone,), known=NOTHING)],
        "counts": [count, dataclasses.replace(count, networks=(), statistics=(), images="trained")],
        "moments": [CountPixels()],
        "classes": [CountClasses(3)],
        "ranges": [TakeRanges(alone, STATISTICS, preprocessing, CalibrationDraw(64, 16), 7)],
        "agreement": [CompareAnswers(both_of(b"one file", b"another"), "held-out", preprocessing)],
        "announce": [Announce()],
    }


ANSWERS: dict[str, list[Any]] = {
    "train": [
        ClientUpdate(
            12, 1 / 3, {"w": torch.tensor([[1 / 3, -0.0], [float("inf"), 1e-45]]), "b": torch.ones(3)}, 10**15, 2 / 3
        ),
        ClientUpdate(0, float("nan"), {}),
    ],
    "statistics": [Observed((STATISTICS, NOTHING)), Observed(())],
    "counts": [Counts(np.arange(8).reshape(2, 4), np.ones((1, 15, 3), np.int64) * 2**50, NO_ROWS, 449), NO_COUNTS],
    "moments": [Pixels(np.arange(512).reshape(2, 256) * 2**50, 28, 32)],
    "classes": [ClassCounts(np.arange(3) * 2**60)],
    "ranges": [Ranges(np.arange(6).reshape(2, 3) * 2**50, torch.tensor([[-1 / 3, 0.0], [1e-45, 3e38]]))],
    "agreement": [Agreement(1, 2, 3, 10**15)],
    "announce": [
        Announcement(
            ("cat", "d\u00f6g"), *np.arange(6).reshape(3, 2) * 2**50, 28, 32, 3, "float32", "pad", 1, "mcu", "0" * 64
        )
    ],
}


def plain(value: Any) -> Any:
    """Return something in parts that can be compared: of arrays their type, shape and bytes."""
    found: Any = (type(value), repr(value))
    if isinstance(value, torch.Tensor):
        found = plain(value.numpy())
    elif isinstance(value, np.ndarray):
        found = str(value.dtype), value.shape, value.tobytes()
    elif isinstance(value, Blob):
        found = value.name, plain(value.tensors)
    elif isinstance(value, Layout):
        found = value.space.to_dict(), value.normalization
    elif isinstance(value, Architecture):
        found = value.to_dict()
    elif dataclasses.is_dataclass(value):
        found = type(value), {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    elif isinstance(value, dict):
        found = {key: plain(each) for key, each in value.items()}
    elif isinstance(value, tuple | list):
        found = type(value), [plain(each) for each in value]
    return found


def parts_of(message: bytes) -> tuple[dict[str, Any], Arrays]:
    """Return the JSON and the arrays of a message."""
    length = int.from_bytes(message[:8], "little")
    metadata = json.loads(message[8 : 8 + length])["__metadata__"]
    assert metadata.keys() == {"document", "protocol", "version"}
    return json.loads(metadata["document"]), load(message)


def message_of(document: Any, arrays: Arrays | None = None) -> bytes:
    return save(arrays or {}, metadata=metadata_of(json.dumps(document)))


def metadata_of(document: str) -> dict[str, str]:
    return {"document": document, "protocol": str(frame.PROTOCOL), "version": "0"}


# --- everything survives


def test_every_registered_job_takes_part_here(jobs: dict[str, list[Job[Any]]]) -> None:
    assert list(jobs) == list(ANSWERS) == registry.names("job")
    for kind, some in jobs.items():
        job_type = registry.resolve("job", kind)
        assert job_type.kind == kind
        assert {type(job) for job in some} == {job_type}
        assert {type(answer) for answer in ANSWERS[kind]} == {job_type.reply}


@pytest.mark.parametrize("kind", registry.names("job"))
def test_jobs_arrive_as_they_were_sent(jobs: dict[str, list[Job[Any]]], kind: str) -> None:
    sent = dict(enumerate(jobs[kind], start=7))
    message, _ = encode_request(sent)
    received = decode_request(message, BlobStore())
    assert not isinstance(received, Missing)
    assert plain(received) == plain(sent)


@pytest.mark.parametrize("kind", registry.names("job"))
def test_answers_arrive_as_they_were_given(jobs: dict[str, list[Job[Any]]], kind: str) -> None:
    for value in ANSWERS[kind]:
        asked = {3: jobs[kind][0]}
        (reply,) = decode_replies(encode_replies([Reply(3, value)], asked), asked)
        assert (reply.client, reply.absent) == (3, None)
        assert plain(reply.value) == plain(value)


def test_jobs_of_all_kinds_travel_together_and_blobs_they_share_once(jobs: dict[str, list[Job[Any]]]) -> None:
    """The whole supernet is in three of them, the smallest subnet in four, another in one, and two files in one."""
    sent = dict(enumerate(job for some in jobs.values() for job in some))
    message, names = encode_request(sent)
    assert len(names) == 4
    _, arrays = parts_of(message)
    assert {key.partition("/")[0] for key in arrays if "/" in key} == names
    assert plain(decode_request(message, BlobStore())) == plain(sent)


def test_answers_and_absences_of_many_clients_travel_together(jobs: dict[str, list[Job[Any]]]) -> None:
    asked = {client: jobs[kind][0] for client, kind in enumerate(ANSWERS)}
    replies = [Reply(client, ANSWERS[kind][0]) for client, kind in enumerate(ANSWERS)]
    replies[2] = Reply(2, None, "loss is nan after 0 steps")
    received = decode_replies(encode_replies(replies[::-1], asked), asked)
    assert plain(received) == plain(replies[::-1])


def test_a_message_is_json_beside_arrays(jobs: dict[str, list[Job[Any]]]) -> None:
    """Nothing else: a safetensors file whose metadata holds the document. Clients know nothing of each other."""
    message, _ = encode_request({3: CountPixels()})
    assert parts_of(message) == ({"asked": [[3, "moments", {}]]}, {})
    counted = encode_replies([Reply(3, NO_COUNTS), Reply(4, None, "battery")], {3: jobs["counts"][0]})
    assert parts_of(counted)[0] == {
        "said": [[3, {"cells_C4": 0, "confidence_MB3": 1, "scores_S4": 2, "counted": 0}, None], [4, None, "battery"]]
    }
    pixels = ANSWERS["moments"][0]
    document, arrays = parts_of(encode_replies([Reply(3, pixels)], {3: CountPixels()}))
    assert document == {"said": [[3, {"histogram_CV": 0, "height": 28, "width": 32, "pixel_dtype": "uint8"}, None]]}
    assert plain(arrays) == plain({"0": pixels.histogram_CV})


def test_layouts_and_architectures_of_a_job_can_be_worked_with(
    jobs: dict[str, list[Job[Any]]], supernet: Supernet
) -> None:
    """What a layout has beside its space is made anew."""
    message, _ = encode_request({0: jobs["train"][0]})
    received = decode_request(message, BlobStore())
    job = received[0]
    architecture = jobs["train"][0].assignment.architecture
    assert job.layout.shapes == supernet.layout.shapes
    assert job.assignment.architecture == architecture
    assert job.layout.slices(job.assignment.architecture) == supernet.layout.slices(architecture)


# --- blobs


def test_blobs_that_are_held_are_not_sent(jobs: dict[str, list[Job[Any]]]) -> None:
    """The second message has but the document, and says the same."""
    store, sent = BlobStore(), {0: jobs["train"][1]}
    first, names = encode_request(sent)
    assert names == {jobs["train"][1].weights.name}
    assert plain(decode_request(first, store)) == plain(sent)
    second, again = encode_request(sent, held=names)
    assert again == set()
    assert parts_of(second)[1] == {}
    assert len(second) < len(first) / 3
    assert plain(decode_request(second, store)) == plain(sent)


def test_what_is_not_held_is_asked_for_and_sent_again(jobs: dict[str, list[Job[Any]]]) -> None:
    """All that is missing at once; what was never in a message is not."""
    sent = {0: jobs["train"][0], 1: jobs["train"][1], 2: CountPixels()}
    names = sorted(job.weights.name for job in jobs["train"])
    message, _ = encode_request(sent, held=names)
    store = BlobStore()
    missing = decode_request(message, store)
    assert missing == Missing(tuple(names))
    told = decode_replies(encode_missing(missing), sent)
    assert told == missing
    again, renewed = encode_request(sent, held=set(names) - set(told.blobs))
    assert renewed == set(names)
    assert plain(decode_request(again, store)) == plain(sent)


def test_one_of_two_blobs_may_be_missing(jobs: dict[str, list[Job[Any]]]) -> None:
    held, other = (job.weights for job in jobs["train"])
    store = BlobStore()
    store.add(held)
    message, _ = encode_request(dict(enumerate(jobs["train"])), held={held.name, other.name})
    assert decode_request(message, store) == Missing((other.name,))


def blob_of(*values: float) -> Blob:
    return Blob({"w": torch.tensor(values, dtype=torch.float32)})


def test_names_of_blobs_are_hashes_of_all_there_is() -> None:
    names = {
        blob.name
        for blob in (
            blob_of(1, 2),
            blob_of(2, 1),
            blob_of(),
            Blob({}),
            Blob({"v": torch.tensor([1.0, 2.0])}),
            Blob({"w": torch.tensor([[1.0, 2.0]])}),
            Blob({"w": torch.tensor([1.0, 2.0], dtype=torch.float64)}),
            Blob({"w": torch.tensor([1.0]), "x": torch.tensor([2.0])}),
        )
    }
    assert len(names) == 8
    x = torch.arange(6.0).view(2, 3)
    assert Blob({"w": x.T}).name == Blob({"w": x.T.contiguous()}).name
    assert Blob({"a": x, "b": x + 1}).name == Blob({"b": x + 1, "a": x}).name
    assert len(Blob({}).name) == 64


def test_parts_of_tensors_arrive_as_tensors_of_their_own(jobs: dict[str, list[Job[Any]]]) -> None:
    """Blobs of views: what does not lie together in memory."""
    x = torch.arange(24.0).view(4, 6)
    job = dataclasses.replace(jobs["train"][0], weights=Blob({"rows": x[1:3], "columns": x[:, 2:4], "turned": x.T}))
    message, _ = encode_request({0: job})
    received = decode_request(message, BlobStore())
    assert plain(received[0].weights.tensors) == plain({"rows": x[1:3], "columns": x[:, 2:4], "turned": x.T})


def test_blobs_that_were_not_used_for_longest_are_given_up_first() -> None:
    """Of 8 bytes each there is room for two, and 100 bytes are kept while nothing comes after them."""
    store, first, second, third = BlobStore(kept_bytes=16), blob_of(1, 2), blob_of(3, 4), blob_of(5, 6)
    store.add(first)
    store.add(second)
    assert store.get(first.name) is first
    store.add(third)
    assert [store.get(blob.name) for blob in (first, second, third)] == [first, None, third]
    large = blob_of(*range(25))
    store.add(large)
    assert [store.get(blob.name) for blob in (first, third, large)] == [None, None, large]
    store.add(second)
    assert [store.get(blob.name) for blob in (large, second)] == [None, second]


def test_a_store_that_is_too_small_for_all_blobs_of_a_message_is_no_obstacle(jobs: dict[str, list[Job[Any]]]) -> None:
    """Every job has its blob; only one is kept, and the others are sent again when they are asked for again."""
    sent, store = dict(enumerate(jobs["train"])), BlobStore(kept_bytes=1)
    message, names = encode_request(sent)
    for _ in range(2):
        assert plain(decode_request(message, store)) == plain(sent)
    held = [name for name in names if store.get(name) is not None]
    assert len(held) == 1
    missing = decode_request(encode_request(sent, held=names)[0], store)
    assert missing == Missing(tuple(names - set(held)))


def test_a_blob_that_is_not_what_its_name_says_is_refused_and_not_kept(jobs: dict[str, list[Job[Any]]]) -> None:
    """One number was changed under way; or another blob's name was put on it."""
    job = jobs["train"][0]
    document, arrays = parts_of(encode_request({0: job})[0])
    key = f"{job.weights.name}/head.bias"
    changed = {**arrays, key: arrays[key] + 1}
    renamed = {name.replace(job.weights.name, "0" * 64): array for name, array in arrays.items()}
    for altered in (changed, renamed):
        store = BlobStore()
        with pytest.raises(DataError, match=r"^message: a blob is not what its name says$"):
            decode_request(message_of(document, altered), store)
        assert store.get(job.weights.name) is None
        assert store.get("0" * 64) is None


# --- malformed messages


def _truncated(message: bytes) -> bytes:
    return message[:-1]


#: The document of a request and of replies, of no clients.
BOTH = {"asked": [], "said": []}
NO_DOCUMENTS: dict[str, bytes] = {
    "nothing": b"",
    "noise": bytes(range(256)) * 4,
    "no metadata": save({"0": np.zeros(1)}),
    "other metadata": save({}, metadata={"format": "pt"}),
    "no JSON": save({}, metadata=metadata_of("{")),
    "too deep": save({}, metadata=metadata_of("[" * 100_000)),
    "truncated": _truncated(message_of(BOTH, {"0": np.zeros(3)})),
    "a list": message_of([1, 2]),
    "a number": message_of(5),
    "an empty object": message_of({}),
    "a number where there is a list": message_of({"asked": 5, "said": 5}),
    "entries too short": message_of({"asked": [[0]], "said": [[0]]}),
    "entries no lists": message_of({"asked": [5], "said": [5]}),
    "a client that is none": message_of({"asked": [[[0], "moments", {}]], "said": [[[0], None, "x"]]}),
    "arrays missing": message_of(BOTH, {"1": np.zeros(1)}),
    "an array of a type that there is not": message_of(BOTH, {"0": np.zeros(1, np.int16)}).replace(b'"I16"', b'"J16"'),
    "an array of a type that numpy has not": message_of(BOTH, {"0": np.zeros(1, np.float64)}).replace(
        b'"F64","shape":[1]', b'"BF16","shape":[4]'
    ).replace(b"}} ", b"}}", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_DOCUMENTS)
def test_malformed_messages_are_refused_in_one_line(name: str) -> None:
    decoders: dict[str, Callable[[bytes], Any]] = {
        "message": lambda message: decode_request(message, BlobStore()),
        "malformed answer": lambda message: decode_replies(message, {0: CountPixels()}),
    }
    for what, decode in decoders.items():
        with pytest.raises(DataError, match=rf"^{what}: .+") as error:
            decode(NO_DOCUMENTS[name])
        assert "\n" not in str(error.value)


def test_messages_of_another_protocol_are_refused_in_a_line_that_names_both() -> None:
    message = save({}, metadata={"document": "{", "protocol": "99", "version": "9.1"})
    for decode in (lambda: decode_request(message, BlobStore()), lambda: decode_replies(message, {0: CountPixels()})):
        with pytest.raises(DataError) as error:
            decode()
        assert str(error.value) == (
            f"message: protocol 99 (fedsup-deploy 9.1), here it is {frame.PROTOCOL} (fedsup-deploy {__version__}); "
            "install the same "
            "version on both sides"
        )


def test_a_refusal_is_the_absence_of_all_that_were_asked() -> None:
    found = decode_replies(encode_refusal(DataError("not\nyours")), {0: CountPixels(), 3: CountPixels()})
    assert found == [Reply(0, None, "not yours"), Reply(3, None, "not yours")]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DataError("no held-out images"), "no held-out images"),
        (ValueError("Anna is not in [0, 9]"), "ValueError"),
        (DamagedFileError("/home/anna/x-ray.png: truncated"), "a file of its images is damaged or gone"),
    ],
)
def test_what_may_quote_images_is_not_told(error: Exception, told: str) -> None:
    assert discreet_absence(7, error) == Reply(7, None, told)


#: Changes of one field of a job, by its kind: where it is, and what is there then.
BAD_FIELDS: dict[str, tuple[str, list[str | int], Any]] = {
    "a layout that is no text": ("train", ["layout"], 5),
    "a layout that is no JSON": ("train", ["layout"], "{"),
    "a layout of something else": ("train", ["layout"], "[]"),
    "a layout of no space": ("train", ["layout"], '{"space": {"schema": 1}, "normalization": "batch"}'),
    "an architecture that is none": ("train", ["assignment", "architecture"], {"resolution": 8}),
    "an architecture with a stage that is none": (
        "train", ["assignment", "architecture"], {"resolution": 8, "stem_width": 4, "stages": [5]}
    ),
    "a learning rate that is none": ("train", ["learning_rate"], "fast"),
    "a seed that is no whole number": ("train", ["seed"], 0.5),
    "a preprocessing that divides by zero": ("train", ["preprocessing", "std"], [0.0, 1.0]),
    "an augmentation that shifts by less than nothing": ("train", ["augmentation", "crop_padding"], -1),
    "statistics of no array": ("statistics", ["known", "stem"], 99),
    "statistics of the array before the first": ("statistics", ["known", "stem"], -1),
    "statistics of an array that is no number": ("statistics", ["known", "stem"], True),
    "statistics that are a number": ("statistics", ["known"], 5),
    "a network that is none": ("statistics", ["networks", 0], {"plan": 5}),
    "no networks": ("statistics", ["networks"], None),
    "images without a name": ("counts", ["images"], 5),
    "a layer of no channels": ("counts", ["networks", 2, "plan", "stem", "out_channels"], 0),
    "a layer of half a channel": ("counts", ["networks", 2, "plan", "stem", "out_channels"], 1.5),
    "a layer of very many channels": ("counts", ["networks", 2, "plan", "head", 1, "out_channels"], 2**16 + 1),
    "a layer that steps back": ("counts", ["networks", 2, "plan", "blocks", 0, "main", 0, "stride"], -1),
    "a layer whose kernel is a list": ("counts", ["networks", 2, "plan", "stem", "kernel_size"], [3]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_jobs_with_other_types_than_they_should_have_are_refused(jobs: dict[str, list[Job[Any]]], name: str) -> None:
    """In one line; nothing of a job is done before all of it is checked."""
    kind, path, value = BAD_FIELDS[name]
    document, arrays = parts_of(encode_request({0: jobs[kind][0]})[0])
    assert not isinstance(decode_request(message_of(document, arrays), BlobStore()), Missing)
    fields = document["asked"][0][2]
    *before, last = path
    for key in before:
        fields = fields[key]
    fields[last] = value
    with pytest.raises(DataError, match=r"^message: .+") as error:
        decode_request(message_of(document, arrays), BlobStore())
    assert "\n" not in str(error.value)


def test_jobs_without_a_field_or_of_no_known_kind_are_refused(jobs: dict[str, list[Job[Any]]]) -> None:
    document, arrays = parts_of(encode_request({0: jobs["train"][0]})[0])
    del document["asked"][0][2]["seed"]
    with pytest.raises(DataError, match=r"^message: seed: Field required$"):
        decode_request(message_of(document, arrays), BlobStore())
    with pytest.raises(DataError, match=r"^message: unknown job 'trian'; did you mean 'train'\?$"):
        decode_request(message_of({"asked": [[0, "trian", {}]]}), BlobStore())
    with pytest.raises(DataError, match=r"^message: "):
        decode_request(message_of({"asked": [["one", "moments", {}]]}), BlobStore())


def array_of_statistics(count: float = 4.0, channels: int = 2) -> np.ndarray[Any, Any]:
    return np.stack([np.full(channels, count), np.ones(channels), np.ones(channels)])


#: How an answer about no network is sent.
NO_COUNTS_SENT = {"cells_C4": 0, "confidence_MB3": 1, "scores_S4": 0, "counted": 0}
NO_ARRAYS = {"0": NO_ROWS, "1": NO_COUNTS.confidence_MB3}
#: Of an answer its kind, the value and arrays as they are sent, and the beginning of the reason.
BAD_ANSWERS: dict[str, tuple[str, Any, Arrays, str]] = {
    "another answer": ("counts", {"histogram_CV": 0, "height": 2, "width": 2}, {}, "cells_C4: "),
    "a number": ("counts", 5, {}, ""),
    "a list": ("counts", [[1], 5], {}, ""),
    "half a count": ("agreement", {"both": 1.5, "only_first": 0, "only_second": 0, "neither": 2}, {}, "both: "),
    "a count that is text": (
        "agreement", {"both": "one", "only_first": 0, "only_second": 0, "neither": 2}, {}, "both: "
    ),
    "no counts": ("counts", {**NO_COUNTS_SENT, "cells_C4": None}, NO_ARRAYS, "cells_C4: "),
    "counts of floats": (
        "moments", {"histogram_CV": 0, "height": 2, "width": 2}, {"0": np.ones((1, 256))}, "histogram_CV: "
    ),
    "counts of small whole numbers": (
        "moments", {"histogram_CV": 0, "height": 2, "width": 2}, {"0": np.ones((1, 256), np.int32)}, "histogram_CV: "
    ),
    "no array": ("moments", {"histogram_CV": 0, "height": 2, "width": 2}, {}, "histogram_CV: "),
    "an array by its name": (
        "moments", {"histogram_CV": "0", "height": 2, "width": 2}, {"0": np.ones((1, 256), np.int64)}, "histogram_CV: "
    ),
    "a height that is none": (
        "moments", {"histogram_CV": 0, "height": "x", "width": 2}, {"0": np.ones((1, 256), np.int64)}, "height: "
    ),
    "weights of no array": (
        "train", {"num_samples": 1, "loss": 0.5, "weights": {"w": 1}}, {"0": np.ones(1)}, "weights.w: "
    ),
    "weights that are a list": (
        "train", {"num_samples": 1, "loss": 0.5, "weights": [0]}, {"0": np.ones(1)}, "weights: "
    ),
    "samples that are none": (
        "train", {"num_samples": "many", "loss": 0.5, "weights": {}}, {}, "num_samples: "
    ),
    "no loss": ("train", {"num_samples": 1, "weights": {}}, {}, "loss: "),
    "statistics of single precision": (
        "statistics", {"statistics": [{"stem": 0}]}, {"0": array_of_statistics().astype(np.float32)}, "statistics.0: "
    ),
    "statistics of two rows": (
        "statistics", {"statistics": [{"stem": 0}]}, {"0": array_of_statistics()[:2]}, "statistics.0: "
    ),
    "statistics without channels": (
        "statistics", {"statistics": [{"stem": 0}]}, {"0": array_of_statistics(channels=0)}, "statistics.0: "
    ),
    "statistics of one number": ("statistics", {"statistics": [{"stem": 0}]}, {"0": np.ones(3)}, "statistics.0: "),
    "statistics of not a number of values": (
        "statistics", {"statistics": [{"stem": 0}]}, {"0": array_of_statistics(float("nan"))}, "statistics.0: "
    ),
    "statistics of infinitely many values": (
        "statistics", {"statistics": [{"stem": 0}]}, {"0": array_of_statistics(float("inf"))}, "statistics.0: "
    ),
    "statistics that are a number": ("statistics", {"statistics": [5]}, {}, ""),
    "no statistics": ("statistics", {"statistics": 5}, {}, "statistics: "),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_an_answer_of_other_types_is_an_absence_and_the_others_count(
    jobs: dict[str, list[Job[Any]]], name: str
) -> None:
    kind, value, arrays, reason = BAD_ANSWERS[name]
    asked = {3: jobs[kind][0], 4: CountPixels()}
    message = message_of({"said": [[3, value, None], [4, None, "battery"]]}, arrays)
    bad, other = decode_replies(message, asked)
    assert (bad.client, bad.value) == (3, None)
    assert bad.absent is not None
    assert bad.absent.startswith(f"malformed answer: {reason}")
    assert "\n" not in bad.absent
    assert other == Reply(4, None, "battery")


def test_each_client_that_was_asked_has_one_reply_at_most(jobs: dict[str, list[Job[Any]]]) -> None:
    """Others have none, and a second one is not looked at, be it well-formed or not."""
    right, wrong = NO_COUNTS_SENT, {"cells_C4": None}
    said = [[9, right, None], [3, right, None], [3, wrong, None], [3, None, "late"], [4, wrong, None], [4, right, None]]
    received = decode_replies(message_of({"said": said}, NO_ARRAYS), dict.fromkeys((3, 4), jobs["counts"][0]))
    assert plain(received[0]) == plain(Reply(3, NO_COUNTS))
    assert [reply.client for reply in received] == [3, 4]
    assert received[1].value is None


def test_numbers_out_of_range_are_types_like_others(jobs: dict[str, list[Job[Any]]]) -> None:
    """Whether they make sense is for whoever asked to judge: `cohort.ask` passes them on to be taken or refused."""
    update = ClientUpdate(-5, float("inf"), {"w": torch.tensor([float("nan")], dtype=torch.float64)}, -1)
    asked = {3: jobs["train"][0]}
    (reply,) = decode_replies(encode_replies([Reply(3, update)], asked), asked)
    assert plain(reply.value) == plain(update)


# --- replies in one process


@pytest.mark.parametrize("kind", registry.names("job"))
def test_answers_in_this_process_are_as_from_a_network_and_not_copied(
    jobs: dict[str, list[Job[Any]]], kind: str
) -> None:
    for value in ANSWERS[kind]:
        reply = as_received(Reply(3, value), jobs[kind][0])
        assert plain(reply) == plain(Reply(3, value))
        if isinstance(value, ClientUpdate):
            assert {name: tensor.data_ptr() for name, tensor in reply.value.weights.items()} == {
                name: tensor.data_ptr() for name, tensor in value.weights.items()
            }


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("counts", 5),
        ("counts", ANSWERS["moments"][0]),
        ("counts", Counts(NO_ROWS * 1.5, NO_COUNTS.confidence_MB3, NO_ROWS, 0)),
        ("counts", dataclasses.replace(NO_COUNTS, counted=1.5)),  # type: ignore[arg-type]
        ("moments", Pixels(np.ones((1, 256)), 2, 2)),  # type: ignore[arg-type]
        ("train", ClientUpdate(1, 0.5, {"w": 1.0})),  # type: ignore[dict-item]
        ("train", ClientUpdate(1, 0.5, {"w": torch.ones(1, dtype=torch.bfloat16)})),
        ("statistics", Observed((PooledStatistics({"l": ChannelSums(1, np.ones(0), np.ones(0))}),))),
        ("statistics", Observed((5,))),  # type: ignore[arg-type]
    ],
)
def test_an_answer_of_another_type_in_this_process_is_an_absence(
    jobs: dict[str, list[Job[Any]]], kind: str, value: Any
) -> None:
    reply = as_received(Reply(3, value), jobs[kind][0])
    assert (reply.client, reply.value) == (3, None)
    assert reply.absent is not None
    assert reply.absent.startswith("malformed answer: ")
    assert "\n" not in reply.absent


def test_an_absence_stays_one() -> None:
    absent = Reply(3, None, "battery")
    assert as_received(absent, CountPixels()) is absent


def test_an_error_of_a_client_becomes_one_line_that_names_what_was_not_expected() -> None:
    assert absence(3, DataError("no held-out images")) == Reply(3, None, "no held-out images")
    assert absence(3, ValueError("bad shape\nat line 3")) == Reply(3, None, "ValueError: bad shape at line 3")
