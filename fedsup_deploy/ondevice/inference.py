"""Run a model in onnxruntime, on the CPU. The only module that imports it, so that nothing phones home.

Everything used here is in onnxruntime 1.8 and in the newest.
"""

import os
import threading
from typing import TYPE_CHECKING, Callable, Tuple, Type

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.records import Floats, InferenceSession, Versions

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime looks here when it is imported

PROVIDER = "CPUExecutionProvider"

#: Of a run of a model that nobody has timed: many times what the slowest device needs for the largest one.
MOST_SECONDS = 300.0
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


def most_threads() -> int:
    """Return with how many threads a model can be run here: more than there are cores only wait, thousands for ever."""
    return max(16, 4 * (os.cpu_count() or 1))


def first_output(session: "InferenceSession", x_BCHW: "Floats") -> "Floats":
    """Run the session once and return its first output; a model that does not end is ended.

    Raises:
        Exception: It cannot be run, or took longer than `MOST_SECONDS`: one of `runtime_errors`.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    # onnxruntime looks at it before each operation, those inside a loop included.
    watch = threading.Timer(MOST_SECONDS, setattr, (options, "terminate", True))
    watch.daemon = True
    watch.start()
    outputs, feed = [session.get_outputs()[0].name], {session.get_inputs()[0].name: x_BCHW}
    try:
        return session.run(outputs, feed, options)[0]
    finally:
        watch.cancel()


def runtime_errors() -> Tuple[Type[Exception], ...]:
    """Return what onnxruntime raises for a model or input it cannot take; its exceptions share no base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    raised = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*raised, RuntimeError, ValueError, MemoryError)


def first_line(error: Exception) -> str:
    """Return what an error says, on one line."""
    return (str(error) or type(error).__name__).splitlines()[0]
