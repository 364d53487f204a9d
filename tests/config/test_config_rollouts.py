"""Every problem that a rollout can have, said with its place and its remedy."""

from typing import Any

import pytest

from router.config.check import Checks, check_config
from router.config.config import Config
from router.config.load import read_config
from router.config.problems import Known, path_text
from router.errors import ConfigError
from router.plan.check_shares import check_shares

LADDER: list[dict[str, Any]] = [
    {"weight": {"to": 5, "for": "2h"}},
    {"weight": {"to": 100}},
]
AB = {"strategy": "ab", "split": 50, "primary": {"metric": "reward"}, "horizon": "7d"}
NY = {"name": "new-york", "when": {"key": "location", "exact": "new-york"}}
CA = {"name": "california", "when": {"key": "location", "exact": "california"}}
ADULT = {"name": "adult", "when": {"key": "age", "gte": 18}}
CHECKS = Checks(lambda _: (1, 2, 3, 4), find_rivals=check_shares)

Found = list[tuple[str, str]]


def rollout(**settings: Any) -> dict[str, Any]:
    base = {"name": "r", "model": "credit", "candidate": 2, "steps": LADDER}
    made = base | settings
    return {key: value for key, value in made.items() if value is not None}


def found(*rollouts: dict[str, Any], **sections: Any) -> Found:
    model = {"name": "credit", "repository": "r", "stable": 1}
    config = Config.model_validate(
        {
            "api_version": "router/v1",
            "models": [model | sections.pop("model", {})],
            "audiences": [NY, CA, ADULT],
            "rollouts": rollouts,
            **sections,
        }
    )
    return [
        (path_text(finding.path), finding.message)
        for finding in check_config(config, CHECKS, Known())
    ]


def of(**settings: Any) -> Found:
    return found(rollout(**settings))


def stepped(*steps: dict[str, Any], **settings: Any) -> Found:
    return of(steps=list(steps), **settings)


def guarded(**criterion: Any) -> Found:
    return of(guardrails=[criterion])


def test_a_rollout_without_problems_has_none() -> None:
    everything = rollout(
        audience="adult", waves=["new-york", "everyone"], slices=["california"],
        guardrails=[{"metric": "error_rate", "worse_by": "0.2pp"}],
        windows=[{"from": "09:00", "to": "16:00", "tz": "Europe/Berlin"}],
        progress_deadline="7d", on_deadline="rollback", allow=["a"], deny=["b"],
    )  # fmt: skip
    assert found(everything) == []
    assert found(rollout(**AB, steps=None)) == []
    assert of(channels={"web": {}, "mobile": {"after": "web", "delay": "1h"}}) == []
    for strategy in ("shadow", "blue_green"):
        assert of(strategy=strategy, steps=None) == []


