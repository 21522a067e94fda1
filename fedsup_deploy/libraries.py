"""What the libraries we use are told by environment variables: start nothing, leave nothing, call nobody.

A library reads its variable when it is imported, so a process must have them before: the command line gives them to
itself, and worker processes get them from whoever starts them.
"""

from pathlib import Path
from typing import Final

ENVIRONMENT: Final = {
    # scikit-learn comes with joblib, which makes named semaphores; a process that is killed leaves them in /dev/shm.
    "JOBLIB_MULTIPROCESSING": "0",
    # onnxruntime's telemetry, which also leaves a file .ses in the folder for temporary files.
    "ORT_DISABLE_TELEMETRY": "1",
    # torch makes this folder for compiled code as soon as an optimiser is made. Nothing is compiled here, so any folder
    # that exists will do; the usual one would be left in the folder for temporary files.
    "TORCHINDUCTOR_CACHE_DIR": str(Path(__file__).parent),
    # Should a library start Python (3.11 or newer), then not with the modules that lie in the current folder.
    "PYTHONSAFEPATH": "1",
}
