"""`fedsup-deploy extract`: the weights of one subnet as a file of their own. Imports torch."""

import dataclasses
from pathlib import Path

from fedsup_deploy import places
from fedsup_deploy.commands.recalibrate import check_out, write_subnet
from fedsup_deploy.results import Result
from fedsup_deploy.runs.federation import load_supernet
from fedsup_deploy.runs.run import open_run


@dataclasses.dataclass(frozen=True)
class Extracted(Result):
    """A subnet's own weights, in a file.

    Args:
        run: The run's folder.
        arch_id: Of the subnet.
        num_tensors: In the file.
        out: The file.
    """

    run: Path
    arch_id: str
    num_tensors: int
    out: Path


def extract(run_path: Path, architecture_name: str, out: Path) -> Extracted:
    """Write a subnet's weights, not calibrated, with its architecture."""
    check_out(out)
    run = open_run(run_path)
    architecture = run.architecture(architecture_name)
    with places.hold(out, advice=places.CHOOSE_OUT):
        subnet = load_supernet(run).extract(architecture)
        write_subnet(out, run, architecture, subnet, None)
    return Extracted(run_path, architecture.arch_id, len(subnet.weights), out)
