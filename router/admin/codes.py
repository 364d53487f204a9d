"""What operators are told when something is wrong: the one table of this plane.

A class that is not in the table is our mistake: the client gets INTERNAL without a word
of it, the log gets the trace. docs/status-codes.md shows the table, and a test compares
the two.
"""

from collections.abc import Callable
from typing import Any

from router.errors import (
    ClaimError,
    ConfigError,
    ConflictError,
    EngineError,
    ModelError,
    NotFoundError,
    RefusedError,
    RouterError,
    StoreError,
)
from router.ops.methods import Code, MethodError

CODES: dict[type[RouterError], Code] = {
    ConfigError: Code.INVALID_ARGUMENT,
    NotFoundError: Code.NOT_FOUND,
    RefusedError: Code.FAILED_PRECONDITION,
    ClaimError: Code.FAILED_PRECONDITION,
    ModelError: Code.FAILED_PRECONDITION,
    EngineError: Code.FAILED_PRECONDITION,
    ConflictError: Code.ABORTED,
    StoreError: Code.UNAVAILABLE,
}
DETAIL_CHARS_MAX = 4000  # a status message is a header; ours bounds those at 8 KiB


def refusal(error: RouterError) -> MethodError | None:
    """The code and the sentence for an error; None when the table has neither."""
    if isinstance(error, MethodError):
        return error
    for kind in type(error).__mro__:
        code = CODES.get(kind)
        if code is not None:
            return MethodError(code, str(error)[:DETAIL_CHARS_MAX])
    return None


def refusing(answer: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its errors turned into refusals."""

    def guarded(*asked: Any) -> Any:
        try:
            return answer(*asked)
        except RouterError as error:
            refused = refusal(error)
            if refused is None:
                raise
            raise refused from error

    return guarded
