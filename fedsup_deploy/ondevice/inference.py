"""Run a model in onnxruntime, on the CPU. The only module that imports it, so that nothing phones home.

Everything used here is in onnxruntime 1.8 and in the newest.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Callable, Tuple, Type, Union

from fedsup_deploy.ondevice.model_versions import release_of, why_too_old

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.records import Floats, InferenceSession, SessionOptions, Versions

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime looks here when it is imported

RUNTIME = "onnxruntime"
PROVIDER = "CPUExecutionProvider"

#: Of a run of a model that nobody has timed: many times what the slowest device needs for the largest one.
MOST_SECONDS = 300.0
_NO_MESSAGES = 4  # of onnxruntime's log: its errors arrive as exceptions
_FIRST_FOR_NUMPY_2 = (1, 19)


def library_versions() -> "Versions":
    """Return the versions of what runs a model.

    Raises:
        ImportError: One of them is not installed, or cannot be imported.
    """
    import numpy

    return {"numpy": numpy.__version__, "onnxruntime": _runtime().__version__}


def runtime_version() -> str:
    """Return the version of onnxruntime that runs a model, without importing it where its files say which it is.

    Raises:
        ImportError: It is not installed, or cannot be imported.
    """
    module = sys.modules.get(RUNTIME)
    return str(module.__version__) if module else _version_on_disk() or library_versions()["onnxruntime"]


def why_not_imported(error: ImportError) -> str:
    """Return what an error of importing NumPy, onnxruntime or Pillow means and what helps, on one line, no paths."""
    cause, inner = error, error.__cause__ or error.__context__
    # NumPy says long things about what its own first error says in one line.
    while isinstance(inner, ImportError) and not isinstance(error, ModuleNotFoundError):
        cause, inner = inner, inner.__cause__ or inner.__context__
    name = (cause.name or "onnxruntime").partition(".")[0]
    shown, packages = ("Pillow", "pillow") if name == "PIL" else (name, "numpy onnxruntime")
    if isinstance(error, ModuleNotFoundError):
        return f"{shown} cannot be imported; run: pip install {packages}"
    reason = re.sub(r"/(?:[^/:]+/)+", "", first_line(cause))
    if "failed to map segment" in reason:
        reason += "; the file system that it lies on lets nothing be loaded: it is mounted noexec"
    return f"{shown} cannot be imported: {reason}"


def why_not_run(error: Exception, path: str, name: str) -> Tuple[bool, str]:
    """Return whether onnxruntime is older than a model it could not run, and on one line what an error of it means.

    Args:
        error: One of `runtime_errors`.
        path: The .onnx file.
        name: What to call it.
    """
    version = library_versions()["onnxruntime"]
    too_old = why_too_old(version, path, name)
    return too_old is not None, too_old or f"onnxruntime {version} cannot run {name}: {first_line(error)}"


def open_session(model: Union[str, bytes], threads: int) -> "InferenceSession":
    """Return an onnxruntime session: sequential, every graph optimisation on.

    Args:
        model: The path of an .onnx file, or its content.
        threads: Threads of the runtime.

    Raises:
        ImportError: onnxruntime is not installed, or cannot be imported.
        Exception: It cannot take the model: one of `runtime_errors`.
    """
    return session_with(session_options(threads), model)


def session_options(threads: int) -> "SessionOptions":
    """Return the options of `open_session`."""
    onnxruntime = _runtime()
    options: SessionOptions = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _NO_MESSAGES
    return options


def session_with(options: "SessionOptions", model: Union[str, bytes]) -> "InferenceSession":
    """Return a session with options of `session_options`; see `open_session`."""
    onnxruntime = _runtime()
    if hasattr(onnxruntime, "disable_telemetry_events"):  # some builds lack the switch
        onnxruntime.disable_telemetry_events()
    if isinstance(model, str):
        model = _as_onnxruntime_takes_it(model)
    with contextlib.redirect_stdout(io.StringIO()):  # newer ones print what they raise as well
        session: InferenceSession = onnxruntime.InferenceSession(model, sess_options=options, providers=[PROVIDER])
    return session


def _as_onnxruntime_takes_it(path: str) -> Union[str, bytes]:
    """Return the path of a model, or its content: onnxruntime knows names in UTF-8 only, a folder may have another."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return Path(path).read_bytes()
    return path


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
    options = _runtime().RunOptions()
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


def _runtime() -> ModuleType:
    """Return onnxruntime.

    Raises:
        ImportError: It is not installed, or cannot be imported.
    """
    if RUNTIME not in sys.modules:
        _check_goes_with_numpy()
    import onnxruntime

    module: ModuleType = onnxruntime
    return module


def _check_goes_with_numpy() -> None:
    """Fail where onnxruntime would end this process: it was made for NumPy 1, and NumPy 2 is there.

    Only a try tells, and only in a process of its own; where neither version suggests it, there is none.
    """
    import numpy

    version = _version_on_disk()
    if release_of(numpy.__version__) < (2, 0) or not (0, 0) < release_of(version) < _FIRST_FOR_NUMPY_2:
        return
    code = "import sys; sys.path[:] = sys.argv[1:]; import onnxruntime"  # from where this process has it
    words = [sys.executable, "-c", code, *sys.path]
    ended = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    # One that is imported all the same ends the process later; NumPy says so by then.
    said = ended.stderr.lower()
    if ended.returncode < 0 or b"using numpy 1" in said or (ended.returncode and b"numpy" in said):
        found = f"version {version} was made for NumPy 1, and NumPy {numpy.__version__} is installed"
        raise ImportError(f"{found}; run: pip install 'numpy<2', or a newer onnxruntime", name="onnxruntime")


def _version_on_disk() -> str:
    """Return the version of the onnxruntime that would be imported; nothing where that is not known."""
    for entry in sys.path:
        start = Path(entry) / RUNTIME / "__init__.py"
        if start.is_file():
            text = start.read_text(encoding="utf-8", errors="replace")
            version = re.search(r"""^__version__ = ["']([\w.+-]+)["']""", text, re.MULTILINE)
            return version.group(1) if version else ""
    return ""
