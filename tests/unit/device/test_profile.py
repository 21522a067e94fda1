"""Device profiles: what is read, what is refused and where the message points."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy.config.device import Int8Scheme, System
from fedsup_deploy.config.load import dump
from fedsup_deploy.device.acceptance import ANY_PROCESSOR, Accepts, accepted_by, system_of
from fedsup_deploy.device.profile import DeviceProfile, list_profiles, load_profile
from fedsup_deploy.device.summary import summary_of
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space.cost import OP_KINDS

PROFILE = """\
schema: 1
name: toy
description: A made-up device.
device: {soc: Toy, cpu: 1x Toy, cores: 1, memory_mib: 64}
runtime: {name: onnxruntime, provider: CPUExecutionProvider, threads: 1, dtype: float32}
limits: {latency_ms: 2}
formats: [onnx]
precisions: [fp32]
latency:
  kind: roofline
  dtype: float32
  bytes_per_element: 4
  memory_bandwidth_gb_s: 4
  network_overhead_us: 5
  ops:
    conv: {gmacs_per_s: 2, overhead_us: 3}
    pointwise: {gmacs_per_s: 1, overhead_us: 3}
    depthwise: {gmacs_per_s: 0.5, overhead_us: 3}
    linear: {gmacs_per_s: 1, overhead_us: 3}
    pool: {overhead_us: 1}
    global_pool: {overhead_us: 1}
    add: {overhead_us: 1}
    scale: {overhead_us: 1}
error: none
provenance:
  latency: {kind: published, source: a table}
  latency.ops.conv.gmacs_per_s: {kind: datasheet, source: a sheet}
"""

#: Of this profile, and of it with an opset, as computed before there were more sections.
HASH = "f4f662488b4325c1d9a43fc9af9c9cea472aa5a5283bacebed04d1f140780afb"
HASH_WITH_OPSET = "b11ac324fedfa714b846f93d48a77e46eabaeb85b7655fe23dae2c278a1dae2d"


def known_bad(**changed: str) -> str:
    """Return the section, with some texts of its entry changed."""
    entry = {
        "runtime": "onnxruntime",
        "versions": "==1.21.0",
        "symptom": "it dies",
        "cure": "take 1.20",
        "source": "a#1",
    }
    return "known_bad: [{" + ", ".join(f"{name}: '{text}'" for name, text in (entry | changed).items()) + "}]"


def profile_from(tmp_path: Path, old: str = "", new: str = "") -> DeviceProfile:
    assert old in PROFILE
    path = tmp_path / "toy.yaml"
    path.write_text(PROFILE.replace(old, new, 1) if old else PROFILE)
    return load_profile(path)


def test_a_profile_is_read(tmp_path: Path) -> None:
    profile = profile_from(tmp_path)
    assert profile.limits.latency_ms == 2.0
    assert profile.limits.energy_mj is None
    assert profile.latency.ops.depthwise.gmacs_per_s == 0.5
    assert profile.provenance_kinds == ("datasheet", "published")


def test_summary_says_what_is_not_measured(tmp_path: Path) -> None:
    expected = {
        "name": "toy",
        "description": "A made-up device.",
        "latency_kind": "roofline",
        "is_measured": False,
        "provenance": ["datasheet", "published"],
        "error": "none",
        "limits": {"latency_ms": 2.0},
        "percentile": {"limit": "p50", "predicted": "p50", "is_assumed": True, "ratios": None},
        "formats": ["onnx"],
        "also_loads": [],
        "precisions": ["fp32"],
        "accepts": {"onnx_opset": None, "onnx_ir": None, "int8": None, "batch": None, "layout": None},
        "system": {"python": None, "glibc": None, "arch": None},
        "known_bad": [],
        "build_on_device": None,
    }
    assert summary_of(profile_from(tmp_path)).to_dict() == expected


def test_a_profile_is_measured_only_if_every_cost_is(tmp_path: Path) -> None:
    measured = '{kind: measured, protocol: timed, date: "2026-01-31", environment: a board}'
    text = PROFILE.replace("{kind: published, source: a table}", measured)
    path = tmp_path / "toy.yaml"
    path.write_text(text)
    assert not load_profile(path).is_measured
    path.write_text(text.replace("{kind: datasheet, source: a sheet}", measured))
    assert load_profile(path).is_measured


def test_the_operation_kinds_are_those_that_are_counted(tmp_path: Path) -> None:
    assert tuple(op for op, _ in profile_from(tmp_path).latency.ops) == OP_KINDS


def with_all_sections(tmp_path: Path) -> DeviceProfile:
    """What says everything about the device that there is to say."""
    path = tmp_path / "toy.yaml"
    sections = f"""\
