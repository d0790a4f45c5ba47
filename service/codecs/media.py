"""The formats, and which one an answer takes."""

from starlette.datastructures import Headers

from core.errors import OutOfRangeError, UnsupportedMediaTypeError
from service.problems import NotAcceptableError

OCTET_STREAM = "application/octet-stream"
SAFETENSORS = "application/x-safetensors"
JSON = "application/json"
FORMATS = (OCTET_STREAM, SAFETENSORS, JSON)


def media_type(headers: Headers) -> str:
    """The format of a request's body.

    Raises:
        UnsupportedMediaTypeError: another one, or none, or a compressed body.
    """
    given = headers.get("content-type", "").split(";")[0].strip().lower()
    if given not in FORMATS:
        raise UnsupportedMediaTypeError(
            f"Content-Type is {given[:64]!r}; send one of {', '.join(FORMATS)}"
        )
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaTypeError(
            "Content-Encoding is set; embeddings do not compress: send the body as it is"
        )
    return given


def negotiate(accept: str, own: str) -> str:
    """The answer's format: what Accept ranks highest, the request's own where it does not care.

    Raises:
        NotAcceptableError: Accept names none of the formats.
    """
    ranked: dict[str, float] = {}
    for part in accept.split(","):
        name, *options = (piece.strip().lower() for piece in part.split(";"))
        weight = next((_weight(o[2:]) for o in options if o.startswith("q=")), 1.0)
        for media in (own, *FORMATS):
            if name in {media, "*/*", "application/*"} and weight > ranked.get(media, 0.0):
                ranked[media] = weight
    if not accept.strip():
        return own
    if not ranked:
        raise NotAcceptableError(
            f"Accept is {accept[:64]!r}; it must allow one of {', '.join(FORMATS)}"
        )
    return max(ranked, key=lambda media: (ranked[media], media == own))


def wanted(returns: tuple[str, ...] | None, media: str, dtype: str) -> tuple[str, ...]:
    """What the answer holds, in the format that was negotiated.

    Raises:
        NotAcceptableError: more than the negatives in a format that has no names.
        OutOfRangeError: half precision in JSON.
    """
    if media == JSON and dtype != "float32":
        raise OutOfRangeError(
            f"dtype = {dtype!r} is for binary answers; send Accept: {SAFETENSORS} or leave it out"
        )
    if media == OCTET_STREAM:
        if set(returns or ("negatives",)) != {"negatives"}:
            raise NotAcceptableError(
                f"{OCTET_STREAM} carries the negatives alone, not {', '.join(returns or ())}; "
                f"send Accept: {SAFETENSORS}"
            )
        return ("negatives",)
    return returns or ("negatives", "transition")


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
