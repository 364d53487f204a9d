"""Every error the router raises on purpose.

One root, so that a caller can catch ours and nothing else. Each class carries what was
wrong as data as well as in its sentence. "Not enough data" and "refused" are answers,
not errors, and have no class here.
"""

from dataclasses import dataclass


class RouterError(Exception):
    """The root of all errors raised on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration.

    `file` and `line` (1-based) say where it stands, `path` which key it is
    (`models[0].stable`), `value` what was found and `remedy` what to write instead.
    `line` is 0 when the place is unknown.
    """

    file: str
    line: int
    path: str
    message: str
    value: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        found = f" (found {self.value})" if self.value else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{place}: {self.path}: {self.message}{found}{remedy}"


class ConfigError(RouterError):
    """A configuration that cannot take effect, with every problem found in it."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class ModelError(RouterError):
    """A model version that cannot be served: missing, corrupt, or refused."""

    def __init__(self, model: str, version: int, message: str) -> None:
        self.model, self.version, self.problem = model, version, message
        super().__init__(f"model '{model}' version {version}: {message}")


class ClaimError(RouterError):
    """A share that cannot be had; `in_the_way` are the scopes that hold the buckets."""

    def __init__(self, message: str, in_the_way: tuple[str, ...] = ()) -> None:
        self.in_the_way = in_the_way
        super().__init__(message)


class TableError(RouterError):
    """Bytes that are not a routing table."""


class EngineError(RouterError):
    """The data plane refused what it was asked."""


class StoreError(RouterError):
    """The control log, or another store, cannot be read or written."""


class StoreFullError(StoreError):
    """There is no room for what was to be stored; nothing of it is."""


class NotFoundError(RouterError):
    """Nothing of that name."""


class RefusedError(RouterError):
    """What was asked is understood and not allowed now; the text says why."""


class ConflictError(RouterError):
    """Somebody else was faster, or a request id was used for something else."""
