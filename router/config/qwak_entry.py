"""How a file of Qwak's is named in the configuration."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from router.config.values import FROZEN, Name, Text

FILES_MAX = 16


class QwakFile(BaseModel):
    """A file of Qwak's, by its path beside the configuration."""

    model_config = FROZEN
    file: Text
    model: Name | None = None
    """Whose routes it means; the only model if unset. A deployment's model_id goes
    first."""


def _qwak_files(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [{"file": one} if isinstance(one, str) else one for one in value]
    return value


QwakFiles = Annotated[
    tuple[QwakFile, ...],
    BeforeValidator(_qwak_files, json_schema_input_type=list[str | QwakFile]),
    Field(max_length=FILES_MAX),
]
