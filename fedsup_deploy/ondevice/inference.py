"""Run a model in onnxruntime, on the CPU. The only module that imports it, so that nothing phones home.

Everything used here is in onnxruntime 1.8 and in the newest.
"""

import os
from typing import TYPE_CHECKING, Callable, Tuple, Type

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.records import Floats, InferenceSession, Versions

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime looks here when it is imported

PROVIDER = "CPUExecutionProvider"

_NO_MESSAGES = 4  # of onnxruntime's log: its errors arrive as exceptions


def library_versions() -> "Versions":
    """Return the versions of what runs a model.

    Raises:
        ImportError: One of them is not installed.
    """
    import numpy
    import onnxruntime

    return {"numpy": numpy.__version__, "onnxruntime": onnxruntime.__version__}


def open_session(path: str, threads: int) -> "InferenceSession":
    """Return an onnxruntime session: sequential, every graph optimisation on.

    Args:
        path: The .onnx file.
        threads: Threads of the runtime.

    Raises:
        ImportError: onnxruntime is not installed.
        Exception: It cannot take the model: one of `runtime_errors`.
    """
    import onnxruntime

    if hasattr(onnxruntime, "disable_telemetry_events"):  # some builds lack the switch
        onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _NO_MESSAGES
    session: InferenceSession = onnxruntime.InferenceSession(path, sess_options=options, providers=[PROVIDER])
    return session


def bind(session: "InferenceSession", x_BCHW: "Floats") -> Callable[[], "Floats"]:
    """Return a function of no arguments that runs the session on `x_BCHW` and returns its first output."""
    feed = {session.get_inputs()[0].name: x_BCHW}
    outputs = [session.get_outputs()[0].name]
    return lambda: session.run(outputs, feed)[0]


def runtime_errors() -> Tuple[Type[Exception], ...]:
    """Return what onnxruntime raises for a model or input it cannot take; its exceptions share no base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    raised = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*raised, RuntimeError, ValueError)


def first_line(error: Exception) -> str:
    """Return what an error says, on one line."""
    return (str(error) or type(error).__name__).splitlines()[0]
