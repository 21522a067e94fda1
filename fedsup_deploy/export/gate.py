"""What gates compare: models, as functions of images, which fail as a gate does."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.errors import GateError
from fedsup_deploy.ondevice.inference import first_line

Images = NDArray[np.float32]
Logits = NDArray[np.float32]
Model = Callable[[Images], Logits]


def guarded(where: str, model: Model) -> Model:
    """Return a model that raises GateError, beginning with `where`, for what runtimes raise where they cannot run."""

    def run(images_BCHW: Images) -> Logits:
        try:
            return model(images_BCHW)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise GateError(f"{where}: fails on shape {images_BCHW.shape}: {first_line(error)}") from error

    return run
