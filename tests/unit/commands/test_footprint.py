"""What cannot fit into memory is refused before any work, and nothing else is."""

import pytest

from fedsup_deploy import memory
from fedsup_deploy.commands.footprint import check_memory, least_bytes
from fedsup_deploy.config.schema import TrainConfig, load_train_config
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.runs.run import load_space
from fedsup_deploy.space.search_space import SearchSpace


def config_and_space(*overrides: str, name: str = "digits") -> tuple[TrainConfig, SearchSpace]:
    config = load_train_config(name, overrides)
    return config, load_space(config)


@pytest.mark.parametrize("name", ["digits", "cifar10", "fashion-mnist"])
def test_shipped_configs_fit_into_a_small_machine(name: str) -> None:
    assert 0 < least_bytes(*config_and_space(name=name)) < 2**30


def test_it_is_the_server_and_its_workers() -> None:
    config, space = config_and_space("engine.workers=1")
    more, _ = config_and_space("engine.workers=3")
    of_the_server = 16 * space.num_params
    of_a_worker = least_bytes(config, space) - of_the_server
    assert of_a_worker > 0
    assert least_bytes(more, space) == of_the_server + 3 * of_a_worker


def test_what_cannot_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config, space = config_and_space()
    needs = least_bytes(config, space)
    monkeypatch.setattr(memory, "machine_bytes", lambda: needs)
    check_memory(config, space)
    monkeypatch.setattr(memory, "machine_bytes", lambda: needs - 1)
    with pytest.raises(ConfigError, match=r"space digits: training needs at least .* GiB of memory"):
        check_memory(config, space)
