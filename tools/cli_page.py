"""Write docs/cli.md from the help of the commands and the exception tree. Run: python tools/cli_page.py."""

from pathlib import Path

import click

from fedsup_deploy import errors
from fedsup_deploy.cli.main import cli

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"

HEAD = """# Command line

Written by `tools/cli_page.py` from the commands' own help.

Results go to stdout: a short table, or with `--json` one JSON document and nothing else. Progress and errors go to
stderr. The global options may stand before or after the command.

## Exit codes

| code | meaning |
| --- | --- |
| 0 | done |
"""

FILES = """
## Files

| file | what |
| --- | --- |
| `RUN/config.resolved.yaml`, `space.yaml`, `command.json` | what the run was made with |
| `RUN/data.json` | classes, clients, the images' size and fingerprint, and the preprocessing that pixels led to |
| `RUN/events.jsonl` | events, one per line: rounds (losses, clients, bytes, time), evaluations, [warnings](health.md) |
| `RUN/checkpoint/state.safetensors` | the newest checkpoint; `train --resume` continues from it |
| `RUN/checkpoint/best.safetensors` | the best supernet so far, with `training.keep: best` |
| `RUN/supernet.safetensors` | the trained weights |
| `RUN/statistics/` | client statistics of subnets, taken when first needed |
| `RUN/evaluations/` | accuracies of subnets, each found once; removing it costs time only |
| `RUN/accuracy.safetensors` | the accuracy predictor that `fit-accuracy` made |
| `RUN/search.json` | the newest search: limits, candidates, front and pick per profile |
| `RUN/search.json.unfinished` | a search is running, or was stopped; `search --resume` goes on |
| `exports/index.json`, `index.md` | what each class has ([search.md](search.md#what-each-class-has-the-index)) |
| `exports/PROFILE/ARCH_ID/` | a bundle: model files, `manifest.json`, `vectors.npz`, `MODEL_CARD.md` |
| `exports/PROFILE/ARCH_ID/run.py`, `install.py` | of a bundle: what checks and installs it on a device |
| `exports/PROFILE/ARCH_ID/SHA256SUMS` | the hash of each of these files; `sha256sum -c SHA256SUMS` checks them |
| `exports/PROFILE/ARCH_ID/model.sig` | who made it, and its version, after `sign` ([signing.md](signing.md)) |
| `exports/PROFILE/ARCH_ID/measured.json` | what `measure` found; every other file stays as it was exported |

One command at a time writes a run, a search's result, a bundle or a profile. A second one for the same place ends with
exit code 8, and says which process holds it; what takes moments, such as keeping one accuracy, waits its turn instead.
While a command holds a place `x` there is a `.x.fedsup-lock` beside it (`.this-folder.fedsup-lock` inside a run), or on
a file system without locks a link `.x.fedsup-holder`; what is being written is called `.x.partial-` and eight digits.
If a command is killed these may stay. They mean nothing then, and the next command that writes in that folder removes
them. Only the link of a process on another machine must be removed by hand; the message says so. A symbolic link at an
output's place stays, and what it leads to is replaced. A run that cannot be written is evaluated, searched (`--out`),
exported and deployed (`search.json` is then beside the bundles) as well; its `statistics/` and `evaluations/` are not
kept, which a `note:` says.

`run.py` takes `--json`, `--threads N`, `--protocol quick|full`, `--seconds S`, `--skip-latency` and `--images PATH...`
([devices.md](devices.md#measure-on-a-device)), or `--classify` and images, with `--precision fp32|int8`
([devices.md](devices.md#classify-images-on-a-device)). It is a program of its own, with other exit codes: 0 passed, 1 a
file was altered, 2 usage, or a package is missing or too old, 3 other outputs, 4 outputs depend on the batch, 5 a file
is missing, 6 the model cannot be run there, 7 an image cannot be classified or timed, 8 its onnxruntime is known to
fail on that device; [no other machine](devices.md#is-this-the-device) is held to that.

`install.py BUNDLE --to FOLDER` takes `--key PUB`, `--keep N`, `--rollback` and `--json`
([signing.md](signing.md#let-a-device-change-to-a-bundle-and-go-back)). It ends as `run.py` does, or with 9 where the
version is lower than one that was there, and 10 where it cannot be written or another installation is at work.
"""


def page() -> str:
    """Return the text of the page."""
    kinds = [errors.FedsupError, *errors.FedsupError.__subclasses__()]
    rows = [f"| {kind.exit_code} | {(kind.__doc__ or '').splitlines()[0]} |" for kind in kinds]
    rows += [
        "| 70 | A mistake of ours; `--debug` shows where. |",
        "| 130 | Stopped with Ctrl-C; long work can be resumed. 143 and 129: the same by SIGTERM, or SIGHUP. |",
    ]
    context = click.Context(cli, info_name="fedsup-deploy", max_content_width=110)
    parts = [HEAD + "\n".join(rows) + "\n" + FILES, *_helps(cli, context, 2)]
    return "\n".join(parts)


def _helps(command: click.Command, context: click.Context, level: int) -> list[str]:
    # Every command lists the global options, last; once is enough.
    text = command.get_help(context)
    if level > 2:
        text, _, _ = text.partition("\n  --json")
        text = text.removesuffix("\n\nOptions:")
    title = f"{'#' * level} `{context.command_path}`"
    parts = [f"{title}\n\n```\n{text.strip()}\n```\n"]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            below = click.Context(inner, parent=context, info_name=name, max_content_width=110)
            parts += _helps(inner, below, level + 1)
    return parts


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
