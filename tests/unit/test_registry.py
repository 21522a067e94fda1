"""Names to implementations."""

import typing

import pytest

from fedsup_deploy import registry
from fedsup_deploy.config.registered import Registered
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space.families.resnet import ResNetFamily


def test_names_are_in_the_order_of_the_table() -> None:
    assert registry.names("strategy") == list(registry.TABLES["strategy"])
    assert registry.names("family")[:2] == ["mobilenet", "resnet"]


def test_resolve_imports_what_the_row_names() -> None:
    assert registry.resolve("family", "resnet") is ResNetFamily


@pytest.mark.parametrize("kind", ["family", "partition", "strategy", "engine"])
def test_every_row_names_something_documented(kind: str) -> None:
    for name in registry.names(kind):
        assert registry.resolve(kind, name).__doc__


@pytest.mark.parametrize(("kind", "key"), [("partition", "kind"), ("strategy", "name"), ("latency", "kind")])
def test_a_section_of_a_file_is_called_as_its_row(kind: str, key: str) -> None:
    sections = Registered(kind, key).sections()
    named = [typing.get_args(section.model_fields[key].annotation) for section in sections]
    assert named == [(name,) for name in registry.names(kind)]


def test_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^unknown family 'resnext'; did you mean 'resnet'\?$"):
        registry.resolve("family", "resnext")


def test_unknown_name_far_from_all_lists_them() -> None:
    with pytest.raises(ConfigError, match=f"^unknown family 'zzz'; known: {', '.join(registry.names('family'))}$"):
        registry.resolve("family", "zzz")


def test_names_of_all_kinds_are_spelled_alike() -> None:
    """Kinds of layers are no words of a user: they are spelled as in plans and in the parts of profiles."""
    for kind, table in registry.TABLES.items():
        for name, target in table.items():
            assert name == name.lower().replace(*"-_" if kind in {"layer", "computation"} else "_-")
            module, _, attribute = target.partition(":")
            assert module.startswith("fedsup_deploy.")
            assert attribute.isidentifier()
