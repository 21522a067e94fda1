"""How a training went, in lines: warnings, who was absent, who was never asked, whether it has ended rising, bytes."""

from collections.abc import Iterator, Sequence
from typing import Final

from fedsup_deploy.report import apart, trend, words
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.run_events import CORNERS, AskedClients
from fedsup_deploy.space import cost

#: Weights travel as fp32.
_BYTES_OF_A_WEIGHT: Final = 4


def in_words(material: RunMaterial) -> Iterator[str]:
    """Yield how the training of a run went."""
    history, name = material.history, material.run.config.name
    warned, rounds = history.health, words.counted(len(history.asked), "round")
    if warned:
        last = f"the last in round {warned[-1].round + 1}: {warned[-1].words}"
        yield f"{name}: {words.counted(len(warned), 'warning')} in {rounds}, {last}; {who_took_part(material)}"
    else:
        yield f"{name}: nothing was warned of in {rounds}; {who_took_part(material)}"
    if history.skipped:
        yield f"{name}: {words.counted(len(history.skipped), 'round')} skipped, as too few clients answered"
    if (told := sizes(material)) is not None:
        yield f"{name}: {told}"
    yield from (f"{name}: {line}" for line in trend.fallen(history.evaluations))


def who_took_part(material: RunMaterial) -> str:
    """Return how many updates came, how many of these were rejected, and how many clients were never asked for any."""
    rounds = material.history.asked
    asked = sum(len(each.clients) for each in rounds)
    missing = asked - sum(len(each.answered) for each in rounds)
    rejected = sum(len(each.rejected) for each in rounds)
    came = f"{asked - missing + rejected:,} of {words.counted(asked, 'update')} came"
    told = f"{came}, {rejected:,} rejected" if rejected else f"{came}, none rejected"
    once = {client for each in rounds for client in each.clients}
    never = sum(client not in once for client in material.seen)
    return f"{told}; never asked: {never:,} of {words.counted(len(material.seen), 'client')}" if never else told


def rising(material: RunMaterial) -> Iterator[str]:
    """Yield whether accuracy still rose at the end, and what has fallen below its best."""
    if (told := trend.in_words(material.history.evaluations)) is not None:
        yield told
    yield from trend.fallen(material.history.evaluations)


def sizes(material: RunMaterial) -> str | None:
    """Return what the largest and the smallest subnet are beside each other, and what that means."""
    kept = material.kept
    if kept is None:
        return None
    large, small = (kept.interval(corner) for corner in CORNERS)
    both = " and ".join(words.share(kept.accuracy(corner), kept.interval(corner)) for corner in CORNERS)
    is_apart = apart.can_be(large, small)
    if is_apart is False:
        told = "cannot be told apart, which is good for small devices: they lose nothing that these images can tell"
    elif is_apart and kept.accuracy("largest") < kept.accuracy("smallest"):
        told = "are the wrong way round: the largest is worse, so it has not learned enough yet"
    elif is_apart:
        told = "can be told apart, as they should be where size counts: small devices lose some accuracy"
    else:
        return None
    return f"the largest and the smallest subnet {told}: {both}"


def bytes_of_a_client(rounds: Sequence[AskedClients]) -> str | None:
    """Return what a client moves each time it takes part, in the mean; None where none did."""
    asked = sum(len(each.clients) for each in rounds)
    came = sum(len(each.answered) + len(each.rejected) for each in rounds)
    if not asked or not came:
        return None
    down = sum(each.bytes_down for each in rounds) / asked
    up = sum(each.bytes_up for each in rounds) / came
    told = "and sends as much" if down == up else f"and sends {words.size(up)}"
    return f"each time it is asked it is sent {words.size(down)} in the mean {told}"


def traffic(material: RunMaterial) -> Iterator[str]:
    """Yield how many bytes a client moves, with what the smallest and the largest subnet weigh."""
    if (told := bytes_of_a_client(material.history.asked)) is None:
        return
    space = material.run.space
    corners = cost.costs_of(space, [getattr(space, corner) for corner in CORNERS])
    weights = dict(zip(CORNERS, (_BYTES_OF_A_WEIGHT * int(number) for number in corners.num_params), strict=True))
    yield (
        f"{told}; the weights of the smallest subnet are {words.size(weights['smallest'])}, "
        f"of the largest {words.size(weights['largest'])}"
    )
    down, up = (sum(getattr(each, way) for each in material.history.asked) for way in ("bytes_down", "bytes_up"))
    yield f"all clients together: {words.size(down)} to them and {words.size(up)} from them"
