"""Two rollouts while the load runs: one that is promoted, one that rolls itself back.

The router is given a policy and rollouts of two lines, by the command an operator
would use. Nothing here moves traffic: the shares grow, and go back to nothing, because
of what the router has seen. What it did is read from its own history afterwards and
compared with what the clients were answered.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from traffic import Answer, Traffic, flips, versions_by_user
from train import BROKEN, MODEL

STABLE, CANDIDATE = 1, 2
LADDER = (5, 25, 50, 100)
GOOD, BAD = f"{MODEL}-{CANDIDATE}", f"{MODEL}-{BROKEN}"
PROMOTED, WENT_WRONG = 0, 1  # exit codes of `router status`
AFTERWARDS = 400  # answers to look at once a rollout has ended

# Hours in earnest; seconds here. A share grows when its time is over, enough users
# have met the candidate, and the guardrails are known to hold: not before.
RUNG = {"for": "1s"}
POLICIES: dict[str, Any] = {
    "careful": {
        "steps": [
            {
                "shadow": {
                    "percent": 100,
                    "min_samples": 200,
                    "for": "1s",
                    "gates": [
                        {"metric": "disagreement", "max": "25%", "action": "rollback"}
                    ],
                }
            },
            {"weight": {"to": LADDER[0], "min_units": 40, **RUNG}},
            *({"weight": {"to": percent, **RUNG}} for percent in LADDER[1:]),
            {"bake": {"for": "1s"}},
        ],
        "guardrails": [
            {"metric": "error_rate", "worse_by": "1pp", "max": "15%"},
            # Generous, because the machine may be slow: it is the means that is shown.
            {"metric": "latency_p90", "max": "500ms"},
        ],
    },
    "hasty": {
        "steps": [
            {"weight": {"to": 50, "for": "60s"}},
            {"weight": {"to": 100, "for": "60s"}},
        ],
        "guardrails": [{"metric": "error_rate", "worse_by": "1pp"}],
    },
}


@dataclass(frozen=True, slots=True)
class Rung:
    """A share that the router gave the candidate, and what clients saw of it."""

    asked: float
    candidates: int
    users: int
    answers: int

    def is_right(self) -> bool:
        # Buckets are exact; these users are a sample of them: four standard errors.
        share = self.asked / 100
        slack = 4 * (share * (1 - share) / max(self.users, 1)) ** 0.5
        return self.users > 0 and abs(self.candidates / self.users - share) <= slack


@dataclass(frozen=True, slots=True)
class Rollouts:
    """What came of both: exit codes, the history, and the answers meanwhile."""

    good: int
    bad: int
    history: tuple[dict[str, Any], ...]
    promoting: tuple[Answer, ...]
    breaking: tuple[Answer, ...]
    afterwards: tuple[Answer, ...]


def with_rollout(config: dict[str, Any], stable: int, candidate: int) -> dict[str, Any]:
    """The configuration with a rollout instead of a split for everybody else."""
    model = {**config["models"][0], "stable": stable}
    if candidate == BROKEN:
        model["versions"] = [1, 2, 3, BROKEN]
    return {
        **config,
        "models": [model],
        "routes": [route for route in config["routes"] if "audience" in route],
        "policies": POLICIES,
        "rollouts": [
            {
                "name": f"{MODEL}-{candidate}",
                "model": MODEL,
                "candidate": candidate,
                "policy": "hasty" if candidate == BROKEN else "careful",
            }
        ],
    }


def run_rollouts(config: Path, traffic: Traffic, broken: Path) -> Rollouts:
    """Promote the candidate, then let a broken version try; both by themselves."""
    written = yaml.safe_load(config.read_text())
    apply(config, with_rollout(written, STABLE, CANDIDATE))
    begin = len(traffic.answers)
    good = status(config, GOOD)
    if good != PROMOTED:  # say what it waits for
        print(router(config, "describe", "rollout", GOOD).stdout)
    traffic.more(AFTERWARDS)
    middle = len(traffic.answers)
    history = past(config)
    folder = Path(written["models"][0]["repository"]) / str(BROKEN)
    folder.mkdir(exist_ok=True)
    shutil.copyfile(broken, folder / "model.onnx")
    apply(config, with_rollout(written, CANDIDATE, BROKEN))
    bad = status(config, BAD)
    end = len(traffic.answers)
    traffic.more(AFTERWARDS)
    seen = {entry["revision"] for entry in history}
    later = [entry for entry in past(config) if entry["revision"] not in seen]
    return Rollouts(
        good,
        bad,
        (*history, *later),
        tuple(traffic.answers[begin:middle]),
        tuple(traffic.answers[middle:end]),
        tuple(traffic.answers[end:]),
    )


def apply(config: Path, wanted: dict[str, Any]) -> None:
    """Hand the router a new configuration, and wait until it is in force."""
    file = config.with_name("next.yaml")
    file.write_text(yaml.safe_dump(wanted, sort_keys=False))
    router(config, "apply", "-f", file.name, "--reason", "the demo", is_sure=True)


def status(config: Path, rollout: str) -> int:
    """Wait for a rollout's end; 0 when it was promoted, 1 when it was rolled back."""
    return router(config, "status", rollout, "--timeout", "45s").returncode


