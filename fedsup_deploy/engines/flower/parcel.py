"""The parcel that Flower makes of an app (a "FAB"): what ours holds, and whether one that has come is ours.

Ours holds no code: either side runs the `fedsup_deploy` that is installed there. So no other parcel is ever needed.
"""

import io
import zipfile
from typing import Final

from fedsup_deploy.federation import frame
from fedsup_deploy.ondevice.printable import printable

#: All that Flower has to know of the app. The version is that of this text, not of the package: which protocol a
#: message is of, it says itself.
APP: Final = """[project]
name = "fedsup-deploy"
version = "1.0.0"
description = "Carries jobs to clients."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedsup-deploy"

[tool.flwr.app.components]
serverapp = "fedsup_deploy.engines.flower.carrier:carrier"
clientapp = "fedsup_deploy.engines.flower.app:client_app"

[tool.flwr.app.config]
relay = ""
"""
#: The file of it, and the one in which Flower lists what a parcel holds.
CONFIG: Final = "pyproject.toml"
_CONTENT: Final = ".info/CONTENT"
#: Bytes of that file that are read, at most.
_MOST_BYTES: Final = 2**16


def what_is_foreign(parcel: bytes) -> str | None:
    """Return what in a parcel is not of ours, in a few words; None where it is ours.

    Nothing of it is written anywhere. Files are compared rather than the parcel's hash: two machines may pack the same
    files into other bytes.
    """
    import tomli

    try:
        with zipfile.ZipFile(io.BytesIO(parcel)) as archive:
            names = [info.filename for info in archive.infolist()]
            others = set(names) - {CONFIG, _CONTENT}
            if others:
                return f"it holds {printable(frame.short(min(others)))}"
            if len(names) != 2:
                return f"it holds {len(names)} files"
            with archive.open(CONFIG) as file:
                content = file.read(_MOST_BYTES)
        document = tomli.loads(content.decode("utf-8"))
    # Whatever else it is: nothing more is asked of it.
    except Exception as error:  # noqa: BLE001
        return f"it cannot be read: {type(error).__name__}"
    return None if document == tomli.loads(APP) else f"its {CONFIG} is another"


def refusal(run: int, why: str) -> str:
    """Return the line that says of a run that it is not ours."""
    return f"refused run {run}: {why}; only the fedsup-deploy that is installed runs here"
