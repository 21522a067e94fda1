"""`fedsup-deploy evaluate`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output

if TYPE_CHECKING:
    from fedsup_deploy.artifact.measures import ClassRecord, MeasuresRecord
    from fedsup_deploy.cli.tables import Page, Row
    from fedsup_deploy.commands.evaluate import ClientAccuracy, Evaluated, OneClient

#: What is to be said of images that are not the server's.
_OF_CLIENTS: Final = {
    "tested": "Evaluated on test images of the clients' own: the server has none.",
    "held-out": "Evaluated on what clients hold out, which subnets are chosen by.",
}
#: By which images of clients figures are of, as results have it: in words.
_THEIR_IMAGES: Final = {
    "tested": "test images of their own",
    "held out": "what they hold out",
    "trained on": "what they train on",
    "all": "all images",
}
#: Of more classes the confusion matrix is no table that anybody reads; `--json` has it of more.
_MOST_CLASSES_IN_TABLE: Final = 12
#: Of more clients those with the lowest accuracy are shown.
_MOST_CLIENTS_IN_TABLE: Final = 50


@click.command("evaluate", cls=Command)
@options.run_argument()
@options.arch_option()
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "tested", "held-out"]),
    help="Images to evaluate on: test or validation of the server, tested for test images of clients' own, or those "
    "that clients hold out. Default: the first that there are of test, tested and held-out.",
)
@click.option(
    "--per-client",
    is_flag=True,
    help="Also the accuracy on each client, and the means over clients, and of the worst tenth, of accuracy and "
    "balanced accuracy: on test images of their own, or what they hold out, or train on. The means always where "
    "clients have test images or are unseen.",
)
@options.schedule_option()
@options.engine_option()
@click.pass_obj
def command(
    output: Output,
    run: Path,
    architecture: str,
    split: str | None,
    per_client: bool,
    schedule: str | None,
    engine: str | None,
) -> None:
    """Measure how right one subnet is after recalibration.

    Accuracy, balanced accuracy, macro-F1, calibration error, of two classes the AUC, each with its 95 % interval; the
    recall of each class, and which classes are taken for which.
    """
    from fedsup_deploy.commands.evaluate import evaluate

    with output.progress() as listeners:
        result = evaluate(
            run,
            architecture,
            split=split,
            per_client=per_client,
            schedule=schedule,
            engine=engine,
            listeners=listeners,
        )
    output.emit(result, _page)


def _page(result: "Evaluated") -> "Page":
    from fedsup_deploy.cli import tables

    measures, document = result.measures, result.to_dict()
    about = {name: document[name] for name in ("run", "arch_id", "architecture", "split", "num_images", "schedule")}
    shares = {"accuracy": options.share(result.accuracy, result.accuracy_interval), **_shares(measures)}
    over = {name: found for name in ("clients", "unseen") if (found := getattr(result, name)) is not None}
    clients: Row = {name: {key: of for key, of in vars(found).items() if key != "each"} for name, found in over.items()}
    facts = {**about, **shares, **clients, "costs": document["costs"]}
    pages = [tables.overview(facts), tables.text(""), tables.rows([_class_row(each) for each in measures.classes])]
    for name, who in (("clients", "client"), ("unseen", "unseen client")):
        pages += _each_client(who, over[name]) if name in over else []
    if measures.confusion is not None and len(measures.classes) <= _MOST_CLASSES_IN_TABLE:
        pages += [tables.text(""), tables.text("Images of a class (rows) by the class answered (columns):")]
        pages += [tables.rows(_confusion(measures))]
    left_out = len(measures.classes) - measures.num_judged_classes
    said = f"; {left_out} of {len(measures.classes)} classes have no images and take no part" if left_out else ""
    of_clients = [_OF_CLIENTS[result.split]] if result.split in _OF_CLIENTS else []
    return tables.titled(tables.stacked(*pages), *of_clients, f"In brackets: the 95 % interval, in percent{said}.")


def _shares(measures: "MeasuresRecord") -> "Row":
    auc = {} if measures.auc is None else {"AUC": options.share(measures.auc, measures.auc_interval)}
    return {
        "balanced accuracy": options.share(measures.balanced_accuracy, measures.balanced_accuracy_interval),
        "macro-F1": options.share(measures.macro_f1, measures.macro_f1_interval),
        **auc,
        "calibration error": options.share(measures.calibration_error, measures.calibration_error_interval),
    }


def _each_client(who: str, found: "ClientAccuracy") -> "Iterator[Page]":
    """Yield the table of each client, the lowest accuracy first; nothing where none is told of."""
    from fedsup_deploy.cli import tables

    if found.each is None:
        return
    yield tables.text("")
    yield tables.text(f"Each {who}, {_THEIR_IMAGES[found.images]}:")
    worst_first = sorted(found.each, key=lambda each: each.accuracy)
    yield tables.rows([_client_row(each) for each in worst_first], most=_MOST_CLIENTS_IN_TABLE)


def _client_row(each: "OneClient") -> "Row":
    who = each.client if each.name is None else each.name
    return {"client": who, "images": each.num_images, "accuracy": options.share(each.accuracy, each.interval)}


def _class_row(each: "ClassRecord") -> "Row":
    recall = None if each.recall is None else options.share(each.recall, each.recall_interval)
    return {"class": each.name, "images": each.images, "recall": recall, "answered": each.answered}


def _confusion(measures: "MeasuresRecord") -> "list[Row]":
    names = [each.name for each in measures.classes]
    matrix = measures.confusion or ()
    return [{"of class": name, **dict(zip(names, row, strict=True))} for name, row in zip(names, matrix, strict=True)]
