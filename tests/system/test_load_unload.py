"""Versions come and go while the server runs, told by stock clients."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from entries import model
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tritonclient.utils import InferenceServerException

from router import testing

SERVICE = "/inference.GRPCInferenceService/"
X = {"x": np.ones((1, 2), np.float32)}
QUICK = {"drain_s": 2, "admin": "unix:admin.sock"}
SPLIT = [{"version": 1, "weight": 50}, {"version": 2, "weight": 50}]


class Operator:
    """A server with an admin socket, and what an operator's clients say to it."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.repository = directory / "models"
        self.folder = self.repository / "tag"
        self.put(1)
        self.put(2)
        self.entry = model(self.repository, "tag", **{"stable": 1, **settings})
        self.server = testing.Server(
            directory, {"models": [self.entry]}, settings=QUICK
        )
        self.address = f"unix:{directory}/admin.sock"

    def put(self, version: int, data: bytes | None = None) -> None:
        """Place a version into the repository."""
        made = testing.tag(version) if data is None else data
        testing.write_model(self.repository, "tag", {version: made})

    def load(self, name: str = "tag", version: int | str | None = None) -> None:
        self._ask("RepositoryModelLoad", name, version)

    def unload(self, name: str = "tag", version: int | str | None = None) -> None:
        self._ask("RepositoryModelUnload", name, version)

    def _ask(self, method: str, name: str, version: int | str | None) -> None:
        request = testing.messages()(f"{method}Request")(model_name=name)
        if isinstance(version, int):
            request.parameters["version"].int64_param = version
        elif version is not None:
            request.parameters["version"].string_param = version
        with grpc.insecure_channel(self.address) as channel:
            call = channel.unary_unary(SERVICE + method)
            call(request.SerializeToString(), timeout=30)

    def index(self) -> dict[str, tuple[str, str]]:
        """State and reason by version."""
        with triton.InferenceServerClient(self.server.address) as client:
            found = client.get_model_repository_index().models
        return {one.version: (one.state, one.reason) for one in found}

    def answers(self, version: str = "") -> int:
        with testing.Caller(self.server.address) as caller:
            return caller.infer("tag", X, version=version).version


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    made = Operator(tmp_path)
    with made.server:
        yield made


def refusal(caught: pytest.ExceptionInfo[grpc.RpcError]) -> tuple[str, str]:
    return caught.value.code().name, caught.value.details()


def test_a_version_newly_placed_is_loaded_and_one_unloaded_goes(
    operator: Operator,
) -> None:
    operator.put(3)
    assert "3" not in operator.index()
    operator.load(version=3)
    assert operator.index()["3"] == ("READY", "loaded at run time")
    assert operator.answers("3") == 3
    operator.unload(version=3)
    assert operator.index()["3"] == ("UNAVAILABLE", "unloaded at run time")
    with pytest.raises(grpc.RpcError):
        operator.answers("3")
    assert operator.answers() == 1
    operator.load(version="3")
    assert operator.answers("3") == 3


@pytest.mark.slow
def test_what_was_unloaded_stays_so_until_the_file_names_it(operator: Operator) -> None:
    operator.unload(version=2)
    operator.server.reload({"models": [operator.entry]})
    assert operator.index()["2"] == ("UNAVAILABLE", "unloaded at run time")
    operator.server.kill()
    operator.server.start()
    assert operator.index()["2"] == ("UNAVAILABLE", "unloaded at run time")
    route = {"model": "tag", "version": 2}
    operator.server.reload({"models": [operator.entry], "routes": [route]})
    assert operator.index()["2"][0] == "READY"
    assert operator.answers() == 2


@pytest.mark.parametrize(
    "broken", [b"not a model", testing.mlp()], ids=["junk", "other"]
)
def test_a_version_that_cannot_serve_never_does_and_says_why(
    operator: Operator, broken: bytes
) -> None:
    operator.put(3, broken)
    with pytest.raises(grpc.RpcError) as caught:
        operator.load(version=3)
    code, details = refusal(caught)
    assert code == "INVALID_ARGUMENT"
    assert details.startswith("model 'tag' version 3: ")
    assert str(operator.folder) not in details
    state, reason = operator.index()["3"]
    assert state == "UNAVAILABLE"
    assert reason.endswith(details.partition("version 3: ")[2])
    with pytest.raises(grpc.RpcError):
        operator.answers("3")
    # Others come and go meanwhile, and once it is repaired so does this one.
    operator.unload(version=2)
    assert operator.index()["3"] == (state, reason)
    operator.put(3)
    operator.load(version=3)
    assert operator.answers("3") == 3


