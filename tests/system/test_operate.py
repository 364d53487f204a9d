"""Operators' commands against a real server, over its Unix socket."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import yaml
from entries import AUDIENCES, model

from router import testing
from router.cli.main import main
from router.client.messages import message
from router.client.operator import Operator
from router.client.prediction import CallError
from router.client.stub import streaming

X = {"x": np.ones((1, 2), np.float32)}
ROLLOUT = {
    "name": "tag-2",
    "model": "tag",
    "candidate": 2,
    "steps": [
        {"weight": {"to": 10, "for": "1h"}},
        {"approval": {}},
        {"weight": {"to": 50, "for": "1h"}},
        {"weight": {"to": 100}},
    ],
}

Run = Callable[..., tuple[int, str, str]]


def config_of(directory: Path, *rollouts: dict[str, Any]) -> dict[str, Any]:
    return {
        "models": [model(directory / "models", "tag", stable=1)],
        "audiences": AUDIENCES,
        "rollouts": list(rollouts),
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.Server]:
    directory = tmp_path_factory.mktemp("operated")
    tags = {version: testing.tag(version) for version in (1, 2, 3)}
    testing.write_model(directory / "models", "tag", tags)
    config = config_of(directory, ROLLOUT)
    with testing.Server(directory, config, settings={"drain_s": 2}) as made:
        yield made


@pytest.fixture
def admin(server: testing.Server) -> str:
    return f"unix:{server.directory}/run/admin.sock"


@pytest.fixture
def run(admin: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command as a shell would run it: exit code, output, errors."""

    def ran(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--admin", admin])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return ran


def scope(run: Run, name: str = "tag-2") -> dict[str, Any]:
    code, out, err = run("get", "rollouts", "-o", "json")
    assert code == 0, err
    (found,) = (one for one in json.loads(out)["scopes"] if one["scope"] == name)
    return found


def restart(run: Run, name: str = "tag-2") -> None:
    code, _, err = run("restart", name)
    assert code == 0, err
    testing.wait_until(lambda: scope(run, name)["phase"] == "ramping", "the first step")


def share_of(server: testing.Server, version: int) -> float:
    units = [f"unit-{i}" for i in range(300)]
    with testing.Caller(server.address) as caller:
        answers = caller.versions("tag", X, units)
    return sum(answered == version for answered in answers.values()) / len(units)


def test_a_weight_that_is_set_is_what_users_get_at_once(
    run: Run, server: testing.Server
) -> None:
    restart(run)
    code, out, _ = run("set", "weight", "tag-2", "30", "--reason", "we dare")
    assert (code, "tag-2" in out) == (0, True)
    # 300 units at 30 %: four standard deviations are 0.106.
    assert abs(share_of(server, 2) - 0.3) < 0.11
    found = scope(run)
    shares = {one["version"]: one["claimed_bp"] for one in found["shares"]}
    assert shares == {1: 7000, 2: 3000}


def test_a_rollback_returns_everybody_before_it_is_acknowledged(
    run: Run, server: testing.Server
) -> None:
    restart(run)
    assert run("set", "weight", "tag-2", "50")[0] == 0
    assert run("rollback", "tag-2", "--reason", "it looks wrong")[0] == 0
    assert share_of(server, 2) == 0
    assert scope(run)["phase"] == "rolled_back"
    assert run("status", "tag-2")[0] == 1
    code, out, _ = run("history", "tag-2", "-o", "json")
    last = json.loads(out)["entries"][-1]
    assert code == 0
    assert last["reason"] == "it looks wrong"
    assert "@" in last["actor"]
    assert "rolled_back" in last["sentence"]


def test_pausing_promoting_and_approving_walk_the_steps(run: Run) -> None:
    restart(run)
    assert run("status", "tag-2")[0] == 0
    assert run("pause", "tag-2")[0] == 0
    assert scope(run)["is_paused"]
    assert run("resume", "tag-2")[0] == 0
    assert run("promote", "tag-2")[0] == 0
    assert scope(run)["phase"] == "awaiting_approval"
    assert run("approve", "tag-2")[0] == 0
    testing.wait_until(lambda: scope(run)["step"] == 2, "the last step")
    assert run("promote", "tag-2", "--full")[0] == 0
    assert scope(run)["phase"] == "promoted"
    assert run("status", "tag-2", "--timeout", "5s")[0] == 0


def test_a_status_that_waits_in_vain_exits_with_two(run: Run) -> None:
    restart(run)
    code, out, _ = run("status", "tag-2", "--timeout", "300ms")
    assert code == 2
    assert "tag-2" in out


def test_a_refusal_is_one_line_and_exit_code_one(run: Run) -> None:
    restart(run)
    for arguments, words in (
        (("approve", "tag-2"), "FAILED_PRECONDITION"),
        (("retry", "tag-2"), "FAILED_PRECONDITION"),
        (("pause", "nothing"), "no rollout 'nothing'"),
        (("disable", "tag", "1"), "stable"),
        (("flag", "set", "rollouts/tag-2", "on"), "rollout/<name>"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (1, ""), arguments
        assert words in err
        assert len(err.strip().splitlines()) == 1


def test_the_same_request_id_is_carried_out_once(run: Run, admin: str) -> None:
    restart(run)
    asked = {"actor": "test", "request_id": "once", "reason": ""}
    weigh = {"rollout": "tag-2", "weight_bp": 2000, "asked": asked}
    with Operator(admin) as operator:
        first = operator.call("RolloutService/SetWeight", **weigh)
        again = operator.call("RolloutService/SetWeight", **weigh)
        assert (first.is_repeat, again.is_repeat) == (False, True)
        assert again.message == first.message
        weigh["weight_bp"] = 3000
        with pytest.raises(CallError) as caught:
            operator.call("RolloutService/SetWeight", **weigh)
    assert caught.value.code == "ABORTED"
    assert "once" in caught.value.detail
    assert scope(run)["shares"][1]["claimed_bp"] == 2000


def test_too_long_a_name_and_too_large_a_share_are_refused(admin: str) -> None:
    with Operator(admin) as operator:
        for fields, words in (
            ({"weight_bp": 10_001}, "10001"),
            ({"weight_bp": 1, "asked": {"actor": "x" * 300}}, "asked.actor"),
        ):
            with pytest.raises(CallError) as caught:
                operator.call("RolloutService/SetWeight", rollout="tag-2", **fields)
            assert caught.value.code == "INVALID_ARGUMENT"
            assert words in caught.value.detail


def test_freezing_stops_growth_and_not_rolling_back(run: Run) -> None:
    restart(run)
    assert run("freeze", "--reason", "holidays")[0] == 0
    assert "frozen" in run("status", "tag-2")[1]
    assert run("rollback", "tag-2")[0] == 0
    assert run("unfreeze")[0] == 0


def test_a_disabled_version_answers_nobody(run: Run, server: testing.Server) -> None:
    restart(run)
    assert run("set", "weight", "tag-2", "50")[0] == 0
    assert run("disable", "tag", "2")[0] == 0
    assert share_of(server, 2) == 0
    assert run("enable", "tag", "2")[0] == 0
    assert share_of(server, 2) > 0.3


def test_a_flag_turns_a_rollout_off_and_on(run: Run, server: testing.Server) -> None:
    restart(run)
    assert run("set", "weight", "tag-2", "50")[0] == 0
    assert run("flag", "set", "rollout/tag-2", "off")[0] == 0
    assert share_of(server, 2) == 0
    listed = json.loads(run("flag", "list", "-o", "json")[1])["flags"]
    flags = {one["name"]: one["is_on"] for one in listed}
    assert flags["rollout/tag-2"] is False
    assert flags["variant/tag/2"] is True
    assert run("flag", "set", "rollout/tag-2", "on")[0] == 0
    assert share_of(server, 2) > 0.3


def test_an_audience_can_be_put_beside_the_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "audiences.yaml"
    teens = {"name": "teens", "when": {"all": [{"key": "age", "range": [13, 19]}]}}
    path.write_text(json.dumps({"audiences": [teens]}))
    assert run("audience", "update", "-f", str(path))[0] == 1
    assert run("audience", "create", "-f", str(path))[0] == 0
    code, _, err = run("audience", "create", "-f", str(path))
    assert (code, "exists" in err) == (1, True)
    assert run("audience", "update", "-f", str(path))[0] == 0
    shown = yaml.safe_load(run("audience", "get", "teens")[1])
    assert shown["name"] == "teens"
    listed = json.loads(run("audience", "list", "-o", "json")[1])["audiences"]
    owners = {one["name"]: one["is_of_file"] for one in listed}
    assert owners["teens"] is False
    assert owners["new-york"] is True
    code, _, err = run("audience", "delete", "new-york")
    assert (code, "file" in err) == (1, True)
    assert run("audience", "delete", "teens")[0] == 0
    assert run("audience", "get", "teens")[0] == 1
    path.write_text("audiences:\n- {name: teens, wenn: 1}\n")
    code, _, err = run("audience", "create", "-f", str(path))
    assert (code, "wenn" in err) == (1, True)


def test_every_list_has_a_table_and_values(run: Run) -> None:
    for kind in ("rollouts", "models", "audiences", "variations", "routes", "flags"):
        code, out, _ = run("get", kind)
        assert (code, bool(out)) == (0, True), kind
        as_json = json.loads(run("get", kind, "-o", "json")[1])
        assert yaml.safe_load(run("get", kind, "-o", "yaml")[1]) == as_json
    code, out, _ = run("describe", "rollout", "tag-2")
    assert code == 0
    assert "approval" in out
    assert "10 %" in out
    assert "version 2: ready" in run("describe", "model", "tag")[1]


def test_history_keeps_secrets(run: Run) -> None:
    out = run("history", "-o", "json", "--limit", "10000")[1]
    assert "secret" not in out
    assert "claims" not in out
    kinds = {entry["kind"] for entry in json.loads(out)["entries"]}
    assert "config_applied" in kinds


def test_a_configuration_is_applied_or_refused_whole(
    run: Run, server: testing.Server, tmp_path: Path
) -> None:
    state = Operator(f"unix:{server.directory}/run/admin.sock")
    before = state.call("ConfigService/Get").state.config_revision
    whole = json.loads(server.path.read_text())
    path = tmp_path / "next.yaml"
    path.write_text(json.dumps({**whole, "modells": []}))
    code, _, err = run("apply", "-f", str(path))
    assert (code, "modells" in err) == (1, True)
    whole["models"][0]["pins"] = "deny"
    path.write_text(json.dumps(whole))
    code, _, err = run("apply", "-f", str(path), "--expect-revision", "0" * 16)
    assert (code, "ABORTED" in err) == (1, True)
    assert run("apply", "-f", str(path), "--dry-run")[0] == 0
    assert state.call("ConfigService/Get").state.config_revision == before
    assert run("apply", "-f", str(path), "--expect-revision", before)[0] == 0
    after = state.call("ConfigService/Get")
    assert after.state.config_revision != before
    assert json.loads(after.config_json)["models"][0]["pins"] == "deny"
    revisions = state.call("ConfigService/Revisions").revisions
    assert revisions[-1].config_revision == after.state.config_revision
    found = state.call("ConfigService/Validate", text="models: 1", name="x.yaml")
    assert any(problem.file == "x.yaml" for problem in found.problems)
    whole["models"][0]["pins"] = "ignore"
    plan = state.call("ConfigService/Plan", text=json.dumps(whole))
    assert plan.has_changes
    state.close()


def test_where_nobody_listens_the_remedy_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "router.yaml"
    file.write_text("server: {admin: null}\n")
    for arguments, words in (
        (["-c", str(file)], "server.admin is null"),
        (["--admin", f"unix:{tmp_path}/no.sock"], "is it running"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["get", "models", *arguments])
        assert ended.value.code == 1
        assert words in capsys.readouterr().err


def test_watches_tell_changes_and_end_with_the_server(tmp_path: Path) -> None:
    tags = {version: testing.tag(version) for version in (1, 2)}
    testing.write_model(tmp_path / "models", "tag", tags)
    config = config_of(tmp_path, ROLLOUT)
    admin = f"unix:{tmp_path}/run/admin.sock"
    with (
        testing.Server(tmp_path, config, settings={"drain_s": 10}) as server,
        grpc.insecure_channel(admin) as channel,
        Operator(admin) as operator,
    ):
        request = message("router.v1.WatchRolloutsRequest")(rollout="tag-2")
        stream = streaming(channel, "router.v1.RolloutService/Watch", [request], 60)
        first = next(stream)
        assert first.scopes[0].rollout == "tag-2"
        asked = {"actor": "test"}
        operator.call("RolloutService/RollBack", rollout="tag-2", asked=asked)
        for seen in stream:
            if seen.scopes[0].phase == "rolled_back":
                break
        else:
            pytest.fail("the watch ended without a word of the rollback")
        assert server.stop() == 0
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "draining" in caught.value.details()
