"""How far a version is trusted: probed in a child, kept in a worker, and within what.

Memory is in MiB and counts what a version takes on top of four times its size: its
bytes parsed, laid out and once more in passing are nobody's fault.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from router.config.values import FROZEN, Count, Flag, Seconds, Whole

Isolation = Literal["none", "process"]
ModelIsolation = Literal["none", "process", "candidates"]


class Probe(BaseModel):
    """What loading a version and running it once may take, in a child, beforehand."""

    model_config = FROZEN
    memory_mb: Count = 2048
    cpu_s: Annotated[Count, Field(le=86_400)] = 60
    """Processor time."""
    wall_s: Annotated[Seconds, Field(le=86_400)] = 60
    off: Flag = False
    """Trust the file: load it without a probe."""


class Worker(BaseModel):
    """What a worker may use, and when it counts as hung."""

    model_config = FROZEN
    memory_mb: Count = 4096
    """Above it allocations fail, and a worker that holds more is ended."""
    cores: Annotated[Count, Field(le=1024)] | None = None
    """Processors it may run on; unset: all of the router's."""
    nice: Annotated[Whole, Field(le=19)] = 0
    """Added to the router's: 19 runs when nobody else wants to."""
    files_max: Annotated[Count, Field(ge=64, le=1_048_576)] = 1024
    """Open descriptors."""
    hang_s: Annotated[Seconds, Field(ge=0.5, le=3600)] = 5
    """The longest silence before it is ended and started again."""
