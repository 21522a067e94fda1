"""What devices have announced, as devices of a list: those that are possible, and go together."""

from collections.abc import Mapping

from fedsup_deploy.data.devices import AnnouncedDevice, usual_form
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.frame import one_line
from fedsup_deploy.federation.jobs.announce import Announcement


def device_of(name: str, said: Announcement) -> AnnouncedDevice:
    """Return the device that has announced something.

    Raises:
        DataError: No device can have what it says; the message says in one line why.
    """
    counts = {"trained": said.trained_K, "held_out": said.held_out_K, "tested": said.tested_K}
    if any(each.ndim != 1 for each in counts.values()):
        raise DataError("counts in other dimensions than one")
    document = {
        "name": name,
        "tier": said.tier,
        "profile": said.profile or None,
        "classes": said.classes,
        "shape": (said.height, said.width, said.channels),
        "pixel_dtype": said.pixel_dtype,
        "resize": said.resize or None,
        "fingerprint": said.fingerprint,
        **{key: tuple(each.tolist()) for key, each in counts.items()},
    }
    try:
        device = AnnouncedDevice.model_validate(document)
    except ValueError as error:
        raise DataError(one_line(error)) from error
    if (problem := device.problem()) is not None:
        raise DataError(problem)
    return device


def devices_of(announced: Mapping[str, Announcement]) -> tuple[tuple[AnnouncedDevice, ...], dict[str, str]]:
    """Return the devices that can take part, in the order of their names, and why the others cannot.

    Who says what no device can have cannot, nor who has other classes than most, or other images.
    """
    devices: list[AnnouncedDevice] = []
    unfit: dict[str, str] = {}
    for name, said in sorted(announced.items()):
        try:
            devices.append(device_of(name, said))
        except DataError as error:
            unfit[name] = str(error)
    if devices:
        most = usual_form(devices)
        differences = {device.name: device.form.differs_from(most) for device in devices}
        unfit |= {name: difference for name, difference in differences.items() if difference is not None}
    return tuple(device for device in devices if device.name not in unfit), unfit
