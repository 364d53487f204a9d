"""Serve versions of a model, move users between them under load, and measure it.

    python examples/demo/demo.py [--keep] [--requests N]

Trains three versions on real data, starts the router, sends real rows from hundreds of
users through NVIDIA's stock client, changes the share of the candidate from 10 to 50 to
100 and back to 0 percent while the load runs. Then the router does it by itself: a
rollout takes the candidate from a shadow to everybody, and another one takes a broken
version back (rollouts.py). Prints what the clients saw and what the router says it did.
The exit code is not zero if anything that is claimed here did not hold. It ends by
itself; with --keep the server stays up until Ctrl-C.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tritonclient.grpc as triton
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rollouts import Rollouts, rollout_claims, run_rollouts, rungs
from traffic import AGREEMENT, Answer, Traffic, User, flips, percentile_ms
from train import BROKEN, MODEL, Trained, trained

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = ROOT / "build" / "demo"
STABLE, CANDIDATE = 1, 2
SHARES = (10, 50, 100, 0)
PLACES = {"new-york": 2, "california": 3}
# Enough elsewhere that 5 % of them say something about a candidate.
USERS_PER_PLACE, USERS_ELSEWHERE = 40, 1600


@dataclass(frozen=True, slots=True)
class Period:
    """What was asked for, and what the clients were answered under it."""

    percent: int
    revision: str
    answers: list[Answer]


def people() -> list[User]:
    """Many users: some in two places with a version of their own."""
    users = [
        User(f"{place}-{i}", place) for place in PLACES for i in range(USERS_PER_PLACE)
    ]
    return users + [User(f"user-{i}", "elsewhere") for i in range(USERS_ELSEWHERE)]


def write_config(path: Path, address: str, repository: Path, percent: int) -> None:
    """The whole configuration; replaced in one step so that nobody reads half of it."""
    config = {
        "api_version": "router/v1",
        "server": {
            "listen": address,
            "ops": None,
            "state": str(path.parent / "state.db"),
            "drain_s": 5,
        },
        "models": [
            {
                "name": MODEL,
                "repository": str(repository / MODEL),
                "stable": STABLE,
                "output": {
                    "tensor": "probabilities",
                    "index": 1,
                    "kind": "probability",
                },
            }
        ],
        "audiences": [
            {"name": place, "when": {"key": "location", "exact": place}}
            for place in PLACES
        ],
        "routes": [
            *(
                {"model": MODEL, "audience": place, "version": version}
                for place, version in PLACES.items()
            ),
            {"model": MODEL, "split": {STABLE: 100 - percent, CANDIDATE: percent}},
        ],
    }
    partial = path.with_suffix(".new")
    partial.write_text(yaml.safe_dump(config, sort_keys=False))
    partial.replace(path)


class Router:
    """`router serve` in a process of its own; ended when left."""

    def __init__(self, config: Path, address: str) -> None:
        self.config, self.address = config, address
        self.log = config.parent / "server.log"

    def __enter__(self) -> "Router":
        command = [sys.executable, "-m", "router", "serve", str(self.config)]
        with self.log.open("wb") as log:
            # Not in the source tree: what was built and installed is what runs.
            self.process = subprocess.Popen(
                command, cwd=self.config.parent, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        with triton.InferenceServerClient(self.address) as client:
            while not _is_ready(client):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.process.kill()
                    sys.exit(f"the router did not start:\n{self.log.read_text()}")
                time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)

    def reload(self) -> None:
        os.kill(self.process.pid, signal.SIGHUP)


def _is_ready(client: triton.InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_ready(client_timeout=1))
    except triton.InferenceServerException:
        return False


def run_periods(
    router: Router, traffic: Traffic, repository: Path, requests: int
) -> list[Period]:
    """10, 50, 100, 0 percent, each for so many requests, without a pause between."""
    periods: list[Period] = []
    traffic.wait_for(lambda: bool(traffic.answers or traffic.errors))
    revision = traffic.answers[0].revision if traffic.answers else ""
    for number, percent in enumerate(SHARES):
        if number:
            write_config(router.config, router.address, repository, percent)
            router.reload()
            revision = traffic.new_revision(revision)
        traffic.more(requests)
        periods.append(Period(percent, revision, []))
    for period in periods:
        period.answers.extend(
            a for a in traffic.answers if a.revision == period.revision
        )
    return periods


def effective_share(period: Period) -> tuple[int, int]:
    """How many of the users elsewhere the candidate answered, of how many."""
    asked = {a.user: a.version for a in period.answers if a.user.location not in PLACES}
    return sum(version == CANDIDATE for version in asked.values()), len(asked)


def share_is_right(period: Period) -> bool:
    # Buckets are exact; these users are a sample of them: four standard errors.
    got, of = effective_share(period)
    share = period.percent / 100
    return of > 0 and abs(got / of - share) <= 4 * (share * (1 - share) / of) ** 0.5


def wrong_places(answers: Sequence[Answer]) -> int:
    """Answers from a version that is not the audience's."""
    return sum(a.version != PLACES.get(a.user.location, a.version) for a in answers)


def show_models(console: Console, models: Trained) -> None:
    table = Table("version", "what it is", "accuracy on unseen rows")
    for version, kind in models.kinds.items():
        table.add_row(str(version), kind, f"{models.accuracy[version]:.1%}")
    state = "kept from last time" if models.was_cached else "trained just now"
    console.print(f"[bold]Models[/] of the Wisconsin breast cancer data, {state}")
    console.print(table)


