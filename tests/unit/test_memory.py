"""How much memory there is for this process."""

import subprocess
import sys
from pathlib import Path

from fedsup_deploy import memory


def test_it_is_no_more_than_the_machine_has() -> None:
    _, kib, *_ = Path("/proc/meminfo").read_text(encoding="ascii").split()
    assert 2**26 < memory.machine_bytes() <= int(kib) * 1024


def test_it_is_no_more_than_the_process_may_have() -> None:
    script = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32)); "
    script += "from fedsup_deploy import memory; print(memory.machine_bytes() <= 2**32)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "True\n"


def test_memory_that_was_freed_serves_the_next_array() -> None:
    """An array of 64 MiB, made again and again: it takes new pages each time, or never after the first."""
    script = """
import resource, sys
from fedsup_deploy import memory
if sys.argv[1] == "kept":
    memory.keep_freed()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"1" * 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(max(faults() for _ in range(5)))
"""
    usual, kept = (
        int(subprocess.run([sys.executable, "-c", script, how], capture_output=True, text=True, check=True).stdout)
        for how in ("usual", "kept")
    )
    assert usual > 10 * kept
