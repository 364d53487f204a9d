"""Configurations with rollouts, and their scopes moved by hand."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from router.config.config import Config
from router.plan.claim import BASELINE, BucketMap
from router.plan.compile import States, compile_plan, scopes_of
from router.plan.condition import compile_audiences
from router.plan.layers import next_maps
from router.plan.plan import Model, Plan, Rule
from router.plan.rollout import Phase, ScopeState

VERSIONS = {"credit": (1, 2, 3, 4)}
AUDIENCES = [
    {"name": "new-york", "when": {"key": "location", "exact": "new-york"}},
    {"name": "california", "when": {"key": "location", "exact": "california"}},
    {"name": "low-risk", "when": {"key": "input.amount", "lt": 1000}},
    {"name": "adults", "when": {"key": "age", "range": [18, 120]}},
]
LADDER: list[dict[str, Any]] = [
    {"weight": {"to": 5, "for": "1h"}},
    {"weight": {"to": 100}},
    {"bake": {"for": "1h"}},
]


def config(*rollouts: dict[str, Any], **sections: Any) -> Config:
    model = {"name": "credit", "repository": "models/credit", "stable": 1}
    value = {
        "api_version": "router/v1",
        "models": [model | sections.pop("model", {})],
        "audiences": AUDIENCES,
        "rollouts": rollouts,
        **sections,
    }
    return Config.model_validate(value)


def rollout(name: str = "credit-2", **settings: Any) -> dict[str, Any]:
    several = "candidates" in settings
    candidate: dict[str, Any] = {} if several else {"candidate": 2}
    made = {"name": name, "model": "credit", "steps": LADDER, **candidate}
    return made | settings


class Moves:
    """The scopes of a configuration as a controller would move them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.states = States(VERSIONS)
        self.audiences = compile_audiences(config.audiences)

    def set(
        self, scope: str, weights_bp: Mapping[int, int] | int, wave: int = 0
    ) -> ScopeState:
        """Give a scope's candidates these weights; ClaimError when it cannot be."""
        scopes = {spec.scope: (spec, state) for spec, state in self.scopes()}
        spec, state = scopes.pop(scope)
        if isinstance(weights_bp, int):
            weights_bp = dict.fromkeys(spec.candidates, weights_bp)
        state = replace(state, wave=wave, phase=Phase.RAMPING, weights_bp=weights_bp)
        maps = next_maps(
            spec, state, weights_bp, tuple(scopes.values()), self.config.holdouts,
            self.audiences,
        )  # fmt: skip
        moved = state.revision + (maps != state.maps)
        return self.put(replace(state, maps=maps, revision=moved))

    def put(self, state: ScopeState) -> ScopeState:
        scopes = {**self.states.scopes, state.scope: state}
        self.states = replace(self.states, scopes=scopes)
        return state

    def roll_back(self, scope: str) -> ScopeState:
        state = {spec.scope: state for spec, state in self.scopes()}[scope]
        ended = replace(state, phase=Phase.ROLLED_BACK, maps=(), wave=0, weights_bp={})
        return self.put(ended)

    def scopes(self) -> Any:
        return scopes_of(self.config, self.states)

    def state(self, scope: str) -> ScopeState:
        return self.states.scopes[scope]

    def plan(self) -> Plan:
        return compile_plan(self.config, self.states)

    def model(self) -> Model:
        return self.plan().models[0]

    def rules(self) -> dict[str, Rule]:
        return {rule.name: rule for rule in self.model().rules}


def held(buckets: BucketMap, version: int) -> frozenset[int]:
    return frozenset(dict(buckets.claims).get(version, ()))


def candidates_of(buckets: BucketMap) -> dict[int, int]:
    """The candidate of each bucket that has one."""
    return {b: v for v, taken in buckets.claims if v != BASELINE for b in taken}
