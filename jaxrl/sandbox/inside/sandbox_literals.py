"""Plain Python values as bytes and back: how arguments and results cross the border of the sandbox.

Standard library only.

The bytes are JSON. What JSON lacks is an object of one key, the kind: {"t": [1, 2]} is a tuple. Reading them
runs no code and compiles nothing, so it is safe for bytes that a hostile program wrote; what it may cost is
bounded by their number, by `MAX_DEPTH` and by `MAX_COLLISIONS`.
"""

import json
import math
from typing import Any

MAX_DEPTH = 100
# keys of one set or dict with the same hash: a few thousand chosen ones would take seconds to sort out
MAX_COLLISIONS = 100
# of an integer in decimal digits, which take time quadratic in their number; longer ones are hexadecimal
MAX_BITS = 2048


class Unserialisable(ValueError):
    """A value that cannot cross."""


def dumps(value: Any) -> bytes:
    """The value's bytes.

    None, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, and instances of their
    subclasses, which arrive as the plain type: a Counter is a dict, a named tuple a tuple.
    Raises:
      Unserialisable: another type, or nested deeper than MAX_DEPTH.
    """
    return json.dumps(_encode(value, 0), ensure_ascii=True, allow_nan=False, check_circular=False).encode(
        "ascii"
    )


def loads(data: bytes) -> Any:
    """The value again.

    Raises:
      Unserialisable: these are not the bytes of any value.
    """
    try:
        return _decode(json.loads(data, parse_constant=_refuse), 0)
    except Unserialisable:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Unserialisable(f"not the bytes of a value: {type(error).__name__}: {error}"[:200]) from None


def _encode(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= MAX_BITS else {"i": hex(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"f": repr(float(value))}
    if isinstance(value, complex):
        return {"c": [_encode(value.real, depth), _encode(value.imag, depth)]}
    if isinstance(value, bytes):
        return {"b": value.hex()}
    _check_depth(depth)
    if isinstance(value, dict):
        return {"d": [[_encode(key, depth + 1), _encode(item, depth + 1)] for key, item in value.items()]}
    for kind, tag in ((list, None), (tuple, "t"), (set, "s"), (frozenset, "z")):
        if isinstance(value, kind):
            items = [_encode(item, depth + 1) for item in value]
            return items if tag is None else {tag: items}
    raise Unserialisable(f"a value of type {type(value).__name__}")


def _decode(value: Any, depth: int) -> Any:
    if isinstance(value, list):
        _check_depth(depth)
        return [_decode(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag == "i":
        return int(content, 16)
    if tag == "f":
        return float({"nan": "nan", "inf": "inf", "-inf": "-inf"}.get(content, ""))
    if tag == "c":
        real, imaginary = content
        return complex(_decode(real, depth), _decode(imaginary, depth))
    if tag == "b":
        return bytes.fromhex(content)
    _check_depth(depth)
    if tag == "d":
        pairs = [(_decode(key, depth + 1), _decode(item, depth + 1)) for key, item in content]
        _check_hashes([key for key, _ in pairs])
        return dict(pairs)
    items = [_decode(item, depth + 1) for item in content]
    if tag == "t":
        return tuple(items)
    if tag in ("s", "z"):
        _check_hashes(items)
        return set(items) if tag == "s" else frozenset(items)
    raise Unserialisable(f"unknown kind {tag!r}"[:100])


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise Unserialisable(f"nested deeper than {MAX_DEPTH}")


def _check_hashes(keys: list[Any]) -> None:
    counts: dict[int, int] = {}
    for key in keys:
        counts[hash(key)] = counts.get(hash(key), 0) + 1
    if max(counts.values(), default=0) > MAX_COLLISIONS:
        raise Unserialisable(f"more than {MAX_COLLISIONS} keys with the same hash")


def _refuse(constant: str) -> None:
    raise Unserialisable(f"{constant} is no number here")