accepts:
  onnx_opset: 15
  int8: {{activations: s8, is_symmetric: false, per_channel: true, reduce_range: false}}
  batch: dynamic
system: {{python: "3.6", glibc: "2.27", arch: aarch64}}
{known_bad()}
build_on_device: trtexec --onnx=model.onnx
"""
    sources = "".join(
        f"  {name}: {{kind: published, source: a page}}\n" for name in ("accepts", "system", "build_on_device")
    )
    path.write_text(PROFILE.replace("formats:", f"{sections}formats:", 1) + sources)
    return load_profile(path)


def test_what_a_device_accepts_has_and_does_not_bear_is_read(tmp_path: Path) -> None:
    profile = with_all_sections(tmp_path)
    assert profile.accepts == Accepts(
        onnx_opset=15,
        int8=Int8Scheme(activations="s8", is_symmetric=False, per_channel=True, reduce_range=False),
        batch="dynamic",
    )
    assert str(profile.system) == "Python 3.6, glibc 2.27, aarch64"
    assert [str(each) for each in profile.known_bad] == ["onnxruntime ==1.21.0"]
    assert profile.provenance_kinds == ("datasheet", "published"), "none of it is about time"
    found = summary_of(profile).to_dict()
    assert found["system"] == {"python": "3.6", "glibc": "2.27", "arch": "aarch64"}
    assert found["known_bad"][0]["source"] == "a#1"
    assert found["build_on_device"] == "trtexec --onnx=model.onnx"


def test_a_profile_from_before_there_were_such_sections_has_the_hash_it_had(tmp_path: Path) -> None:
    """Searches that were made with it name it by its hash, as do bundles."""
    assert profile_from(tmp_path).profile_hash == HASH
    empty = "accepts: {}\nsystem: {arch: null}\nknown_bad: []\nbuild_on_device: null\nformats:"
    assert profile_from(tmp_path, "formats:", empty).profile_hash == HASH
    only_opset = "accepts: {onnx_opset: 13}\nformats:"
    (tmp_path / "opset.yaml").write_text(
        PROFILE.replace("formats:", only_opset, 1) + "  accepts: {kind: published, source: a page}\n"
    )
    assert load_profile(tmp_path / "opset.yaml").profile_hash == HASH_WITH_OPSET
    assert with_all_sections(tmp_path).profile_hash not in {HASH, HASH_WITH_OPSET}


def test_what_a_device_said_of_itself_tells_what_it_accepts_and_has() -> None:
    told = {"machine": "aarch64", "python": "3.6.9", "glibc": "2.27", "cpu": "Toy"}
    assert system_of(told) == System(python="3.6", glibc="2.27", arch="aarch64")
    older = {"machine": "aarch64", "python": "3.13.0rc1"}
    assert system_of(older) == System(python="3.13", arch="aarch64"), "an older measurement lacks the C library"
    assert system_of({"machine": "", "python": "none", "glibc": None}) == System()
    assert accepted_by({"onnxruntime": "1.10.0"}) == Accepts(onnx_opset=15, onnx_ir=8)
    assert accepted_by({"onnxruntime": "1.7.0"}) == Accepts()


@pytest.mark.parametrize(
    ("told", "activations", "reduce_range"),
    [
        ({"machine": "x86_64", "vnni": True}, "u8", False),
        ({"machine": "x86_64", "vnni": False}, "u8", True),
        ({"machine": "AMD64", "vnni": None}, "u8", True),
        ({"machine": "x86_64"}, "u8", True),
        ({"machine": "aarch64", "vnni": None}, "s8", False),
        ({"machine": "arm64"}, "s8", False),
    ],
)
def test_how_int8_is_written_for_a_device_follows_from_its_processor(
    told: dict[str, Any], activations: str, reduce_range: bool
) -> None:
    """An older measurement does not say whether there is VNNI: then 7 bits are right with and without."""
    accepts = accepted_by({"onnxruntime": "1.10.0", **told})
    assert accepts.int8 is not None
    assert accepts.int8_scheme == accepts.int8
    assert (accepts.int8.activations, accepts.int8.reduce_range) == (activations, reduce_range)
    assert (accepts.int8.is_symmetric, accepts.int8.per_channel) == (False, True)


def test_of_a_processor_that_nobody_knows_the_scheme_is_not_stated_and_right_on_all() -> None:
    accepts = accepted_by({"onnxruntime": "1.10.0", "machine": "riscv64"})
    assert accepts.int8 is None
    assert accepts.int8_scheme == ANY_PROCESSOR


def test_writing_and_reading_gives_the_same_profile(tmp_path: Path) -> None:
    profile = with_all_sections(tmp_path)
    path = tmp_path / "again.yaml"
    path.write_text(dump(profile))
    again = load_profile(path)
    assert again == profile
    assert again.profile_hash == profile.profile_hash


def test_the_hash_changes_with_a_figure(tmp_path: Path) -> None:
    original = profile_from(tmp_path).profile_hash
    assert profile_from(tmp_path, "gmacs_per_s: 0.5", "gmacs_per_s: 0.6").profile_hash != original


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("formats: [onnx]", "formats: [onnx, onnx]", 7, "got onnx, onnx, expected each once"),
        ("precisions: [fp32]", "precisions: [fp32, fp32]", 8, "got fp32, fp32, expected each once"),
        ("gmacs_per_s: 2,", "gflops: 2,", 16, "missing key 'gmacs_per_s' in latency.ops.conv (and 1 more)"),
        ("gmacs_per_s: 2,", "gmacs_per_s: -2,", 16, "got -2, expected > 1e-09"),
        ("gmacs_per_s: 2,", "gmacs_per_s: 0,", 16, "got 0, expected > 1e-09"),
        ("gmacs_per_s: 2,", "gmacs_per_s: 1e-300,", 16, "got 1e-300, expected > 1e-09"),
        ("network_overhead_us: 5", "network_overhead_us: 1e307", 14, "got 1e+307, expected <= 1"),
        ("error: none", "error: none\nunsupported_ops: [add, add]", 25, "got add, add, expected each once"),
        ("name: toy", f"name: {'x' * 65}", 2, "64"),
        ("gmacs_per_s: 2,", 'gmacs_per_s: "2",', 16, "expected a number"),
        ("    add: {overhead_us: 1}", "    add: {overhead_us: -1}", 22, "got -1, expected >= 0"),
        ("    add: {overhead_us: 1}", "    add: {gmacs_per_s: 1, overhead_us: 1}", 22, "unknown key 'gmacs_per_s'"),
        ("    scale:", "    softmax: {overhead_us: 1}\n    scale:", 23, "unknown key 'softmax' in latency.ops"),
        ("    scale: {overhead_us: 1}\n", "", 15, "missing key 'scale' in latency.ops"),
        ("kind: roofline", "kind: tabel", 10, "'roofline'"),
        (
            "kind: roofline",
            "kind: table",
            9,
            "missing keys 'space', 'parts', 'calibration' in latency of kind 'table' (and 3 more)",
        ),
        ("memory_bandwidth_gb_s", "memory_bandwidth_mb_s", 9, "memory_bandwidth_gb_s"),
        ("bytes_per_element: 4", "bytes_per_element: 2", 12, "got 2, expected 4 for float32"),
        ("threads: 1, dtype: float32", "threads: 1, dtype: float16", 9, "the runtime computes in float16"),
        ("latency_ms: 2", "latency_s: 2", 6, "unknown key 'latency_s' in limits; did you mean 'latency_ms'?"),
        ("latency_ms: 2", "latency_ms: 0", 6, "got 0, expected > 0"),
        ("formats: [onnx]", "formats: [onxx]", 7, "unknown format 'onxx'; did you mean 'onnx'?"),
        ("formats: [onnx]", "formats: []", 7, "at least 1"),
        ("precisions: [fp32]", "precisions: [fp64]", 8, "fp64"),
        ("schema: 1", "schema: 2", 1, "schema"),
        ("name: toy", "name: Toy!", 2, "name"),
        ("cores: 1", "cores: 0", 4, "expected >= 1"),
        ("error: none", "error: unknown", 24, "error: got 'unknown', expected 'none'"),
        ("error: none", "error: {acc5: 2}", 24, "error.acc5: got 2, expected <= 1"),
        ("error: none", "error: {acc: 1}", 24, "in error"),
        (
            "error: none",
            "error: {method: held-out, acc5: 1, acc10: 0, spearman: 1, mape: 0.04, num_heldout: 1, ratios: [1.04]}",
            24,
            "acc5 1.0 is larger than acc10 0.0",
        ),
        (
            "error: none",
            "error: {method: held-out, acc5: 1, acc10: 1, spearman: 1, mape: 0.2, num_heldout: 1, ratios: [1.25]}",
            24,
            "got acc5 1.0, expected 0 from the ratios",
        ),
        (
            "error: none",
            "error: {method: held-out, acc5: 1, acc10: 1, spearman: 1, mape: 0, num_heldout: 2, ratios: [1]}",
            24,
            "got 1 ratios, expected 2, ascending",
        ),
        ("formats: [onnx]", "formats: [onnx]\nunsupported_ops: [softmax]", 8, "unsupported_ops"),
        (
            "formats: [onnx]",
            "formats: [onnx]\nenergy: {active_power_w: 5}",
            8,
            "energy.active_power_w: got 5, expected its provenance",
        ),
        ("formats: [onnx]", "accepts: {onnx_opsets: 13}\nformats: [onnx]", 7, "did you mean 'onnx_opset'?"),
        ("formats: [onnx]", "accepts: {layout: chw}\nformats: [onnx]", 7, "accepts.layout: got 'chw'"),
        ("formats: [onnx]", "accepts: {batch: 1}\nformats: [onnx]", 7, "accepts.batch: got 1"),
        (
            "formats: [onnx]",
            "accepts: {int8: {activations: s8}}\nformats: [onnx]",
            7,
            "missing keys 'is_symmetric', 'per_channel', 'reduce_range' in accepts.int8",
        ),
        (
            "formats: [onnx]",
            "accepts: {int8: {activations: s8, is_symmetric: false, per_channel: true, reduce_range: false}}\n"
            "formats: [onnx]",
            7,
            "accepts.int8.activations: got 's8', expected its provenance",
        ),
        ("formats: [onnx]", "system: {python: 3.6}\nformats: [onnx]", 7, "system.python: got 3.6, expected text"),
        ("formats: [onnx]", 'system: {glibc: "2"}\nformats: [onnx]', 7, "system.glibc: got '2'"),
        ("formats: [onnx]", "system: {arch: aarch64}\nformats: [onnx]", 7, "system.arch: got 'aarch64', expected its"),
        (
            "formats: [onnx]",
            "build_on_device: trtexec\nformats: [onnx]",
            7,
            "build_on_device: got 'trtexec', expected its",
        ),
        ("formats: [onnx]", f"{known_bad(source='')}\nformats: [onnx]", 7, "known_bad.0.source: got ''"),
        (
            "formats: [onnx]",
            f"{known_bad(versions='1.21.0')}\nformats: [onnx]",
            7,
            "expected comparisons with a version",
        ),
        (
            "formats: [onnx]",
            f"{known_bad(runtime='onnxruntim')}\nformats: [onnx]",
            7,
            "got 'onnxruntim', expected onnxruntime; did you mean 'onnxruntime'?",
        ),
        (
            "  latency: {kind: published, source: a table}\n",
            "  latency.ops: {kind: published, source: a table}\n",
            13,
            "latency.memory_bandwidth_gb_s: got 4, expected its provenance",
        ),
        (
            "latency.ops.conv.gmacs_per_s: {",
            "latency.ops.conv.gmac_per_s: {",
            27,
            "did you mean 'latency.ops.conv.gmacs_per_s'?",
        ),
        ("{kind: datasheet, source: a sheet}", "{kind: guessed, source: a hunch}", 27, "guessed"),
        (
            "{kind: datasheet, source: a sheet}",
            "{kind: measured, source: trust me}",
            27,
            "missing keys 'protocol', 'date', 'environment' in",
        ),
    ],
)
def test_a_wrong_profile_is_refused_with_its_line(tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        profile_from(tmp_path, old, new)
    assert f"toy.yaml:{line}: " in str(caught.value)
    assert words in str(caught.value)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no profile 'jetson-nono'.*did you mean 'jetson-nano'"):
        load_profile("jetson-nono")


def test_shipped_profiles_are_listed_by_name() -> None:
    names = [profile.name for profile in list_profiles()]
    assert names == sorted(names)
    assert {"jetson-nano", "raspberry-pi-4", "raspberry-pi-5", "x86-laptop", "pixel-class-phone"} <= set(names)


def test_importing_devices_loads_neither_torch_nor_a_runtime() -> None:
    code = (
        "import sys, fedsup_deploy.device.profile, fedsup_deploy.device.predictor, fedsup_deploy.device.measure;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'onnxruntime', 'onnx')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