NO_EFFECT = "takes no effect: only an experiment has it"
REFERENCES: dict[str, tuple[dict[str, Any], Found]] = {
    "model": ({"model": "debit"}, [("rollouts[0].model", "no model of this name")]),
    "policy": ({"policy": "p"}, [("rollouts[0].policy", "no policy of this name")]),
    "layer": ({"layer": "l"}, [("rollouts[0].layer", "no layer of this name")]),
    "audience": (
        {"audience": "x"},
        [("rollouts[0].audience", "no audience of this name")],
    ),
    "wave": ({"waves": ["x"]}, [("rollouts[0].waves[0]", "no audience of this name")]),
    "slice": (
        {"slices": ["everyone"]},
        [("rollouts[0].slices[0]", "no audience of this name")],
    ),
    "version": (
        {"candidate": 9},
        [("rollouts[0].candidate", "model 'credit' does not serve this version")],
    ),
    "alias": (
        {"candidate": "new"},
        [("rollouts[0].candidate", "no version or alias of this name")],
    ),
    "stable": (
        {"candidate": 1},
        [
            (
                "rollouts[0].candidate",
                "the candidate is stable already: nothing would move",
            )
        ],
    ),
    "stable by name": (
        {"candidate": "stable"},
        [
            (
                "rollouts[0].candidate",
                "the candidate is stable already: nothing would move",
            )
        ],
    ),
    "a candidate twice": (
        {
            "candidate": None,
            "candidates": [2, 2],
            "steps": [{"weight": {"to": 5, "for": "1h"}}],
        },
        [("rollouts[0].candidates[1]", "this candidate is listed already")],
    ),
    "channel": (
        {"channels": {"web": {"after": "tv"}}},
        [("rollouts[0].channels.web.after", "no channel of this name")],
    ),
    "channels in a ring": (
        {"channels": {"a": {"after": "b"}, "b": {"after": "a"}}},
        [
            ("rollouts[0].channels.a.after", "waits for itself: a -> b -> a"),
            ("rollouts[0].channels.b.after", "waits for itself: b -> a -> b"),
        ],
    ),
    "a channel after itself": (
        {"channels": {"a": {"after": "a"}}},
        [("rollouts[0].channels.a.after", "waits for itself: a -> a")],
    ),
    "a delay after nothing": (
        {"channels": {"a": {"delay": "1h"}}},
        [("rollouts[0].channels.a.delay", "takes no effect without after")],
    ),
    "a wave twice": (
        {"waves": ["adult", "adult"]},
        [("rollouts[0].waves[1]", "this wave is over already")],
    ),
    "a wave after everyone": (
        {"waves": ["everyone", "adult"]},
        [("rollouts[0].waves[1]", "never reached: everyone has the candidate by then")],
    ),
    "a slice twice": (
        {"slices": ["adult", "adult"]},
        [("rollouts[0].slices[1]", "listed twice")],
    ),
    "a unit on both lists": (
        {"allow": ["a"], "deny": ["a"]},
        [("rollouts[0].deny", "this unit is allowed as well")],
    ),
    "a split that is none": ({"split": 50}, [("rollouts[0].split", NO_EFFECT)]),
    "a primary of a canary": (
        {"primary": {"metric": "x"}},
        [("rollouts[0].primary", NO_EFFECT)],
    ),
    "a horizon of a canary": ({"horizon": "1d"}, [("rollouts[0].horizon", NO_EFFECT)]),
    "a win of a canary": ({"on_win": "promote"}, [("rollouts[0].on_win", NO_EFFECT)]),
    "an experiment without its split": (
        {**AB, "steps": None, "split": None},
        [("rollouts[0].split", "an experiment needs its split")],
    ),
    "an experiment without its primary": (
        {**AB, "steps": None, "primary": None},
        [("rollouts[0].primary", "an experiment needs its primary")],
    ),
    "an experiment without its horizon": (
        {**AB, "steps": None, "horizon": None},
        [("rollouts[0].horizon", "an experiment needs its horizon")],
    ),
    "an experiment of more than all": (
        {**AB, "steps": None, "candidate": None, "candidates": [2, 3], "split": 50.01},
        [("rollouts[0].split", "the shares add up to more than 100 percent")],
    ),
    "an experiment with another version": (
        {**AB, "steps": None, "split": {3: 10}},
        [("rollouts[0].split[3]", "this version is no candidate")],
    ),
    "no deadline": (
        {"on_deadline": "hold"},
        [("rollouts[0].on_deadline", "takes no effect without a deadline")],
    ),
    "no such zone": (
        {"windows": [{"tz": "Mars/Base"}]},
        [("rollouts[0].windows[0].tz", "no time zone of this name")],
    ),
    "a zone that is a path": (
        {"windows": [{"tz": "../etc/passwd"}]},
        [("rollouts[0].windows[0].tz", "no time zone of this name")],
    ),
    "a window that closes first": (
        {"windows": [{"from": "16:00", "to": "09:00"}]},
        [("rollouts[0].windows[0].to", "the window closes before it opens (16:00)")],
    ),
    "a window of no time": (
        {"windows": [{"from": "09:00", "to": "09:00"}]},
        [("rollouts[0].windows[0].to", "the window closes before it opens (09:00)")],
    ),
    "a window of no day": (
        {"windows": [{"days": []}]},
        [("rollouts[0].windows[0].days", "a window of no day")],
    ),
    "a reserved name": (
        {"name": "pin"},
        [("rollouts[0].name", "this name is taken by requests that no rule answers")],
    ),
}


