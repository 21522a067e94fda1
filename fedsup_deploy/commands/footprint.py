"""The memory that training needs at least: what cannot fit is refused before anything is written.

Counts only what every run must hold at one time, so that nothing is refused that could work.
"""

from typing import Final

from fedsup_deploy import memory
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space import cost
from fedsup_deploy.space.search_space import SearchSpace

#: Bytes of a parameter on the server: before and after a round in float32, and the sum over clients in int64.
_BYTES_ON_THE_SERVER: Final = 4 + 4 + 8
_GIB: Final = 2**30


def check_memory(config: TrainConfig, space: SearchSpace) -> None:
    """Fail if a training run needs more memory than this machine has.

    Args:
        config: Of the run.
        space: Its search space, with the channels and classes of its data.

    Raises:
        ConfigError: It does; the message says how much, and what would lessen it.
    """
    has, needs = memory.machine_bytes(), least_bytes(config, space)
    if needs > has:
        raise ConfigError(
            f"space {space.name}: training needs at least {needs / _GIB:,.1f} GiB of memory, this machine has "
            f"{has / _GIB:,.1f} GiB; make widths, kernels, depths or resolutions of the space smaller, or set "
            "calibration.batch_size or engine.workers lower"
        )


def least_bytes(config: TrainConfig, space: SearchSpace) -> int:
    """Return the memory that the server and its workers need at least, in bytes.

    The server holds the supernet; each worker evaluates the largest subnet, which all runs do at their end, on a batch
    of images.
    """
    largest = cost.costs_of(space, [space.largest]).row(0)
    num_images = min(config.calibration.batch_size, config.calibration.samples_per_client)
    of_a_worker = 4 * largest["num_params"] + num_images * largest["peak_activation_bytes"]
    return _BYTES_ON_THE_SERVER * space.num_params + config.engine.workers * of_a_worker
