"""The three formats <-> tensors.

| format                   | in                                   | out                           |
|--------------------------|--------------------------------------|-------------------------------|
| application/octet-stream | users then positives, float32        | the bare negatives            |
| .../x-safetensors        | named tensors F32, F16, BF16         | named tensors, `__metadata__` |
| application/json         | lists, or {"shape", "dtype", "data"} | lists                         |

All little-endian, C order. Binary tensors are views of the body, and answers are views of tensors:
nothing here but JSON costs time per row. Whether numbers are finite is checked where they are used,
in the model thread.
"""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from torch import Tensor

from service.codecs.arrays import Arrays, Inputs, checked
from service.codecs.binary import (
    from_octet_stream,
    from_safetensors,
    to_octet_stream,
    to_safetensors,
)
from service.codecs.media import (
    FORMATS,
    JSON,
    OCTET_STREAM,
    SAFETENSORS,
    media_type,
    negotiate,
    wanted,
)
from service.codecs.text import from_json, to_json

__all__ = [
    "FORMATS",
    "JSON",
    "OCTET_STREAM",
    "SAFETENSORS",
    "Arrays",
    "Inputs",
    "checked",
    "encode",
    "from_json",
    "from_octet_stream",
    "from_safetensors",
    "media_type",
    "negotiate",
    "wanted",
]


def encode(media: str, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> Response:
    """The answer in a format.

    Args:
        media: one of `FORMATS`. JSON takes time per number: not for the event loop.
        tensors: name -> tensor.
        told: model, version and seed.
    """
    if media == JSON:
        return to_json(tensors, told)
    if media == SAFETENSORS:
        return to_safetensors(tensors, told)
    return to_octet_stream(tensors["negatives"])