@pytest.mark.parametrize(("settings", "expected"), REFERENCES.values(), ids=REFERENCES)
def test_what_points_nowhere_or_takes_no_effect_is_named(
    settings: dict[str, Any], expected: Found
) -> None:
    assert of(**settings) == expected


WAITS = "this step waits for nothing"
TAKEN_AWAY = "the candidate answers since steps[0]: its share would be taken away again"
SHRINKS = "weights only grow: users would flip back"
TOO_MUCH = "the candidates' weights add up to more than 100 percent"
LAST = {"weight": {"to": 100}}
TWO: dict[str, Any] = {"candidate": None, "candidates": [2, 3]}
STEPS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], Found]] = {
    "a weight": (
        [{"weight": {"to": 5}}, LAST],
        {},
        [("rollouts[0].steps[0].weight", WAITS)],
    ),
    "a weight for no time": (
        [{"weight": {"to": 5, "for": 0}}, LAST],
        {},
        [("rollouts[0].steps[0].weight", WAITS)],
    ),
    "a shadow": (
        [{"shadow": {"percent": 5}}, *LADDER],
        {},
        [("rollouts[0].steps[0].shadow", WAITS)],
    ),
    "a ramp": (
        [{"ramp": {"to": 50, "increment": 5, "every": 0}}, LAST],
        {},
        [("rollouts[0].steps[0].ramp", WAITS)],
    ),
    "a bake": (
        [*LADDER, {"bake": {"for": 0}}],
        {},
        [("rollouts[0].steps[2].bake", WAITS)],
    ),
    "a shadow of nothing": (
        [{"shadow": {"percent": 0, "for": "1h"}}, *LADDER],
        {},
        [("rollouts[0].steps[0].shadow.percent", "a shadow of nothing")],
    ),
    "a ramp that never grows": (
        [{"ramp": {"to": 50, "increment": 0, "every": "1h"}}, LAST],
        {},
        [("rollouts[0].steps[0].ramp.increment", "a ramp that never grows")],
    ),
    "a ramp backwards": (
        [{"ramp": {"from": 60, "to": 50, "increment": 1, "every": "1h"}}, LAST],
        {},
        [("rollouts[0].steps[0].ramp.from", "a ramp grows: it begins above its end")],
    ),
    "too many increments": (
        [{"ramp": {"to": 100, "increment": 0.01, "every": "1h"}}],
        {},
        [("rollouts[0].steps", "more than 1000 steps, increments counted")],
    ),
    "a weight that shrinks": (
        [{"weight": {"to": 6, "for": "1h"}}, {"weight": {"to": 5, "for": "1h"}}, LAST],
        {},
        [("rollouts[0].steps[1].weight.to", SHRINKS)],
    ),
    "one candidate that shrinks": (
        [
            {"weight": {"to": {2: 6, 3: 1}, "for": "1h"}},
            {"weight": {"to": {2: 5, 3: 9}, "for": "1h"}},
        ],
        TWO,
        [("rollouts[0].steps[1].weight.to", SHRINKS)],
    ),
    "one candidate that is forgotten": (
        [
            {"weight": {"to": {2: 6}, "for": "1h"}},
            {"weight": {"to": {3: 6}, "for": "1h"}},
        ],
        TWO,
        [("rollouts[0].steps[1].weight.to", SHRINKS)],
    ),
    "a ramp that begins below": (
        [
            {"weight": {"to": 6, "for": "1h"}},
            {"ramp": {"from": 5, "to": 50, "increment": 5, "every": "1h"}},
            LAST,
        ],
        {},
        [("rollouts[0].steps[1].ramp.to", SHRINKS)],
    ),
    "more than all": (
        [{"weight": {"to": 51, "for": "1h"}}],
        TWO,
        [("rollouts[0].steps[0].weight.to", TOO_MUCH)],
    ),
    "more than all by version": (
        [{"weight": {"to": {2: 50, 3: 51}, "for": "1h"}}],
        TWO,
        [("rollouts[0].steps[0].weight.to", TOO_MUCH)],
    ),
    "a version that is no candidate": (
        [{"weight": {"to": {4: 5}, "for": "1h"}}],
        TWO,
        [("rollouts[0].steps[0].weight.to[4]", "this version is no candidate")],
    ),
    "no steps": (
        [],
        {},
        [("rollouts[0].steps", "a canary needs steps, or a policy that has them")],
    ),
    "no weights": (
        [{"approval": {}}],
        {},
        [("rollouts[0].steps", "no step gives the candidate traffic")],
    ),
    "an early end": (
        [{"weight": {"to": 5, "for": "1h"}}],
        {},
        [("rollouts[0].steps", "the steps end before everyone has the candidate")],
    ),
    "a shadow that comes late": (
        [*LADDER, {"shadow": {"percent": 5, "for": "1h"}}],
        {},
        [
            (
                "rollouts[0].steps[2].shadow",
                TAKEN_AWAY,
            )
        ],
    ),
    "a preflight that comes late": (
        [*LADDER, {"preflight": {"replay": "r"}}],
        {},
        [
            (
                "rollouts[0].steps[2].preflight",
                TAKEN_AWAY,
            )
        ],
    ),
    "a step after baking": (
        [LAST, {"bake": {"for": "1h"}}, {"approval": {}}],
        {},
        [("rollouts[0].steps[2].approval", "nothing comes after baking (steps[1])")],
    ),
    "a timeout that is none": (
        [{"approval": {"on_timeout": "rollback"}}, *LADDER],
        {},
        [
            (
                "rollouts[0].steps[0].approval.on_timeout",
                "takes no effect without a timeout",
            )
        ],
    ),
    "a latency in milliseconds": (
        [{"preflight": {"replay": "r", "latency_worse_by": "5ms"}}, *LADDER],
        {},
        [
            (
                "rollouts[0].steps[0].preflight.latency_worse_by",
                "expected a part of stable's latency",
            )
        ],
    ),
    "a shadow with weights": (
        [LAST],
        {"strategy": "shadow"},
        [
            (
                "rollouts[0].steps[0]",
                "no step for strategy 'shadow': a shadow never answers",
            )
        ],
    ),
    "an experiment with a ramp": (
        [{"ramp": {"to": 50, "increment": 5, "every": "1h"}}],
        AB,
        [
            (
                "rollouts[0].steps[0]",
                "no step for strategy 'ab': an experiment keeps its"
                " split until it is decided",
            )
        ],
    ),
    "blue green by halves": (
        [{"weight": {"to": 50, "for": "1h"}}, LAST],
        {"strategy": "blue_green"},
        [
            (
                "rollouts[0].steps[0].weight.to",
                "everyone is switched at once by blue_green",
            )
        ],
    ),
    "a gate without a limit": (
        [{"weight": {"to": 5, "gates": [{"metric": "quality"}]}}, LAST],
        {},
        [
            (
                "rollouts[0].steps[0].weight.gates[0]",
                "say what is too bad: worse_by, max or min",
            )
        ],
    ),
}


