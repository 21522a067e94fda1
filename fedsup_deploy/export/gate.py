"""What gates compare: models, as functions of images."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Logits = NDArray[np.float32]
Model = Callable[[Images], Logits]
