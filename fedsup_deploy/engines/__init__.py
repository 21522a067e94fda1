"""How tasks travel to clients. The rest of the package knows only `federated.tasks.Engine`."""
