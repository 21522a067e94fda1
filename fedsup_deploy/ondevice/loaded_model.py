"""A model of whatever file, loaded to be run again and again on one input."""

from pathlib import Path
from typing import NamedTuple, Optional, Sequence, Tuple, Union

from fedsup_deploy.ondevice.inference import bind, first_output, open_session, runtime_errors, why_not_run
from fedsup_deploy.ondevice.latency_statistics import NS_PER_MS
from fedsup_deploy.ondevice.timing import Run, first_run_ms, now_ns

#: Of an input: no image has so many, and they fit into any memory.
_MOST_ELEMENTS = 2**28


class ModelError(Exception):
    """A model that cannot be run; says which and why, on one line."""


class Model(NamedTuple):
    """A loaded model, bound to an input. The first run is cold: it is no latency."""

    run_once: Run
    load_ms: float
    first_run_ms: float


def load_model(path: Path, threads: int, shape: Optional[Sequence[int]] = None) -> Model:
    """Load a model and run it once.

    Args:
        path: The .onnx file.
        threads: Threads of the runtime.
        shape: Shape of the input with the batch; None takes the model's own, with batch 1.

    Raises:
        ModelError: It is missing, cannot be run, or has an open shape and none was given.
    """
    if not path.is_file():
        raise ModelError(f"no model at {path}; give the path of an .onnx file")
    import numpy

    try:
        start_ns = now_ns()
        session = open_session(str(path), threads)
        load_ms = (now_ns() - start_ns) / NS_PER_MS
        sizes = tuple(shape or _own_shape(path, session.get_inputs()[0].shape))
        if int(numpy.prod(sizes, dtype=float)) > _MOST_ELEMENTS:
            raise ModelError(f"{path}: its input has more than {_MOST_ELEMENTS:,} elements")
        # Values in [-1, 1] that are never tiny for long: numbers below the normal range take some processors longer.
        x_BCHW = numpy.cos(numpy.arange(int(numpy.prod(sizes)), dtype=numpy.float32)).reshape(sizes)
        run_once = bind(session, x_BCHW)
        cold_ms = first_run_ms(lambda: first_output(session, x_BCHW))
    except runtime_errors() as error:
        raise ModelError(why_not_run(error, str(path), str(path))[1]) from error
    return Model(run_once, load_ms, cold_ms)


def _own_shape(path: Path, shape: "Sequence[Union[int, str, None]]") -> Tuple[int, ...]:
    """Return the model's input shape with 1 for an open batch dimension."""
    batch, *rest = shape
    sizes = [size for size in rest if isinstance(size, int)]
    if len(sizes) < len(rest):
        raise ModelError(f"{path}: the input has the open shape {list(shape)}; say which shape to time")
    return (batch if isinstance(batch, int) else 1, *sizes)
