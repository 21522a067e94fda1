"""`MeasuresRecord`: what a network's answers are worth, as documents have it.

Owns its fields and what makes them valid. It defines no measure: `fedsup_deploy.measures` does.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import Field, model_validator

from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.answers import Answers, from_confusion
from fedsup_deploy.config.section import Section
from fedsup_deploy.measures import Measure, Measures, measures_of

Share = Annotated[float, Field(ge=0, le=1)]
#: The 95 % interval of a share or a mean of shares: lower and upper bound.
Interval = tuple[Share, Share]
#: Bounded, so that no sum of them is beyond 64 bits, whoever wrote the document.
Images = Annotated[int, Field(ge=0, le=10**12)]

#: With more classes a document leaves the confusion matrix out: it has so many numbers squared.
MOST_CLASSES_IN_CONFUSION: Final = 100
#: Of measures that follow from the confusion matrix.
_FOLLOWING: Final = ("balanced_accuracy", "macro_f1")


class ClassRecord(Section):
    """What was answered to the images of one class."""

    name: str
    """The class."""
    images: Images
    """Images of it."""
    answered: Images
    """How often it was answered, to images of any class."""
    recall: Share | None
    """Share of its images that were answered rightly; null without images."""
    recall_interval: Interval | None
    """Its 95 % interval, of Wilson."""


class MeasuresRecord(Section):
    """What answers are worth beside their accuracy, each with its 95 % interval. Only classes with images take part."""

    balanced_accuracy: Share
    """Mean of the recalls of all classes with images."""
    balanced_accuracy_interval: Interval
    """Of that."""
    macro_f1: Share
    """Mean over these classes of F1 = 2 right / (images + times answered)."""
    macro_f1_interval: Interval
    """Of that."""
    auc: Share | None
    """Of two classes the area under the ROC curve: how probably an image of the second has the higher score than one of
    the first; null of more classes, or where one has no images."""
    auc_interval: Interval | None
    """Of that."""
    calibration_error: Share
    """Expected calibration error: mean distance of confidence and share of right answers, over 15 bins."""
    calibration_error_interval: Interval
    """Of that: a wide one, which holds whatever the error is."""
    num_judged_classes: Annotated[int, Field(ge=1)]
    """Classes that have images."""
    classes: tuple[ClassRecord, ...] = Field(min_length=2)
    """Each class, in the order of the logits."""
    confusion: tuple[tuple[Images, ...], ...] | None
    """How many images of each class (rows) were answered with each class (columns); null with more than 100 classes."""

    @classmethod
    def of(cls, answers: Answers, names: Sequence[str]) -> "MeasuresRecord":
        """Return the record of answers, at least one.

        Args:
            answers: What was answered.
            names: Of the classes, in the order of the logits.
        """
        found = measures_of(answers)
        has_confusion = answers.num_classes <= MOST_CLASSES_IN_CONFUSION
        return cls.model_validate(
            {
                **_numbers(found),
                "num_judged_classes": found.num_judged,
                "classes": _classes(found, names),
                "confusion": tuple(map(tuple, answers.confusion().tolist())) if has_confusion else None,
            }
        )

    @property
    def num_images(self) -> int:
        """Images answered."""
        return sum(each.images for each in self.classes)

    @model_validator(mode="after")
    def _follows_from_its_counts(self) -> "MeasuresRecord":
        for each in self.classes:
            share, interval = each.recall, each.recall_interval
            if (share is None) != (each.images == 0) or (share is None) != (interval is None):
                raise ValueError(f"classes: {each.name}: expected a recall and its interval where there are images")
            if share is not None and CountedAccuracy.of_share(share, each.images).interval != interval:
                raise ValueError(f"classes: {each.name}: got another interval than that of {share} of {each.images}")
        if self.num_judged_classes != (judged := sum(each.images > 0 for each in self.classes)):
            raise ValueError(f"num_judged_classes: got {self.num_judged_classes}, expected {judged}")
        if (self.auc is None) != (self.auc_interval is None):
            raise ValueError("auc_interval: expected one where there is an AUC")
        if self.confusion is not None:
            self._check_confusion(self.confusion)
        return self

    def _check_confusion(self, confusion: tuple[tuple[int, ...], ...]) -> None:
        """Fail unless everything that follows from the matrix is what stands here."""
        count = len(self.classes)
        if len(confusion) != count or any(len(row) != count for row in confusion):
            raise ValueError(f"confusion: expected {count} rows of {count} numbers")
        if not any(map(any, confusion)):
            raise ValueError("confusion: got no image")
        found = measures_of(from_confusion(confusion))
        names = [each.name for each in self.classes]
        if tuple(each.model_dump() for each in self.classes) != _classes(found, names):
            raise ValueError("classes: got other numbers than those of the confusion matrix")
        expected = _numbers(found)
        for name in (*_FOLLOWING, *(f"{name}_interval" for name in _FOLLOWING)):
            if getattr(self, name) != expected[name]:
                raise ValueError(
                    f"{name}: got {getattr(self, name)}, expected {expected[name]}, of the confusion matrix"
                )


def _numbers(found: Measures) -> dict[str, Any]:
    """Return the measures that are one number, each with its interval."""
    by_name: dict[str, Measure | None] = {
        "balanced_accuracy": found.balanced_accuracy,
        "macro_f1": found.macro_f1,
        "auc": found.auc,
        "calibration_error": found.calibration_error,
    }
    numbers: dict[str, Any] = {}
    for name, one in by_name.items():
        numbers |= {name: one and one.value, f"{name}_interval": one and one.interval}
    return numbers


def _classes(found: Measures, names: Sequence[str]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "name": name,
            "images": each.images,
            "answered": each.answered,
            "recall": each.recall,
            "recall_interval": each.interval,
        }
        for name, each in zip(names, found.recalls, strict=True)
    )