@pytest.mark.slow
def test_a_file_that_was_replaced_by_a_bad_one_leaves_the_old_one_serving(
    operator: Operator,
) -> None:
    operator.put(2, b"not a model")
    with pytest.raises(grpc.RpcError) as caught:
        operator.load(version=2)
    assert refusal(caught)[0] == "INVALID_ARGUMENT"
    assert operator.answers("2") == 2
    # Neither does loading another look at it.
    operator.put(3)
    operator.load(version=3)
    assert operator.answers("2") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "routes", "why"),
    [
        ({"stable": 2}, [], "it is stable"),
        ({"aliases": {"champion": 2}}, [], "it is 'champion'"),
        ({}, [{"model": "tag", "split": SPLIT}], "route 'tag' leads to it"),
        ({}, [{"model": "tag", "version": 2}], "route 'tag' leads to it"),
    ],
)
def test_a_version_that_serves_is_not_unloaded(
    tmp_path: Path, settings: dict[str, Any], routes: list[Any], why: str
) -> None:
    operator = Operator(tmp_path, **settings)
    operator.server.write({"models": [operator.entry], "routes": routes})
    with operator.server:
        with pytest.raises(grpc.RpcError) as caught:
            operator.unload(version=2)
        sentence = f"model 'tag' version 2: cannot be unloaded: {why}"
        assert refusal(caught) == ("INVALID_ARGUMENT", sentence)
        assert operator.answers("2") == 2


def test_what_is_not_there_or_not_said_is_refused(operator: Operator) -> None:
    refusals = [
        (operator.load, "other", 1, "NOT_FOUND"),
        (operator.load, "tag", 9, "NOT_FOUND"),
        (operator.unload, "tag", 9, "NOT_FOUND"),
        (operator.unload, "tag", None, "INVALID_ARGUMENT"),
        (operator.load, "tag", "two", "INVALID_ARGUMENT"),
        (operator.load, "", 1, "INVALID_ARGUMENT"),
    ]
    for ask, name, version, code in refusals:
        with pytest.raises(grpc.RpcError) as caught:
            ask(name, version)
        assert caught.value.code().name == code
    assert {state for state, _ in operator.index().values()} == {"READY"}


@pytest.mark.slow
def test_a_version_that_is_not_listed_or_would_become_stable_is_refused(
    tmp_path: Path,
) -> None:
    listed = Operator(tmp_path / "a", versions=[1])
    lowest = Operator(tmp_path / "b", stable=None)
    shutil.rmtree(lowest.folder / "1")
    with listed.server, lowest.server:
        with pytest.raises(grpc.RpcError, match="the configuration lists"):
            listed.load(version=2)
        lowest.put(1)
        with pytest.raises(grpc.RpcError, match="it would become stable by arriving"):
            lowest.load(version=1)
        assert lowest.answers() == 2


def test_tritons_client_loads_and_unloads(operator: Operator) -> None:
    operator.put(3)
    policy = '{"version_policy": {"specific": {"versions": [3]}}}'
    with triton.InferenceServerClient(operator.address) as client:
        client.load_model("tag", config=policy)
        assert operator.answers("3") == 3
        operator.put(4)
        client.load_model("tag")
        assert operator.answers("4") == 4
        with pytest.raises(InferenceServerException, match="name the version"):
            client.unload_model("tag")
        for config in ('{"backend": "x"}', "[", '{"version_policy": {"latest": {}}}'):
            with pytest.raises(InferenceServerException, match="parameter 'config'"):
                client.load_model("tag", config=config)
        with pytest.raises(InferenceServerException, match="parameter 'file:1/m"):
            client.load_model("tag", config=policy, files={"file:1/m.onnx": b"x"})


def kserve_messages(done: str) -> tuple[type[Any], type[Any]]:
    """KServe's request and response, field by field as its file has them."""
    file = descriptor_pb2.FileDescriptorProto(
        name="k.proto", package="k", syntax="proto3"
    )
    text, flag = (descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{t}")
                  for t in ("STRING", "BOOL"))  # fmt: skip
    request = file.message_type.add(name="Request")
    request.field.add(name="model_name", number=1, type=text, label=1)
    response = file.message_type.add(name="Response")
    response.field.add(name="model_name", number=1, type=text, label=1)
    response.field.add(name=done, number=2, type=flag, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"k.{name}"))
        for name in ("Request", "Response")
    ]
    return made[0], made[1]


