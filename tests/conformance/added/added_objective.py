"""An objective that nobody ships: few live activations."""

from typing import Any

from fedsup_deploy.searchers.objective import Objective


def live_kib(prices: Any) -> Any:
    return prices.mib(prices.peak_elements) * 1024


OBJECTIVE = Objective("live_kib", "KiB alive", price=live_kib)
