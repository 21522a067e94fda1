"""How jobs travel to clients. The rest of the package knows only `federation.messages.Engine`."""
