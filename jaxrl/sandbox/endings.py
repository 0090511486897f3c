"""How a program or a call in the sandbox ended, in words: what a verdict's detail says."""

from typing import Any

from jaxrl.sandbox.outcomes import Called, Outcome

MAX_SHOWN = 120


def ending(outcome: Outcome) -> str:
    """Of a program that should have ended well, or not at all."""
    if outcome.reason == "exit":
        last = outcome.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return f"ended with exit code {outcome.code}" + (f": {shown(last)}" if last else "")
    if outcome.reason == "signal":
        return f"was killed by signal {outcome.code}"
    return f"ran into the {outcome.reason} limit"


def failing(called: Called) -> str:
    """Of a call that gave no value."""
    return ending(called.outcome) if called.outcome is not None else f"raised {shown(called.raised)}"


def shown(value: Any) -> str:
    """A text as it is, any other value as Python writes it, cut to MAX_SHOWN characters."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = f"a {type(value).__name__} with too many digits to be shown"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