@pytest.mark.parametrize(("steps", "settings", "expected"), STEPS.values(), ids=STEPS)
def test_steps_that_make_no_sense_are_named(
    steps: list[dict[str, Any]], settings: dict[str, Any], expected: Found
) -> None:
    assert stepped(*steps, **settings) == expected


GOOD_STEPS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "units are something to wait for": (
        [{"weight": {"to": 5, "min_units": 100}}, LAST],
        {},
    ),
    "a last increment may be smaller": (
        [{"ramp": {"to": 50, "increment": 15, "every": "1h"}}, LAST],
        {},
    ),
    "a version in the dark": ([{"weight": {"to": 0, "for": "1h"}}, LAST], {}),
    "the same weight again": (
        [{"weight": {"to": 5, "for": "1h"}}, {"weight": {"to": 5, "for": "1h"}}, LAST],
        {},
    ),
    "several candidates end where they end": (
        [{"weight": {"to": 50, "for": "1h"}}],
        TWO,
    ),
    "a ramp from where the last step was": (
        [
            {"weight": {"to": 5, "for": "1h"}},
            {"ramp": {"from": 5, "to": 50, "increment": 5, "every": "1h"}},
            LAST,
        ],
        {},
    ),
}


@pytest.mark.parametrize(("steps", "settings"), GOOD_STEPS.values(), ids=GOOD_STEPS)
def test_steps_that_make_sense_have_no_problem(
    steps: list[dict[str, Any]], settings: dict[str, Any]
) -> None:
    assert stepped(*steps, **settings) == []


