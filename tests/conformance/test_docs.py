"""Every page: its commands are commands, its links and paths lead somewhere, its code can be run."""

import re
import runpy
import shlex
from pathlib import Path

import click
import pytest
import yaml

import fedsup_deploy
from fedsup_deploy import resources
from fedsup_deploy.cli.main import cli
from fedsup_deploy.config.schema import load_train_config

REPOSITORY = Path(__file__).parents[2]
PAGES = [
    *(
        REPOSITORY / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "examples/README.md")
    ),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
COMMAND = re.compile(r"^\s*(?:\$ )?(fedsup-deploy [^\n]*)", re.MULTILINE)
TOP = (".ci", "benchmarks", "configs", "docs", "examples", "fedsup_deploy", "profiles", "tests", "tools")


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def fenced(page: Path, *languages: str) -> list[str]:
    """Return the code blocks in some languages; `""` is none."""
    return [code for language, code in FENCED.findall(page.read_text(encoding="utf-8")) if language in languages]


def commands_of(page: Path) -> list[str]:
    """Return the command lines of a page or config, without comments."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".yaml":
        found = COMMAND.findall("\n".join(line.removeprefix("#") for line in text.splitlines() if line.startswith("#")))
    else:
        blocks = "\n".join(fenced(page, "", "sh", "console", "bash")).replace("\\\n", " ")
        inline = [" ".join(code.split()) for code in INLINE.findall(FENCED.sub("", text))]
        found = [*COMMAND.findall(blocks), *(code for code in inline if code.startswith("fedsup-deploy "))]
    # What comes after > is the shell's.
    lines = [" ".join(map(shlex.quote, shlex.split(line.partition(" > ")[0], comments=True))) for line in found]
    return sorted({line for line in lines if "..." not in line})


def parse(line: str) -> tuple[click.Command, dict[str, object]]:
    """Parse a command line as the program would, but for whether its files are there. A mere name is a mention.

    Raises:
        UsageError: It is none.
    """
    command: click.Command = cli
    context = click.Context(cli, info_name="fedsup-deploy")
    words = shlex.split(line)[1:]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=found.name)
    if not words:
        return command, {}
    options, rest, _ = command.make_parser(context).parse_args(list(words))
    if rest:
        raise click.UsageError(f"unexpected {rest}")
    if "help" in options or "version" in options:
        return command, options
    for parameter in command.params:
        given = options.get(str(parameter.name))
        if parameter.required and not given:
            raise click.UsageError(f"missing {parameter.name}")
        if given and not isinstance(parameter.type, click.Path):
            parameter.type_cast_value(context, given)
    return command, options


LINES = sorted({(name_of(page), line) for page in (*PAGES, *CONFIGS) for line in commands_of(page)})


def test_pages_have_commands():
    assert len(LINES) > 15


@pytest.mark.parametrize("line", sorted({line for _, line in LINES}))
def test_a_command_line_is_understood(line):
    _, options = parse(line)
    config = options.get("config")
    if isinstance(config, str) and not config.endswith((".yaml", ".yml")):
        load_train_config(config, options.get("overrides") or ())
    for profile in options.get("profiles") or ():
        # `host` is what `profile build` makes.
        assert profile in {*resources.shipped_names("profiles"), "host"} or profile.endswith(".yaml"), profile


@pytest.mark.parametrize(
    "line",
    [
        "fedsup-deploy trian",
        "fedsup-deploy train --confg x",
        "fedsup-deploy train --resume",
        "fedsup-deploy export --search x --format onyx",
        "fedsup-deploy profile lst",
        "fedsup-deploy verify a b",
    ],
)
def test_a_wrong_command_line_would_be_found(line):
    with pytest.raises(click.UsageError):
        parse(line)


def test_every_command_is_told_of():
    told = {line.split()[1] for page in PAGES for line in commands_of(page)}
    assert told >= set(cli.list_commands(click.Context(cli)))


def test_the_command_line_page_is_that_of_the_program():
    page = runpy.run_path(str(REPOSITORY / "tools" / "cli_page.py"))["page"]()
    assert (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8") == page, "run: python tools/cli_page.py"


@every_page
def test_its_links_lead_somewhere(page):
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith(("https://", "http://")):
            assert (page.parent / target).exists(), target


@every_page
def test_the_paths_it_names_are_there(page):
    for code in INLINE.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        path = code.split()[0].rstrip("/.,")
        if path.split("/")[0] in TOP and "/" in path and not re.search(r"[*<>{}A-Z]", path):
            assert (REPOSITORY / path.partition("::")[0]).exists(), code


@every_page
def test_its_python_can_be_compiled_and_uses_what_there_is(page):
    for code in fenced(page, "python"):
        compile(code, str(page), "exec")
        for name in re.findall(r"\bfedsup_deploy\.(\w+)", code):
            assert hasattr(fedsup_deploy, name), name


@every_page
def test_its_configs_are_valid(page, tmp_path):
    for code in fenced(page, "yaml"):
        if "strategy" in yaml.safe_load(code):
            (tmp_path / "mine.yaml").write_text(code, encoding="utf-8")
            load_train_config(tmp_path / "mine.yaml")


@every_page
def test_no_placeholder_is_left(page):
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"^[A-Z]+(?:_[A-Z]+)+$", text, re.MULTILINE)
    assert not re.search(r"\b(TODO|FIXME|TBD|XXX)\b", text)


def test_the_targets_of_make_are_there():
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    told = {name for page in PAGES for name in re.findall(r"\bmake ([a-z-]+)", "\n".join(fenced(page, "", "sh")))}
    assert {"demo", "test"} <= told <= targets
