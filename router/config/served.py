"""What is known about a model's versions while its configuration is checked.

What exists on disk and which expressions compile is knowledge of others: both come in
as functions.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from router.config.model import Model, served_versions, upstream_versions
from router.config.problems import Finding, Path
from router.errors import RouterError

# The versions in a repository; raises RouterError when it cannot be read.
ListVersions = Callable[[str], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Served:
    """What is known about a model's versions."""

    versions: tuple[int, ...] | None
    """None when nobody listed them."""
    findings: tuple[Finding, ...] = field(default=())


def find_served(model: Model, path: Path, list_versions: ListVersions | None) -> Served:
    if list_versions is None:
        is_listed = isinstance(model.versions, tuple)
        return Served(served_versions(model, ()) if is_listed else None)
    remote = upstream_versions(model)
    if model.repository is None:
        return _without_repository(model, path, remote)
    try:
        listed = tuple({*list_versions(model.repository), *remote})
    except RouterError as error:
        return Served(
            None, (Finding((*path, "repository"), str(error), repr(model.repository)),)
        )
    if not listed:
        return Served(
            None,
            (
                Finding(
                    (*path, "repository"), "no version in this repository",
                    repr(model.repository), "it needs <version>/model.onnx",
                ),
            ),
        )  # fmt: skip
    findings = tuple(
        Finding(place, "no such version in the repository", str(version), have(listed))
        for place, version in _named_versions(model, path)
        if version not in listed
    )
    return Served(served_versions(model, listed), findings)


def _without_repository(model: Model, path: Path, remote: tuple[int, ...]) -> Served:
    """Every version must be another server's."""
    findings = tuple(
        Finding(place, "not an upstream, and there is no repository", str(version))
        for place, version in _named_versions(model, path)
        if version not in remote
    )
    if not remote and not findings:
        what = "a model needs a repository, or versions with an upstream"
        findings = (Finding((*path, "repository"), what, ""),)
    return Served(served_versions(model, remote) if remote else None, findings)


def _named_versions(model: Model, path: Path) -> Iterator[tuple[Path, int]]:
    versions = model.versions
    if isinstance(versions, tuple):
        yield from (((*path, "versions", i), v) for i, v in enumerate(versions))
    elif isinstance(versions, dict):
        yield from (((*path, "versions", version), version) for version in versions)


def have(versions: Iterable[int]) -> str:
    return f"it has {', '.join(str(version) for version in sorted(versions))}"
