"""`Section`: a group of settings, figures or facts in a file of ours, and the types of values that are common there."""

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
#: Of profiles, which are files and folders of bundles as well.
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]


def _with_port(address: str) -> str:
    if not 1 <= int(address.rpartition(":")[2]) <= 65_535:
        raise ValueError("expected host:port, with a port from 1 to 65535")
    return address


#: Of a SuperLink: host:port.
Address = Annotated[str, Field(pattern=r"^[^\s/:]+:[0-9]{1,5}$"), AfterValidator(_with_port)]
#: Beyond it nothing is a figure: in any unit of ours it is more than a device has, and sums of such overflow.
_MOST: Final = 1e15
Positive = Annotated[float, Field(gt=0, le=_MOST)]
NotNegative = Annotated[float, Field(ge=0, le=_MOST)]


class Section(BaseModel):
    """Part of a file: cannot be changed, refuses unknown keys, converts no value; every number is finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