PLACE = "rollouts[0].guardrails[0]"
CRITERIA: dict[str, tuple[dict[str, Any], Found]] = {
    "a rate in milliseconds": (
        {"metric": "error_rate", "worse_by": "5ms"},
        [(f"{PLACE}.worse_by", "this unit does not fit error_rate")],
    ),
    "a rate worse by a bare number": (
        {"metric": "error_rate", "worse_by": 0.002},
        [(f"{PLACE}.worse_by", "this unit does not fit error_rate")],
    ),
    "a latency in points": (
        {"metric": "latency_p99", "worse_by": "1pp"},
        [(f"{PLACE}.worse_by", "this unit does not fit latency_p99")],
    ),
    "a latency without a unit": (
        {"metric": "latency_p99", "max": 50},
        [(f"{PLACE}.max", "this unit does not fit latency_p99")],
    ),
    "memory in seconds": (
        {"metric": "memory", "max": "5s"},
        [(f"{PLACE}.max", "this unit does not fit memory")],
    ),
    "a score in percent": (
        {"metric": "score_mean", "min": "5%"},
        [(f"{PLACE}.min", "this unit does not fit score_mean")],
    ),
    "a rate above all": (
        {"metric": "error_rate", "max": "101%"},
        [(f"{PLACE}.max", "a rate is at most 100%")],
    ),
    "a bare rate above all": (
        {"metric": "error_rate", "max": 1.5},
        [(f"{PLACE}.max", "a rate is at most 100%")],
    ),
    "points above all": (
        {"metric": "error_rate", "worse_by": "101pp"},
        [(f"{PLACE}.worse_by", "a rate is at most 100%")],
    ),
    "below zero": (
        {"metric": "error_rate", "max": -1},
        [(f"{PLACE}.max", "an amount is not below zero")],
    ),
    "worse by less than nothing": (
        {"metric": "score_mean", "worse_by": -1},
        [(f"{PLACE}.worse_by", "an amount is not below zero")],
    ),
    "min above max": (
        {"metric": "score_mean", "min": 2, "max": 1},
        [(f"{PLACE}.min", "min is above max: nothing would pass")],
    ),
    "a least rate of errors": (
        {"metric": "error_rate", "min": "1%"},
        [(f"{PLACE}.min", "takes no effect: less of error_rate is never too bad")],
    ),
    "a latency that is proved not to be worse": (
        {"metric": "latency_p99", "worse_by": "10%", "test": "non_inferior"},
        [(f"{PLACE}.test", "latency_p99 cannot be shown not to be worse this way")],
    ),
    "errors that are proved in points": (
        {"metric": "error_rate", "worse_by": "1pp", "test": "non_inferior"},
        [(f"{PLACE}.test", "error_rate cannot be shown not to be worse this way")],
    ),
    "a split with an amount": (
        {"metric": "srm", "max": 1},
        [(f"{PLACE}.max", "takes no effect: a split is tested against the plan")],
    ),
    "a threshold of something else": (
        {"metric": "error_rate", "max": "1%", "threshold_ms": 5},
        [(f"{PLACE}.threshold_ms", "takes no effect: error_rate has no threshold")],
    ),
    "a misspelt metric": (
        {"metric": "eror_rate", "max": "1%"},
        [(f"{PLACE}.metric", "no metric of this name")],
    ),
    "a file as a server": (
        {"metric": "q", "max": 1, "prometheus": {"url": "file:///etc", "query": "up"}},
        [(f"{PLACE}.prometheus.url", "an URL of http or https is expected")],
    ),
    "a server without a name": (
        {"metric": "q", "max": 1, "prometheus": {"url": "http://", "query": "up"}},
        [(f"{PLACE}.prometheus.url", "not an URL")],
    ),
    "a port that is none": (
        {"metric": "q", "webhook": {"url": "http://h:99999/"}},
        [(f"{PLACE}.webhook.url", "not an URL")],
    ),
}


