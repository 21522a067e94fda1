"""A latency model that nobody ships: so many microseconds per million multiply-accumulates."""

from typing import Any, Literal

from fedsup_deploy.device.latency import LatencySection


class PerMac(LatencySection):
    kind: Literal["per-mac"]
    us_per_mmac: float

    @property
    def is_additive(self) -> bool:
        return True


class PerMacPredictor:
    section = PerMac

    def __init__(self, latency: PerMac) -> None:
        self._latency = latency

    def terms(self, costs: Any) -> Any:
        return costs.num_macs_NL.sum(axis=1, keepdims=True).astype(float)

    def latency(self, terms_NK: Any, _working_set_elements_N: Any) -> Any:
        return terms_NK[:, 0] / 1e6 * self._latency.us_per_mmac / 1e3

    def predict(self, costs: Any) -> Any:
        return self.latency(self.terms(costs), None)
