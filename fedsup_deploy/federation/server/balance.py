"""How often each class is among the images of all clients, and what an image of each counts in training for it.

Shapes: K classes.
"""

from collections.abc import Sequence

import numpy as np

from fedsup_deploy.federation.client import ClientId
from fedsup_deploy.federation.jobs.classes import ClassCounts, CountClasses
from fedsup_deploy.federation.messages import Engine
from fedsup_deploy.federation.server import cohort
from fedsup_deploy.federation.server.cohort import OnAbsences, Terms


def count_classes(engine: Engine, terms: Terms, num_classes: int, on_absences: OnAbsences) -> tuple[int, ...]:
    """Return how many images of each class all clients train on, of whom each says how many it has.

    Args:
        engine: Carries jobs to the clients.
        terms: What is expected of them.
        num_classes: K.
        on_absences: Told of the clients that have not answered.

    Raises:
        FederationError: Too few clients have answered.
    """
    infos = {info.client: info for info in engine.clients()}
    total_K = np.zeros(num_classes, np.int64)

    def take(client: ClientId, counts: ClassCounts) -> str | None:
        images_K, num_images = counts.images_K, infos[client].num_samples
        if images_K.shape != (num_classes,):
            return f"class counts of shape {images_K.shape}, expected {num_classes} classes"
        # Each before their sum, which could overflow.
        if ((images_K < 0) | (images_K > num_images)).any() or int(images_K.sum()) != num_images:
            return f"other class counts than {num_images} images have"
        total_K[:] += images_K
        return None

    jobs = dict.fromkeys(infos, CountClasses(num_classes))
    cohort.ask(engine, jobs, take, what="class counts", terms=terms, on_absences=on_absences)
    return tuple(total_K.tolist())


def class_weights(images: Sequence[int]) -> tuple[float, ...]:
    """Return what an image of each class counts in a loss in which all classes that have images count the same.

    n / (C n_c) for n_c images of a class, n in all and C classes that have any; on average 1. They are those of all
    clients together, not a client's own: a client that has one class only would count each of its images once, however
    rare or common that is elsewhere, so that weights of their own change nothing where labels are skewed the most.

    Args:
        images: Of each class; at least one in all. A class without any, of which some client may have images that it
            did not tell of, has weight 1.
    """
    num_seen, num_images = sum(count > 0 for count in images), sum(images)
    return tuple(num_images / (num_seen * count) if count else 1.0 for count in images)
