"""Where the program begins: signals are heard before anything large is imported, which takes a moment."""

from fedsup_deploy.cli import signals


def main() -> int:
    """Run the command line with the words of this process and return its exit code.

    Side effects: As of `cli.main.main`; afterwards no signal disturbs the end of the process.
    """
    try:
        with signals.stoppable(until_exit=True):
            from fedsup_deploy.cli.main import main as run

            return run()
    except signals.Stopped as stop:  # before there was a command line
        return signals.exit_code(stop)
