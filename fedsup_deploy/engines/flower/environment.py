"""What processes of a Flower run are told by environment variables, by us and of us."""

from typing import Final

from fedsup_deploy.libraries import ENVIRONMENT

#: Where a command is to wait for the app that carries for it, instead of starting a run.
RELAY: Final = "FEDSUP_FLOWER_RELAY"
#: Of a simulation: the file with all clients, which a node takes from nobody else; and where blobs are kept.
WORK: Final = "FEDSUP_FLOWER_WORK"
BLOBS: Final = "FEDSUP_FLOWER_BLOBS"
#: In the settings of a node: the config of the device that it is.
OWN: Final = "client"
#: Nothing phones home, asks for updates or installs anything.
QUIET: Final = {
    **ENVIRONMENT,
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    # Seconds between looks whether a process is to be started, which each message waits for.
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
