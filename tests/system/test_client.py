"""The Python client against a real server: outputs, the decision, and refusals."""

import asyncio

import numpy as np
import pytest

from router import testing
from router.client import AsyncClient, CallError, Client, Prediction

X = {"x": np.ones((1, 2), np.float32)}


@pytest.fixture
def client(world: testing.Server) -> Client:
    with Client(world.address) as made:
        yield made


def test_a_prediction_has_outputs_and_the_decision(client: Client) -> None:
    got = client.predict("tag", X, unit="user-7")
    assert got.outputs["tag"].dtype == np.float32
    assert got.outputs["tag"].shape == (1, 1)
    assert got.outputs["tag"][0, 0] == got.version
    assert got.reason == "SPLIT"
    assert got.bucket is not None
    assert 0 <= got.bucket < 10_000
    assert not got.is_fallback
    assert len(got.revision) == 16


def test_a_unit_keeps_its_version_whatever_says_it(client: Client) -> None:
    by_unit = client.predict("tag", X, unit="user-7")
    by_header = client.predict("tag", X, metadata={"x-user-id": "user-7"})
    assert (by_unit.bucket, by_unit.version) == (by_header.bucket, by_header.version)
    number = client.predict("tag", X, unit=7)
    assert number.bucket == client.predict("tag", X, unit="7").bucket


def test_attributes_choose_the_audience(client: Client) -> None:
    metadata = {"location": "new-york", "age": "30"}
    got = client.predict("tag", X, unit="u", metadata=metadata)
    assert (got.version, got.reason) == (2, "TARGETING_MATCH")
    assert got.rollout


def test_an_attribute_that_no_header_can_carry_is_still_seen(client: Client) -> None:
    # Capitals and other alphabets cannot be headers; parameters carry them.
    got = client.predict("tag", X, unit="u", metadata={"Öffentlich": "ja, é"})
    assert got.version in (1, 2)


def test_a_version_can_be_asked_for(client: Client) -> None:
    assert client.predict("tag", X, version=3).version == 3


@pytest.mark.parametrize("datatype", ["FP16", "INT8", "UINT64", "BOOL", "FP64"])
def test_what_is_sent_comes_back(client: Client, datatype: str) -> None:
    kinds = {"FP16": "f2", "INT8": "i1", "UINT64": "u8", "BOOL": "?", "FP64": "f8"}
    sent = np.array([0, 1, 1], kinds[datatype])
    got = client.predict(f"echo_{datatype.lower()}", {"x": sent})
    assert got.outputs["y"].dtype == sent.dtype
    np.testing.assert_array_equal(got.outputs["y"], sent)


def test_texts_come_back_as_bytes(client: Client) -> None:
    got = client.predict("echo_bytes", {"x": np.array(["a", "é"])})
    assert list(got.outputs["y"]) == [b"a", "é".encode()]


def test_a_model_that_fails_is_an_error_without_its_words(client: Client) -> None:
    fault = {"x": np.array([[0, testing.FAULT_NAN]], np.float32)}
    with pytest.raises(CallError) as caught:
        client.predict("faulty", fault)
    assert caught.value.code == "INTERNAL"


def test_a_refusal_has_code_and_sentence(client: Client) -> None:
    with pytest.raises(CallError, match="NOT_FOUND") as caught:
        client.predict("nothing", X)
    assert caught.value.code == "NOT_FOUND"
    assert "nothing" in caught.value.detail
    assert caught.value.retry_after_s is None
    with pytest.raises(ValueError, match="input 'x'"):
        client.predict("tag", {"x": np.zeros((1, 2), np.complex64)})


def test_a_deadline_is_kept(client: Client) -> None:
    slow = {"x": np.array([[0, testing.FAULT_SLOW]], np.float32)}
    with pytest.raises(CallError) as caught:
        client.predict("faulty", slow, deadline=0.02)
    assert caught.value.code in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")


def test_a_server_that_is_away_is_unavailable() -> None:
    (port,) = testing.free_ports(1)
    with Client(f"127.0.0.1:{port}") as client, pytest.raises(CallError) as caught:
        client.predict("tag", X, deadline=5)
    assert caught.value.code == "UNAVAILABLE"


def test_tasks_share_one_client(world: testing.Server, client: Client) -> None:
    async def ask() -> list[Prediction]:
        async with AsyncClient(world.address) as shared:
            calls = [shared.predict("tag", X, unit=f"user-{i}") for i in range(32)]
            with pytest.raises(CallError, match="nothing"):
                await shared.predict("nothing", X)
            return list(await asyncio.gather(*calls))

    for i, got in enumerate(asyncio.run(ask())):
        blocking = client.predict("tag", X, unit=f"user-{i}")
        assert (got.version, got.bucket) == (blocking.version, blocking.bucket)


def test_explaining_needs_the_operators_listener(client: Client) -> None:
    with pytest.raises(CallError, match="admin="):
        client.explain("tag")
