"""`fedsup-deploy train`."""

from pathlib import Path

import click

from fedsup_deploy import registry
from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output
from fedsup_deploy.cli.signals import advising


@click.command("train", cls=Command)
@click.option("--config", required=True, metavar="FILE", help="A YAML file, or the name of a shipped config.")
@click.option("--out", type=options.NEW_PATH, metavar="RUN", help="Folder of the run.  [default: runs/NAME]")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace a setting: training.rounds=3.")
@click.option("--engine", type=click.Choice(registry.names("engine")), help="What runs the clients.")
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint; begin where there is none.")
@click.option(
    "--track",
    multiple=True,
    type=click.Choice(registry.names("tracker")),
    help="Also write curves elsewhere while it trains: `tensorboard` into RUN/tensorboard.",
)
@click.option("--dry-run", is_flag=True, help="Say what rounds would send to clients, ask nobody, write nothing.")
@options.seed_option(None, "Decides every random choice of the run.")
@click.pass_obj
def command(  # noqa: PLR0913, PLR0917  they are its options
    output: Output,
    config: str,
    out: Path | None,
    overrides: tuple[str, ...],
    engine: str | None,
    resume: bool,
    track: tuple[str, ...],
    dry_run: bool,
    seed: int | None,
) -> None:
    """Train a supernet over federated clients."""
    from fedsup_deploy.config.schema import load_train_config

    given = {"engine.name": engine, "seed": seed}
    assignments = [*overrides, *(f"{key}={value}" for key, value in given.items() if value is not None)]
    settings = load_train_config(config, assignments)
    if dry_run:
        from fedsup_deploy.commands.training_plan import plan_training

        output.emit(plan_training(settings).forecast)
        return
    from fedsup_deploy.runs import run as runs

    folder = out or runs.RUNS / settings.name

    def how_to_go_on() -> str:
        if (folder / runs.CONFIG).exists():
            return "the same command with --resume goes on from the last checkpoint"
        return "before the first checkpoint, so nothing was kept"

    with advising(how_to_go_on):
        # Only now: loading torch takes longer than finding a mistake in the config.
        from fedsup_deploy.commands.train import train

        if resume and not (folder / runs.CONFIG).exists():
            click.echo(f"note: no run at {folder} to go on with; starting one", err=True)
        with output.progress() as listeners:
            result = train(settings, out, resume=resume, listeners=listeners, command=output.command, track=track)
    output.emit(result)