def show_periods(console: Console, periods: Sequence[Period]) -> None:
    table = Table("asked for", "candidate's users", "answers", "p50", "p99")
    for period in periods:
        got, of = effective_share(period)
        effective = f"{got} of {of} ({got / max(of, 1):.1%})"
        p50, p99 = (percentile_ms(period.answers, p) for p in (50, 99))
        count = len(period.answers)
        table.add_row(
            f"{period.percent} %",
            effective,
            f"{count:,}",
            f"{p50:.2f} ms",
            f"{p99:.2f} ms",
        )
    console.print("[bold]The candidate's share[/], changed while the load ran")
    console.print(table)


def show_rollouts(console: Console, found: Rollouts) -> None:
    climbed = Table("the router gave", "candidate's users", "answers")
    for rung in rungs(found, tuple(PLACES)):
        name = f"{rung.asked:g} %" if rung.asked else "0 %, and a shadow"
        share = rung.candidates / max(rung.users, 1)
        users = f"{rung.candidates} of {rung.users} ({share:.1%})"
        climbed.add_row(name, users, f"{rung.answers:,}")
    console.print(f"[bold]A rollout of version {CANDIDATE}[/], moved by the router")
    console.print(climbed)
    table = Table("after", "rollout", "to", "share", "because")
    begin = found.history[0]["time_s"] if found.history else 0.0
    for move in found.history:
        share = sum(move["state"]["weights_bp"].values()) / 100
        table.add_row(
            f"{move['time_s'] - begin:.1f} s",
            escape(move["subject"]),
            move["to"],
            f"{share:g} %",
            escape("; ".join([move["reason"], *_proofs(move)])),
        )
    console.print("[bold]The history[/] that `router history` tells")
    console.print(table)


def _proofs(move: dict[str, Any]) -> list[str]:
    """The verdicts a move was based on, in words; a move's own reason is one already.

    The router stores the numbers with them."""
    reasons = (one["reason"] for one in move["evidence"])
    return [reason for reason in reasons if reason not in move["reason"]]


def claims(
    periods: Sequence[Period], ordered: Sequence[Answer], errors: Sequence[str]
) -> dict[str, tuple[bool, str]]:
    """Everything this demo says about the router, each with what was measured."""
    answers = [a for period in periods for a in period.answers]
    # In the order the users got them, not sorted by table: an answer from an old table
    # after one from a new table would be a flip too.
    growing = [a for a in ordered if a.revision != periods[-1].revision]
    by_place = {p: sum(a.user.location == p for a in answers) for p in PLACES}
    moved, strays = flips(growing, STABLE), wrong_places(answers)
    worst = max((a.difference for a in answers), default=float("inf"))
    back = {a.version for a in periods[-1].answers if a.user.location not in PLACES}
    others = flips([a for a in answers if a.user.location in PLACES], 0)
    places = ", ".join(f"{n:,} from {p}" for p, n in by_place.items())
    return {
        "no request failed": (not errors, f"{len(errors)} of {len(answers):,}"),
        "audiences get their version": (
            strays == 0 and min(by_place.values()) > 0,
            f"{strays} strays; {places}",
        ),
        "shares are what was asked for": (
            all(map(share_is_right, periods)),
            "see above",
        ),
        "growth moves nobody back": (moved == 0, f"{moved} flips"),
        "audiences did not notice": (others == 0, f"{others} flips"),
        "0 % brings everybody back": (back == {STABLE}, f"versions {sorted(back)}"),
        "answers are scikit-learn's own": (
            worst <= AGREEMENT,
            f"largest difference {worst:.1e}",
        ),
    }


def show_claims(console: Console, found: dict[str, tuple[bool, str]]) -> None:
    table = Table("claim", "", "measured")
    for claim, (holds, measured) in found.items():
        mark = "[green]holds[/]" if holds else "[bold red]FAILS[/]"
        table.add_row(claim, mark, measured)
    console.print("[bold]What was measured[/], as the clients saw it")
    console.print(table)


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def keep(console: Console, router: Router) -> None:
    console.print(f"Serving {MODEL} on {router.address} until Ctrl-C.")
    console.print(f"Edit {router.config} and watch `router explain` change its mind.")
    try:
        router.process.wait()
    except KeyboardInterrupt:
        console.print("Stopping.")


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve, split, move and measure.")
    parser.add_argument("--keep", action="store_true", help="serve until Ctrl-C")
    parser.add_argument("--requests", type=int, default=2000, help="answers per share")
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="cache")
    options = parser.parse_args()
    # A log file has no width of its own.
    console = Console(width=None if sys.stdout.isatty() else 88)
    directory = options.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    for left in directory.glob("state.db*"):
        left.unlink()
    models = trained(directory)
    shutil.rmtree(models.repository / MODEL / str(BROKEN), ignore_errors=True)
    show_models(console, models)
    config, address = directory / "router.yaml", free_address()
    write_config(config, address, models.repository, SHARES[0])
    with Router(config, address) as router:
        with Traffic(address, MODEL, people(), models.rows, models.expected) as traffic:
            periods = run_periods(router, traffic, models.repository, options.requests)
            so_far = len(traffic.answers)
            show_periods(console, periods)
            rollouts = run_rollouts(config, traffic, models.broken)
        show_rollouts(console, rollouts)
        first, later = traffic.answers[:so_far], traffic.answers[so_far:]
        found = claims(periods, first, traffic.errors)
        found |= rollout_claims(rollouts, later, tuple(PLACES))
        show_claims(console, found)
        for error in traffic.errors[:5]:
            console.print(f"[red]{error}[/]")
        if options.keep:
            keep(console, router)
    return 0 if all(holds for holds, _ in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
