"""An app of somebody else, as whoever reaches a SuperLink can submit it. Where it has run, there is a file."""

from pathlib import Path

from fedsup_deploy.engines.flower.parcel import APP

#: The file, in the folder of Flower's on the machine that runs the app, and the one with what the nodes have answered.
MARK = "a stranger was here"
ANSWERS = "answers.json"
#: Of ours, what a parcel names.
MODULES = ("app", "carrier")
CODE = f"""
import json, os, time
from pathlib import Path
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

HOME = Path(os.environ["FLWR_HOME"])
(HOME / {MARK!r}).touch()
client_app = ClientApp()
carrier = ServerApp()

@client_app.query()
def answer(message, context):
    return Message(RecordDict(), reply_to=message)

@carrier.main()
def main(grid, context):
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.1)
    replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in nodes])
    told = [[each.error.code, each.error.reason] if each.has_error() else "answered" for each in replies]
    (HOME / "partial").write_text(json.dumps(told))
    (HOME / "partial").rename(HOME / {ANSWERS!r})
"""


def write_foreign(folder: Path) -> Path:
    """Write an app of another name, and return its folder."""
    text = APP.replace('"fedsup-deploy"', '"stranger"')
    for module in MODULES:
        text = text.replace(f"fedsup_deploy.engines.flower.{module}", "stranger")
    (folder / "foreign").mkdir()
    (folder / "foreign" / "pyproject.toml").write_text(text, encoding="utf-8")
    (folder / "foreign" / "stranger.py").write_text(CODE, encoding="utf-8")
    return folder / "foreign"


def write_modified(folder: Path) -> Path:
    """Write ours to the letter, beside a package of our name, which Python would find before what is installed."""
    package = folder / "modified" / "fedsup_deploy" / "engines" / "flower"
    package.mkdir(parents=True)
    (folder / "modified" / "pyproject.toml").write_text(APP, encoding="utf-8")
    for part in (package, package.parent, package.parent.parent):
        (part / "__init__.py").write_text("", encoding="utf-8")
    for module in MODULES:
        (package / f"{module}.py").write_text(CODE, encoding="utf-8")
    return folder / "modified"
