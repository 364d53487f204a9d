"""Health checking, with watches as numbers."""

import pytest

from router.client.messages import message
from router.ops.health import NOT_SERVING, SERVICE_UNKNOWN, SERVING, Watchers
from router.ops.health import health_methods as methods_of
from router.ops.methods import Code, MethodError

REQUEST = message("grpc.health.v1.HealthCheckRequest")
RESPONSE = message("grpc.health.v1.HealthCheckResponse")


def check(plane, service):
    checked, _ = methods_of(plane.serving, Watchers(plane.serving, plane.sent))
    return checked.answer(REQUEST(service=service)).status


def told(plane, stream):
    """The statuses a watcher was sent."""
    return [
        RESPONSE.FromString(data).status
        for to, data, *_ in plane.sent.calls
        if to == stream and data is not None
    ]


@pytest.mark.parametrize(
    "service", ["", "inference.GRPCInferenceService", "model/credit"]
)
def test_names_of_the_server_and_of_models_are_checked(plane, service):
    assert check(plane, service) == SERVING
    plane.serving.drain()
    assert check(plane, service) == NOT_SERVING


@pytest.mark.parametrize("service", ["credit", "model/", "model/nothing", "x.Y"])
def test_check_does_not_find_a_name_that_means_nothing(plane, service):
    with pytest.raises(MethodError) as raised:
        check(plane, service)
    assert raised.value.code == Code.NOT_FOUND


def test_a_watcher_is_told_at_once_and_then_only_of_changes(plane):
    watchers = Watchers(plane.serving, plane.sent)
    watchers.opened(1, REQUEST(service="model/text"))
    watchers.refresh()
    assert told(plane, 1) == [SERVING]
    plane.open_breaker("text", 5)
    watchers.refresh()
    watchers.refresh()
    assert told(plane, 1) == [SERVING, NOT_SERVING]


def test_watching_an_unknown_name_keeps_watching(plane):
    watchers = Watchers(plane.serving, plane.sent)
    watchers.opened(1, REQUEST(service="model/later"))
    watchers.half_closed(1)
    assert told(plane, 1) == [SERVICE_UNKNOWN]
    assert not any(end for _, _, end, *_ in plane.sent.calls)


def test_a_watcher_that_left_is_not_sent_to(plane):
    watchers = Watchers(plane.serving, plane.sent)
    watchers.opened(1, REQUEST())
    watchers.opened(2, REQUEST())
    watchers.gone(1)
    plane.sent.gone.add(2)
    plane.serving.drain()
    watchers.refresh()
    watchers.refresh()
    assert told(plane, 1) == [SERVING]
    assert len(told(plane, 2)) == 2


def test_draining_tells_watchers_and_ends_their_streams(plane):
    watchers = Watchers(plane.serving, plane.sent)
    watchers.opened(1, REQUEST())
    plane.serving.drain()
    watchers.end()
    assert told(plane, 1) == [SERVING, NOT_SERVING]
    assert plane.sent.calls[-1] == (
        1, None, True, Code.UNAVAILABLE, "the server is draining",
    )  # fmt: skip
    with pytest.raises(MethodError):
        watchers.opened(2, REQUEST())


def test_a_second_request_on_a_watch_is_refused(plane):
    watchers = Watchers(plane.serving, plane.sent)
    watchers.opened(1, REQUEST())
    with pytest.raises(MethodError) as raised:
        watchers.opened(1, REQUEST())
    assert raised.value.code == Code.INVALID_ARGUMENT
