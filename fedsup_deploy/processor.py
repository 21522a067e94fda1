"""The kind of processor that something was computed on, in the one spelling of all results. Torch-free.

What torch computes with is chosen by the processor: with wider vector instructions it adds up in another order, and the
last digits of weights, statistics and logits are others. So results are the same to the byte on one kind only.
"""

import os
import platform
from typing import Final

import numpy as np

#: By torch's name of vector instructions what NumPy calls a processor that has them, the widest first.
_INSTRUCTIONS: Final = {"AVX512": {"X86_V4", "AVX512_SKX"}, "AVX2": {"X86_V3", "AVX2"}}
#: By which torch is told to use no wider ones.
_RESTRICTED: Final = "ATEN_CPU_CAPABILITY"


def processor() -> str:
    """Return the architecture, and where it makes a difference the vector instructions, such as `x86_64 AVX2`.

    The instructions are those that torch uses here: `torch.backends.cpu.get_cpu_capability()`, without importing torch.
    """
    machine = platform.machine()
    features = _features()
    allowed = os.environ.get(_RESTRICTED, "").upper()
    names = list(_INSTRUCTIONS)
    if allowed == "DEFAULT":
        return machine
    for name in names[names.index(allowed) :] if allowed in names else names:
        if features & _INSTRUCTIONS[name]:
            return f"{machine} {name}"
    return machine


def _features() -> set[str]:
    # NumPy's types say nothing of what is in it.
    known: dict[str, dict[str, list[str]]] = np.show_config(mode="dicts")  # type: ignore[assignment]
    return {name for kind in ("baseline", "found") for name in known["SIMD Extensions"].get(kind, ())}
