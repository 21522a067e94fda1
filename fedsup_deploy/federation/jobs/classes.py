"""`CountClasses`: how many images of each class a client trains on. All clients' together tell which classes are rare.

Shapes: K classes.
"""

import dataclasses
from typing import ClassVar

import numpy as np

from fedsup_deploy.federation.client import TRAINED, Client
from fedsup_deploy.federation.encoding import WireHistogram


@dataclasses.dataclass(frozen=True, eq=False)
class ClassCounts:
    """The answer.

    Args:
        images_K: Images of each class.
    """

    images_K: WireHistogram


@dataclasses.dataclass(frozen=True)
class CountClasses:
    """Count the images of each class that a client trains on. What it holds out takes no part.

    Args:
        num_classes: K.
    """

    kind: ClassVar[str] = "classes"
    reply: ClassVar[type] = ClassCounts

    num_classes: int

    def perform(self, client: Client) -> ClassCounts:
        """Return the counts."""
        labels_N = client.images(TRAINED).labels_N
        return ClassCounts(np.bincount(labels_N, minlength=self.num_classes).astype(np.int64))