@pytest.mark.parametrize(("criterion", "expected"), CRITERIA.values(), ids=CRITERIA)
def test_criteria_that_cannot_be_meant_are_named(
    criterion: dict[str, Any], expected: Found
) -> None:
    assert guarded(**criterion) == expected


GOOD_CRITERIA: list[dict[str, Any]] = [
    {"metric": "error_rate", "worse_by": "0.2pp"},
    {"metric": "error_rate", "worse_by": "10%", "max": 0.01},
    {"metric": "error_rate", "max": "100%"},
    {"metric": "latency_p99", "worse_by": "10%", "max": "50ms"},
    {"metric": "latency_p99", "worse_by": "5ms"},
    {"metric": "memory", "worse_by": "10%", "max": "256MiB"},
    {"metric": "score_mean", "min": -1, "max": -1},
    {"metric": "slo_exceedance", "threshold_ms": 20, "max": "1%"},
    {"metric": "srm"},
    {"metric": "my_label", "worse_by": 0.1},
    {"metric": "q", "max": -5, "prometheus": {"url": "https://h:9090/p", "query": "x"}},
    {"metric": "q", "webhook": {"url": "http://127.0.0.1:1/hook"}},
]


@pytest.mark.parametrize("criterion", GOOD_CRITERIA, ids=str)
def test_criteria_that_can_be_meant_have_no_problem(criterion: dict[str, Any]) -> None:
    assert guarded(**criterion) == []


def test_a_criterion_has_a_name_of_its_own() -> None:
    one, other = (
        {"metric": "latency_p99", "max": "5ms"},
        {"metric": "latency_p99", "max": "9ms"},
    )
    message = "another criterion here has this name"
    assert of(guardrails=[one, other]) == [("rollouts[0].guardrails[1].name", message)]
    assert of(guardrails=[one, other | {"name": "soft"}]) == []
    bare = {"name": "r", "model": "credit", "candidate": 2, "policy": "p"}
    policy = {"steps": LADDER, "guardrails": [one]}
    assert found(bare | {"guardrails": [other]}, policies={"p": policy}) == [
        ("rollouts[0].guardrails[0].name", "policy 'p' has a guardrail of this name")
    ]


def test_a_policy_is_checked_where_it_stands() -> None:
    bare = {"name": "r", "model": "credit", "candidate": 2, "policy": "p"}
    policy = {
        "steps": [{"weight": {"to": 5}}], "windows": [{"tz": "x"}],
        "guardrails": [{"metric": "memory", "max": "1s"}],
    }  # fmt: skip
    assert found(bare, policies={"p": policy}) == [
        ("policies.p.steps[0].weight", WAITS),
        ("policies.p.guardrails[0].max", "this unit does not fit memory"),
        ("policies.p.windows[0].tz", "no time zone of this name"),
        ("policies.p.steps", "the steps end before everyone has the candidate"),
    ]


def test_holdouts_are_checked() -> None:
    holdouts = [
        {"name": "h", "percent": 0}, {"name": "h", "percent": 1, "models": "debit"},
    ]  # fmt: skip
    assert found(holdouts=holdouts) == [
        ("holdouts[0].percent", "a holdout of nobody"),
        ("holdouts[1].name", "this name is taken"),
        ("holdouts[1].models[0]", "no model of this name"),
    ]


def test_a_disabled_version_is_no_candidate() -> None:
    versions = {1: {}, 2: {"disabled": True}, 3: {}, 4: {}}
    assert found(rollout(), model={"versions": versions}) == [
        (
            "rollouts[0].candidate",
            "this version is disabled: stable would answer for it",
        )
    ]


def test_names_of_scopes_and_routes_differ() -> None:
    route = {"model": "credit", "audience": "adult", "version": 3, "name": "r/web"}
    web = rollout(channels=["web"], audience="new-york")
    assert found(web, routes=[route]) == [("rollouts[0].name", "a route has this name")]
    assert found(rollout(), rollout()) == [("rollouts[1].name", "this name is taken")]
    web = rollout(channels=["web"])
    assert found(web, rollout(name="r/web")) == [
        ("rollouts[1].name", "this name is taken")
    ]


