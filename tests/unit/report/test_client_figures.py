"""How right a subnet is on each client: read from what `evaluate` printed, the worst first."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.report.client_figures import (
    MOST_DRAWN,
    EvaluationMaterial,
    facts,
    figure,
    is_evaluation,
    load_evaluation,
    worst_in_words,
)


def one(client: int, num_right: int, name: str | None = None, num_images: int = 10) -> dict[str, Any]:
    return {"client": client, "name": name, "num_images": num_images, "num_right": num_right, "accuracy": 0.0}


def written(folder: Path, each: list[dict[str, Any]] | None, **more: Any) -> Path:
    over = {
        "images": "held out",
        "accuracy_mean": 0.75,
        "worst_decile": 0.5,
        **({} if each is None else {"each": each}),
    }
    document = {"run": "runs/a", "arch_id": "a" * 12, "split": "test", "schedule": "one-shot", "clients": over, **more}
    (folder / "clients.json").write_text(json.dumps(document))
    return folder / "clients.json"


def test_the_worst_client_comes_first_and_of_equals_the_one_with_more_images(tmp_path: Path) -> None:
    path = written(tmp_path, [one(0, 9), one(1, 5, "yard"), one(2, 50, num_images=100)])
    found = load_evaluation(path)
    assert is_evaluation(path)
    drawn = figure(found, "clients")
    assert drawn.table.rows == (
        ("client 2", "50.0 % (40.4 to 59.6)", "100"),
        ("yard", "50.0 % (23.7 to 76.3)", "10"),
        ("client 0", "90.0 % (59.6 to 98.2)", "10"),
    )
    assert [row["client"] for row in drawn.spec["data"]["values"]] == ["client 2", "yard", "client 0"]
    assert ("clients", "3 clients with 120 images held out") in facts(found).rows
    line = worst_in_words(EvaluationMaterial("clients.json", found))
    assert line.startswith("client 2 50.0 % (40.4 to 59.6), yard 50.0 %")
    assert "domain" not in json.dumps(drawn.spec)  # the axis is where the clients are
    assert line.endswith("in the mean of all clients 75.0 %, of the worst tenth 50.0 %, of images held out")


def test_of_many_clients_the_worst_are_drawn(tmp_path: Path) -> None:
    many = figure(load_evaluation(written(tmp_path, [one(client, client % 11) for client in range(99)])), "clients")
    assert len(many.spec["data"]["values"]) == MOST_DRAWN
    assert f"{MOST_DRAWN} of 99" in many.says


def test_unseen_clients_are_told_apart(tmp_path: Path) -> None:
    over = {"images": "all", "accuracy_mean": 0.25, "worst_decile": 0.0, "each": [one(7, 1)]}
    told = dict(facts(load_evaluation(written(tmp_path, [one(0, 9)], unseen=over))).rows)
    assert (told["clients"], told["clients, unseen"]) == (
        "1 client with 10 images held out",
        "1 client with 10 images all",
    )


@pytest.mark.parametrize("each", [None, [], [one(0, 11)], [{"client": 0}]])
def test_what_tells_of_no_client_is_refused_with_the_command_that_does(tmp_path: Path, each: Any) -> None:
    with pytest.raises(ArtifactError, match=r"clients.json: tells of no client: .*--per-client --json"):
        load_evaluation(written(tmp_path, each))


def test_a_search_is_no_evaluation(tmp_path: Path) -> None:
    for text in ('{"results": []}', "[]", "{"):
        (tmp_path / "a.json").write_text(text)
        assert not is_evaluation(tmp_path / "a.json")
    assert not is_evaluation(tmp_path / "none.json")
