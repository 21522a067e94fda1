"""How a training went, in lines: warnings, who was absent, who was never asked, whether it has ended rising."""

from collections.abc import Iterator

from fedsup_deploy.report import apart, words
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.run_events import CORNERS, Evaluation


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
    yield from (f"{name}: {line}" for line in endings(material))


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


def endings(material: RunMaterial) -> Iterator[str]:
    """Yield whether accuracy still rose at the end, as far as that can be told apart, and whether the sizes can be."""
    found = material.history.evaluations
    if len(found) > 1:
        before, last = found[-2:]
        rounds = words.counted(last.round - before.round, "round")
        rising = [
            f"the {corner} subnet {words.points(last.accuracy(corner) - before.accuracy(corner))}"
            for corner in CORNERS
            if last.accuracy(corner) > before.accuracy(corner) and _are_apart(last, corner, before, corner)
        ]
        if rising:
            yield f"accuracy still rose in the last {rounds}: {', '.join(rising)}; more rounds may bring more"
    kept = material.kept
    if kept is None:
        return
    if _are_apart(kept, CORNERS[0], kept, CORNERS[1]) is False:
        both = " and ".join(words.share(kept.accuracy(corner), kept.interval(corner)) for corner in CORNERS)
        yield f"the largest and the smallest subnet cannot be told apart: {both}"


def _are_apart(one: Evaluation, corner: str, other: Evaluation, of_other: str) -> bool | None:
    return apart.can_be(one.interval(corner), other.interval(of_other))
