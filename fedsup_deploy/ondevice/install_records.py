"""What `install.py` reports, as types of a JSON document. No device has this module, as of `records`."""

from typing import Literal, Optional

from typing_extensions import TypedDict

from fedsup_deploy.ondevice.records import Files


class Moved(TypedDict):
    """What an update copied to a device, and what was there already."""

    copied_files: int
    copied_bytes: int
    linked_files: int
    linked_bytes: int


class Installation(TypedDict):
    """What `install.py` did."""

    schema: int
    action: Literal["installed", "unchanged", "rolled back"]
    """What was done, or would have been."""
    release: Optional[str]
    """The folder of what runs now; None where nothing does."""
    previous: Optional[str]
    """What --rollback goes back to; None where there is nothing."""
    version: Optional[int]
    """Of the bundle; None where no signature was checked, or it gives none."""
    signature: Literal["checked", "not checked", "none"]
    """`none` where there is none, `not checked` where no key was given."""
    files: Optional[Files]
    """Of the bundle."""
    moved: Optional[Moved]
    exit_code: int
    reason: Optional[str]
