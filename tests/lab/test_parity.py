"""Two environments side by side, and one that vouches for itself."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from router.cli.main import main
from router.config.load import load_config
from router.errors import ConfigError
from router.lab.attest import (
    AttestationError,
    Trust,
    attest,
    read_attestation,
    verifier,
    why_refused,
)
from router.lab.fingerprint import (
    Fingerprint,
    FingerprintError,
    dump_fingerprint,
    load_fingerprint,
)
from router.lab.histogram import BINS, NOT_A_NUMBER, bin_of
from router.lab.machine import machine_points
from router.lab.parity import Near, Point, compare, severity_of
from router.lab.survey import survey
from router.models.repository import list_models
from router.plan.rollout import Spec
from router.plan.scopes import specs_of
from router.testing import mlp, tag, write_model

DAY = 86_400.0


class Clock:
    """Moved by hand."""

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s

    def now(self) -> float:
        return self.at_s

    def monotonic(self) -> float:
        return self.at_s


def write(folder: Path, versions: dict[int, bytes], **server: Any) -> str:
    folder.mkdir(exist_ok=True)
    write_model(folder, "m", versions)
    model = {
        "name": "m", "repository": str(folder / "m"), "stable": 1,
        "runtime": {"probe": {"off": True}}, "on_mismatch": "allow",
    }  # fmt: skip
    steps = [
        {"preflight": {"replay": "r", "attestation": "a"}},
        {"weight": {"to": 100, "for": "1h"}},
    ]
    rollout = {"name": "m-2", "model": "m", "candidate": 2, "steps": steps}
    whole = {"api_version": "router/v1", "models": [model], "rollouts": [rollout]}
    whole["environments"] = {"staging": {"server": {"drain_s": 1}}}
    path = folder / "router.yaml"
    whole["server"] = {"attestation": {"key": "none"}, **server}
    path.write_text(yaml.safe_dump(whole))
    return str(path)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Fingerprint:
    folder = tmp_path_factory.mktemp("here")
    return survey(write(folder, {1: mlp((2, 4, 2)), 2: tag(2)}), "staging")


def with_points(made: Fingerprint, **changes: Any) -> Fingerprint:
    """With other points, and without those that are None."""
    named = {name.replace("__", "/"): value for name, value in changes.items()}
    points = {**made.points, **named}
    kept = {name: value for name, value in points.items() if value is not None}
    return replace(made, points=kept)


def test_a_fingerprint_names_what_answers_depend_on(here: Fingerprint) -> None:
    points = here.points
    assert points["models/m/2/inputs"] == ["x FP32 [-1, 2]"]
    assert len(points["models/m/1/sha256"]) == 64
    golden = points["models/m/2/golden"][0]["outputs"]["tag"]
    assert (golden["shape"], golden["values"]) == ([1, 1], [2.0])
    assert points["models/m/1/probe_us"] > 0
    assert points["machine/cores"] >= 1
    assert points["runtime/onnxruntime"].count(".") == 2


def test_a_fingerprint_survives_its_file(here: Fingerprint) -> None:
    assert load_fingerprint(dump_fingerprint(here), "f") == here
    for text in ("", "{}", '{"format": 1}', "[]"):
        with pytest.raises(FingerprintError, match="f: not a fingerprint"):
            load_fingerprint(text, "f")


def test_an_environment_is_like_itself(tmp_path: Path, here: Fingerprint) -> None:
    again = survey(write(tmp_path / "x", {1: mlp((2, 4, 2)), 2: tag(2)}))
    severities = {point.severity for point in compare(here, again)}
    assert "blocking" not in severities
    assert compare(here, here) == ()


def test_another_model_under_the_same_number_is_found(
    tmp_path: Path, here: Fingerprint
) -> None:
    other = survey(write(tmp_path / "x", {1: mlp((2, 4, 2)), 2: tag(3)}))
    blocking = [p for p in compare(here, other) if p.severity == "blocking"]
    assert [point.name for point in blocking] == [
        "models/m/2/golden[0]/tag[0]", "models/m/2/sha256",
    ]  # fmt: skip
    assert (blocking[0].first, blocking[0].second) == ("2", "3")


def test_a_version_that_is_missing_is_one_point(here: Fingerprint) -> None:
    points = {n: v for n, v in here.points.items() if not n.startswith("models/m/2/")}
    without = replace(here, points=points)
    found = Point("models/m/2", "blocking", "there", "missing")
    assert compare(here, without) == (found,)
    assert compare(without, here) == (replace(found, first="missing", second="there"),)


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        ("runtime/onnxruntime", "blocking"), ("models/a/b/1/inputs", "blocking"),
        ("models/m/1/providers", "blocking"), ("machine/cpu", "differing"),
        ("machine/kernel", "informational"), ("models/m/1/threads", "differing"),
        ("router/config_revision", "informational"), ("new/point", "informational"),
        ("models/m/stable", "informational"), ("server/loops", "differing"),
    ],
)  # fmt: skip
def test_a_point_has_a_severity(here: Fingerprint, name: str, severity: str) -> None:
    assert severity_of(name) == severity
    changed = replace(here, points={**here.points, name: "other"})
    mine = [point for point in compare(here, changed) if point.name == name]
    if name.startswith("models/a"):
        return  # a version that only one has is one point
    assert [point.severity for point in mine] == [severity]


def golden(value: float) -> list[dict[str, Any]]:
    outputs = {"y": {"datatype": "float32", "shape": [1], "values": [value]}}
    return [{"request": "r", "outputs": outputs}]


@pytest.mark.parametrize(
    ("other", "is_near"),
    [(100.0, True), (100.9, True), (101.1, False), (98.9, False), (float(99), True)],
)
def test_golden_outputs_agree_within_the_tolerance(other: float, is_near: bool) -> None:
    sides = [Fingerprint("", 0, {"models/m/1/golden": golden(v)}) for v in (100, other)]
    assert (compare(*sides, Near(0.0, 0.01)) == ()) == is_near


def test_a_golden_failure_on_one_side_blocks() -> None:
    failed = [{"request": "r", "failed": 13}]
    sides = [
        Fingerprint("", 0, {"models/m/1/golden": value})
        for value in (golden(1), failed)
    ]
    (point,) = compare(*sides)
    assert (point.severity, point.first, point.second) == ("blocking", "answers", "13")
    assert compare(sides[1], sides[1]) == ()


@pytest.mark.parametrize(
    ("second", "is_same"), [(150, True), (151, False), (66, False)]
)
def test_probe_latency_differs_by_a_factor(second: float, is_same: int) -> None:
    sides = [Fingerprint("", 0, {"models/m/1/probe_us": us}) for us in (100, second)]
    assert (compare(*sides) == ()) == is_same


def test_inputs_that_moved_are_named() -> None:
    def seen(at: int) -> Fingerprint:
        counts = tuple(1000 if i == at else 0 for i in range(BINS))
        return Fingerprint("", 0, {}, {"m/x[0]": counts})

    assert compare(seen(3), seen(3)) == ()
    (point,) = compare(seen(3), seen(4))
    assert (point.name, point.severity) == ("inputs/m/x[0]", "differing")


def test_bins_are_ordered_as_values_are() -> None:
    values = [-1e30, -5.0, -1.0, -1e-3, -1e-30, 0.0, 1e-30, 1e-3, 1.0, 5.0, 1e30]
    bins = [bin_of(value) for value in values]
    assert bins == sorted(bins)
    assert len(set(bins)) == len(bins)
    assert bins[0] >= 0
    assert bins[-1] < NOT_A_NUMBER == bin_of(float("nan")) == BINS - 1


def test_a_machine_is_read_from_its_files(tmp_path: Path) -> None:
    def put(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    put("proc/cpuinfo", "model name\t: Fast 9\nflags\t: fpu avx2 avx512f\n")
    put("proc/meminfo", "MemTotal:       8388608 kB\n")
    put("proc/driver/nvidia/version", "NVRM version: 550.1\nGCC: x\n")
    put("proc/driver/nvidia/gpus/0/information", "Model: \t A100\n")
    found = machine_points(tmp_path)
    assert (found["machine/cpu"], found["machine/gpu"]) == ("Fast 9", ["A100"])
    assert found["machine/cpu_flags"] == ["avx2", "avx512f"]
    assert found["machine/memory_gib"] == 8.0
    assert found["machine/driver"] == "NVRM version: 550.1"
    put("sys/fs/cgroup/memory.max", str(2**30))
    assert machine_points(tmp_path)["machine/memory_gib"] == 1.0
    assert machine_points(tmp_path / "none")["machine/cpu"] == ""


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """Key files: a secret, another, and a pair."""
    pair = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    texts = {
        "secret": b"ab" * 32, "other": b"cd" * 32, "short": b"ab" * 31,
        "private": pair.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain),
        "public": pair.public_key().public_bytes(
            pem, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text)
    return {name: str(tmp_path / name) for name in texts}


@pytest.mark.parametrize(
    ("signing", "checking"),
    [("secret", "secret"), ("private", "public"), ("private", "private")],
)
def test_an_attestation_is_believed_with_the_right_key(
    tmp_path: Path, here: Fingerprint, keys: dict[str, str], signing: str, checking: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(attest(here, keys[signing]))
    clock = Clock(here.made_s + DAY)
    assert read_attestation(str(path), Trust(keys[checking], DAY), clock) == here


def refused(path: Path, key: str, clock: Clock) -> str:
    with pytest.raises(AttestationError) as found:
        read_attestation(str(path), Trust(key, DAY), clock)
    return str(found.value)


def test_an_attestation_of_others_or_changed_is_refused(
    tmp_path: Path, here: Fingerprint, keys: dict[str, str]
) -> None:
    path, clock = tmp_path / "a.json", Clock(here.made_s)
    whole = json.loads(attest(here, keys["secret"]))
    path.write_text(json.dumps(whole))
    assert "not signed with" in refused(path, keys["other"], clock)
    assert "not signed with" in refused(path, keys["public"], clock)
    assert "at least 32 bytes" in refused(path, keys["short"], clock)
    changed = whole["fingerprint"].replace("staging", "nowhere")
    path.write_text(json.dumps({**whole, "fingerprint": changed}))
    assert "was changed" in refused(path, keys["secret"], clock)
    path.write_text(json.dumps({**whole, "signature": "00"}))
    assert "not signed with" in refused(path, keys["secret"], clock)
    path.write_text("[]")
    assert "not an attestation" in refused(path, keys["secret"], clock)
    assert "no such file" in refused(tmp_path / "none", keys["secret"], clock)
    path.write_text(json.dumps({**whole, "kind": "ed25519"}))
    assert "not signed with" in refused(path, keys["secret"], clock)
    with pytest.raises(AttestationError, match="a public key cannot sign"):
        attest(here, keys["public"])


@pytest.mark.parametrize(
    ("age_s", "is_refused"),
    [(DAY, False), (DAY + 1, True), (-300, False), (-301, True)],
)
def test_an_attestation_has_an_age(
    tmp_path: Path,
    here: Fingerprint,
    keys: dict[str, str],
    age_s: float,
    is_refused: bool,
) -> None:
    path = tmp_path / "a.json"
    path.write_text(attest(here, keys["secret"]))
    clock, trust = Clock(here.made_s + age_s), Trust(keys["secret"], DAY)
    if is_refused:
        assert refused(path, keys["secret"], clock)
    else:
        assert read_attestation(str(path), trust, clock) == here


def spec_of(path: str) -> Spec:
    config = load_config(path)
    return specs_of(config, list_models(config))[0]


def test_a_foreign_environment_is_refused_by_its_point(
    tmp_path: Path, here: Fingerprint
) -> None:
    spec = spec_of(write(tmp_path / "x", {1: mlp((2, 4, 2)), 2: tag(2)}))
    assert why_refused(here, here, spec) is None
    older = with_points(here, runtime__onnxruntime="1.2.3")
    said = why_refused(older, here, spec)
    assert said is not None
    assert "runtime/onnxruntime" in said
    assert said.endswith("and 1.2.3 in staging")
    uncovered = with_points(here, models__m__2__sha256=None)
    assert why_refused(uncovered, here, spec) == (
        "it does not cover model 'm' version 2"
    )
    slower = with_points(here, machine__cpu="Slow 1", models__m__1__probe_us=1e9)
    assert why_refused(slower, here, spec) is None
    elsewhere = with_points(here, models__other__1__sha256="x")
    assert why_refused(elsewhere, here, spec) is None


def test_the_running_environment_is_held_against_an_attestation(
    tmp_path: Path, here: Fingerprint, keys: dict[str, str]
) -> None:
    versions = {1: mlp((2, 4, 2)), 2: tag(2)}
    trusting = {"attestation": {"key": keys["secret"], "max_age": "1d"}}
    path = write(tmp_path / "x", versions, **trusting)
    attestation = tmp_path / "a.json"
    attestation.write_text(attest(here, keys["secret"]))
    verify = verifier(Clock(here.made_s))
    config, spec = load_config(path), spec_of(path)
    assert verify(config, spec, str(attestation)) is None
    write(tmp_path / "x", {2: tag(3)})
    said = verify(config, spec, str(attestation))
    assert said is not None
    assert said.startswith("models/m/2/golden[0]/tag[0] is 3 here, and 2 in staging")
    stale = verifier(Clock(here.made_s + 2 * DAY))(config, spec, str(attestation))
    assert stale is not None
    assert "2.0 days old, at most 1.0" in stale
    untrusting = config.server.model_copy(update={"attestation": None})
    plain = config.model_copy(update={"server": untrusting})
    assert verify(plain, spec, str(attestation)) == (
        "server.attestation names no key to check it with"
    )


def test_an_attestation_needs_a_key_in_the_file(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "x", {1: tag(1), 2: tag(2)}))
    whole = yaml.safe_load(path.read_text())
    del whole["server"]
    path.write_text(yaml.safe_dump(whole))
    with pytest.raises(ConfigError, match="no key to check it with"):
        load_config(path)


def test_the_commands_have_exit_codes_for_scripts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: dict[str, str]
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["parity", *arguments])
        return int(ended.value.code or 0), capsys.readouterr().out

    config = write(tmp_path / "x", {1: tag(1), 2: tag(2)})
    x = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    recording = tmp_path / "r.jsonl"
    recording.write_text(json.dumps({"model_name": "m", "inputs": [x]}))
    first, second = str(tmp_path / "1.json"), str(tmp_path / "2.json")
    more = ("--recording", str(recording))
    code, _ = run("fingerprint", "-c", config, "-o", first, *more)
    assert code == 0
    assert "m/x[1]" in json.loads(Path(first).read_text())["histograms"]
    assert run("compare", first, first) == (0, "no difference\n")
    write(tmp_path / "x", {1: tag(1), 2: tag(4)})
    assert run("fingerprint", "-c", config, "-o", second)[0] == 0
    code, out = run("compare", first, second)
    assert (code, "blocking      models/m/2/sha256" in out) == (2, True)
    code, out = run("compare", first, second, "-o", "json")
    assert {p["severity"] for p in json.loads(out)} >= {"blocking"}
    signed = ("-c", config, "--key", keys["secret"], "-o", str(tmp_path / "a"))
    assert run("attest", *signed)[0] == 0
    assert run("attest", *signed[:3], keys["short"], *signed[4:])[0] == 1
