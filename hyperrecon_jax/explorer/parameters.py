"""The parameters of a request to the explorer; each function raises `InputError` if one is missing or malformed."""

import io
import json
from collections.abc import Sequence
from typing import IO, Any

from starlette.requests import Request

from hyperrecon_jax.runtime.errors import InputError


def parse_text(request: Request, name: str, default: str | None = None) -> str:
    """A parameter as it is; without a default it is needed."""
    value = request.query_params.get(name, default)
    if value is None:
        raise InputError(f"The request must have a {name}.")
    return value


def parse_index(request: Request, name: str, default: str | None = None) -> int:
    """A whole number, at least 0."""
    text = parse_text(request, name, default)
    if not text.isdecimal() or len(text) > 9:
        raise InputError(f"The {name} must be a whole number, got {text[:40]!r}.")
    return int(text)


def parse_number(request: Request, name: str, default: str) -> float:
    text = parse_text(request, name, default)
    try:
        return float(text)
    except ValueError:
        raise InputError(f"The {name} must be a number, got {text[:40]!r}.") from None


def parse_volume(request: Request) -> dict[str, Any]:
    """The volume, and the acquisition that was chosen for it, by the names of the engine's arguments."""
    return {"volume": parse_text(request, "volume"), "acquisition": request.query_params.get("acquisition")}


def parse_slice(request: Request) -> dict[str, Any]:
    """`parse_volume` with the index of a slice."""
    return parse_volume(request) | {"index": parse_index(request, "index")}


def parse_lambdas(request: Request) -> list[list[float]]:
    """Each lambda of a request, which may have several."""
    return [_parse_lambda(text) for text in request.query_params.getlist("lam")]


def parse_lambda(request: Request) -> list[float]:
    return _parse_lambda(parse_text(request, "lam"))


def _parse_lambda(text: str) -> list[float]:
    try:
        return [float(value) for value in text.split(",")]
    except ValueError:
        raise InputError(f"Lambda must be numbers with commas between them, got {text[:40]!r}.") from None


def split_files(body: IO[bytes]) -> Sequence[tuple[str, bytes]]:
    """Names and contents of the files in a body, whose first line says how long they are."""
    length = body.seek(0, io.SEEK_END)
    body.seek(0)
    head = body.readline()
    try:
        sizes = [(str(name), int(size)) for name, size in json.loads(head)]
    except (ValueError, TypeError) as error:
        raise InputError("The body must start with a line of JSON, [[name, bytes], ...].") from error
    if not sizes or min(size for _, size in sizes) < 0 or sum(size for _, size in sizes) != length - len(head):
        raise InputError(f"The files must take the {length - len(head)} bytes after the first line.")
    return [(name, body.read(size)) for name, size in sizes]