@pytest.mark.slow
def test_kserves_form_loads_the_model_it_names(operator: Operator) -> None:
    operator.put(3)
    request, response = kserve_messages("isLoaded")
    with grpc.insecure_channel(operator.address) as channel:
        call = channel.unary_unary(SERVICE + "RepositoryModelLoad")
        wire = call(request(model_name="tag").SerializeToString(), timeout=30)
    answer = response.FromString(wire)
    assert (answer.model_name, answer.isLoaded) == ("tag", True)
    assert operator.answers("3") == 3


def test_clients_of_the_data_port_cannot_load(operator: Operator) -> None:
    with triton.InferenceServerClient(operator.server.address) as client:
        for ask in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
                ask("tag")


@pytest.mark.slow
def test_an_alias_moves_only_to_a_version_that_is_loaded(operator: Operator) -> None:
    operator.put(3, b"not a model")
    with pytest.raises(grpc.RpcError):
        operator.load(version=3)
    moved = {**operator.entry, "aliases": {"champion": 3}}
    operator.server.write({"models": [moved]})
    refused = "an alias moves only to a version that is loaded"
    testing.wait_until(lambda: refused in operator.server.tail(), "the refusal")
    assert operator.answers() == 1
    operator.put(3)
    route = {"model": "tag", "version": "champion"}
    operator.server.reload({"models": [moved], "routes": [route]})
    assert operator.answers() == 3


@pytest.mark.slow
def test_the_command_line_loads_and_unloads_and_says_what_is_refused(
    operator: Operator,
) -> None:
    def router_model(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "router", "model", *arguments]
        folder = operator.server.directory
        return subprocess.run(command, cwd=folder, capture_output=True, text=True)

    operator.put(3)
    # The file says where the admin listener is; its path is seen from its folder.
    done = router_model("load", "tag", "3", "-f", str(operator.server.path))
    assert (done.returncode, done.stdout) == (0, "tag version 3: loaded\n"), done.stderr
    assert operator.answers("3") == 3
    done = router_model("unload", "tag", "1", "--admin", operator.address)
    assert done.returncode == 1
    assert done.stderr == (
        f"{operator.address}: INVALID_ARGUMENT:"
        " model 'tag' version 1: cannot be unloaded: it is stable\n"
    )


def gone_by_delete(folder: Path) -> None:
    shutil.rmtree(folder)


def gone_by_rename(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def gone_by_unmount(folder: Path) -> None:
    # What is left of a mount point: an empty folder.
    folder.rename(folder.with_name("elsewhere"))
    folder.mkdir()


def gone_by_rights(folder: Path) -> None:
    folder.chmod(0)


def gone_by_rights_of_each(folder: Path) -> None:
    for version in folder.iterdir():
        version.chmod(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "vanish",
    [gone_by_delete, gone_by_rename, gone_by_unmount, gone_by_rights,
     gone_by_rights_of_each],
)  # fmt: skip
def test_a_repository_that_is_away_unloads_nothing(tmp_path: Path, vanish: Any) -> None:
    operator = Operator(tmp_path)
    # Root reads everything: without these capabilities it is anybody.
    rights = "--bounding-set=-dac_override,-dac_read_search"
    operator.server = testing.Server(
        tmp_path, {"models": [operator.entry]}, settings=QUICK,
        launcher=("setpriv", rights, "--inh-caps=-all"),
    )  # fmt: skip
    with operator.server as server:
        vanish(operator.folder)
        try:
            failed = "router_config_last_reload_successful"
            server.hang_up()
            testing.wait_until(lambda: server.metric(failed) == 0, "the refusal")
            with pytest.raises(grpc.RpcError) as caught:
                operator.load(version=3)
            assert caught.value.code().name in ("UNAVAILABLE", "NOT_FOUND")
            assert operator.answers() == 1
            assert operator.answers("2") == 2
            assert {state for state, _ in operator.index().values()} == {"READY"}
        finally:
            for folder in (operator.folder, *operator.folder.glob("*")):
                if folder.exists():
                    folder.chmod(0o755)