# -- who is in whose way ---------------------------------------------------------------


def other(**settings: Any) -> dict[str, Any]:
    return rollout(name="other", candidate=3, **settings)


HALF = [{"weight": {"to": 50, "for": "1h"}}]


def test_shares_of_rollouts_that_may_meet_add_up_to_no_more_than_all() -> None:
    both = found(rollout(), other())
    assert [path for path, _ in both] == ["rollouts[0]", "rollouts[1]"]
    assert both[0][1] == (
        "wants 100 percent of layer 'credit', where units may also be asked for by"
        " 'other' 100 percent"
    )
    ab = {**AB, "steps": None}
    assert found(rollout(**ab), other(**ab)) == []
    assert len(found(rollout(**ab), other(**ab | {"split": 50.01}))) == 2
    assert found(rollout(audience="new-york"), other(audience="california")) == []
    assert len(found(rollout(audience="new-york"), other(audience="adult"))) == 2


def test_a_holdout_of_the_layer_takes_its_part() -> None:
    kept = {"name": "control", "percent": 5, "salt": "credit"}
    assert found(rollout(), holdouts=[kept]) == [
        ("rollouts[0]", "wants 100 percent of layer 'credit', where units may also be"
         " asked for by holdouts 5 percent"),
    ]  # fmt: skip
    assert found(rollout(), holdouts=[kept | {"salt": "apart"}]) == []


def test_rollouts_that_may_meet_are_in_one_layer() -> None:
    layers = [{"name": "apart"}]
    assert found(rollout(), other(layer="apart"), layers=layers) == [
        ("rollouts[1].layer",
         "'r' may answer the same requests and is in layer 'credit'"),
    ]  # fmt: skip
    apart = other(layer="apart", audience="california")
    assert found(rollout(audience="new-york"), apart, layers=layers) == []


def test_a_rollout_behind_a_route_is_never_reached() -> None:
    everyone = {"model": "credit", "split": {1: 50, 3: 50}}
    message = "never reached: route 'credit' answers everyone"
    assert found(rollout(), routes=[everyone]) == [("rollouts[0]", message)]
    route = {"model": "credit", "audience": "new-york", "version": 3}
    message = "never reached: routes 'credit/new-york' answer all of its audience"
    assert found(rollout(audience="new-york"), routes=[route]) == [
        ("rollouts[0]", message)
    ]
    assert found(rollout(audience="california"), routes=[route]) == []
    waves = rollout(waves=["new-york", "everyone"])
    assert found(waves, routes=[route]) == []


def test_a_rollout_for_nobody_is_named() -> None:
    assert of(audience="new-york", waves=["california"]) == [
        ("rollouts[0]", "nobody can match: its conditions exclude each other")
    ]


def test_everything_is_said_at_once_with_its_line() -> None:
    text = """\
api_version: router/v1
models: [{name: credit, repository: r, stable: 1}]
rollouts:
  - name: a
    model: credit
    candidate: 1
    steps:
      - weight: {to: 5}
      - weight: {to: 100, far: 2h}
  - name: b
    model: debit
    candidate: 2
    audiense: x
    steps: [{weight: {to: 100}}]
policies:
  p: {steps: [{weight: {to: 7}}]}
"""
    with pytest.raises(ConfigError) as raised:
        read_config(text, "f", CHECKS)
    assert [(p.line, p.path, p.message) for p in raised.value.problems] == [
        (6, "rollouts[0].candidate",
         "the candidate is stable already: nothing would move"),
        (8, "rollouts[0].steps[0].weight", WAITS),
        (9, "rollouts[0].steps[1].weight.far", "unknown key"),
        (11, "rollouts[1].model", "no model of this name"),
        (13, "rollouts[1].audiense", "unknown key"),
        (16, "policies.p.steps[0].weight", WAITS),
    ]  # fmt: skip
    remedies = {p.path: p.remedy for p in raised.value.problems}
    assert remedies["rollouts[0].steps[1].weight.far"] == "did you mean 'for'?"
    assert remedies["rollouts[1].audiense"] == "did you mean 'audience'?"