def past(config: Path) -> list[dict[str, Any]]:
    """What the router says has happened to rollouts, the oldest first."""
    done = router(config, "history", "-o", "json", is_sure=True)
    entries: list[dict[str, Any]] = json.loads(done.stdout)["entries"]
    moves = [
        {**entry, **json.loads(entry["payload_json"])}
        for entry in entries
        if entry["kind"] == "scope_moved"
    ]
    return [move for move in moves if move["event"] not in ("added", "retired")]


def router(
    config: Path, *words: str, is_sure: bool = False
) -> subprocess.CompletedProcess[str]:
    """A command of the router, in the directory where it serves."""
    command = [sys.executable, "-m", "router", *words, "-c", config.name]
    done = subprocess.run(
        command, cwd=config.parent, capture_output=True, text=True, timeout=90
    )
    if is_sure and done.returncode:
        sys.exit(f"router {' '.join(words)}: {done.stderr}")
    return done


def moves_of(found: Rollouts, rollout: str) -> list[dict[str, Any]]:
    return [entry for entry in found.history if entry["subject"] == rollout]


def share_of(move: dict[str, Any]) -> float:
    """Percent that a move left the candidate with."""
    return float(sum(move["state"]["weights_bp"].values())) / 100


def rungs(found: Rollouts, places: Sequence[str]) -> list[Rung]:
    """Each share in the order it was given, by the history's own times.

    A table is stored before it is published, so whatever is answered under it comes
    after its record, and before the next one's.
    """
    moves = moves_of(found, GOOD)
    elsewhere = [a for a in found.promoting if a.user.location not in places]
    first: dict[str, float] = {}
    for answer in elsewhere:
        first.setdefault(answer.revision, answer.at_s)
    made: dict[float, list[Answer]] = {}
    for answer in elsewhere:
        at_s = first[answer.revision]
        led = [move for move in moves if move["time_s"] <= at_s]
        made.setdefault(share_of(led[-1]) if led else 0.0, []).append(answer)
    return [_rung(asked, answers) for asked, answers in sorted(made.items())]


def _rung(asked: float, answers: Sequence[Answer]) -> Rung:
    versions = {answer.user: answer.version for answer in answers}
    candidates = sum(version == CANDIDATE for version in versions.values())
    return Rung(asked, candidates, len(versions), len(answers))


def rollout_claims(
    found: Rollouts, answers: Sequence[Answer], places: Sequence[str]
) -> dict[str, tuple[bool, str]]:
    """What is said about rollouts, with what was measured. `answers` are all answers
    since the first rollout began, in the order in which they came."""
    climbed = rungs(found, places)
    asked = [rung.asked for rung in climbed]
    good, bad = moves_of(found, GOOD), moves_of(found, BAD)
    elsewhere = [a for a in answers if a.user.location not in places]
    moved = flips(elsewhere, STABLE)
    strays = sum(a.version == BROKEN for a in answers)
    left = {a.version for a in found.afterwards if a.user.location not in places}
    went = [move["to"] for move in good]
    took_s = bad[-1]["time_s"] - next(m["time_s"] for m in bad if m["event"] == "begin")
    why = bad[-1]["evidence"]
    return {
        "a rollout climbs by itself": (
            found.good == PROMOTED and "shadowing" in went and asked == [0, *LADDER],
            f"shadow, {', '.join(f'{a:g} %' for a in asked[1:])}, {went[-1]}",
        ),
        "each rung is what was asked for": (
            all(rung.is_right() for rung in climbed),
            "see above",
        ),
        "no user flips back": (
            moved == 0,
            f"{moved} flips of {len(versions_by_user(elsewhere)):,} users"
            f" in {len(elsewhere):,} answers",
        ),
        "a broken version rolls itself back": (
            found.bad == WENT_WRONG and bad[-1]["to"] == "rolled_back",
            f"{took_s:.1f} s after its first share",
        ),
        "nobody was told what it said": (
            strays == 0 and left == {CANDIDATE},
            f"{strays} answers of version {BROKEN}, versions {sorted(left)} after",
        ),
        "the history says why": (
            bool(why) and all("numbers" in one for one in why),
            str(bad[-1]["reason"]),
        ),
    }
