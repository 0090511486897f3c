"""Calling the functions of a model's program: one child process each, arguments and results plain values."""

import os
from contextlib import suppress
from typing import Any

from jaxrl.sandbox.inside.sandbox_literals import Unserialisable, dumps, loads
from jaxrl.sandbox.inside.sandbox_program import LENGTH, NONCE_BYTES
from jaxrl.sandbox.outcomes import Called, SandboxError
from jaxrl.sandbox.process import Child

FORGED = "unserialisable: the program wrote to the channel of its answers"


class Functions:
    """One child that has executed a program and answers calls. A context manager, of `Sandbox.functions`.

        with sandbox.functions("def double(x): return 2 * x") as functions:
            assert functions.call("double", [21]).value == 42

    State stays in the child from call to call, as it would in one interpreter: use one of these per case
    where it must not. Every call carries a random number that its answer must bear, so nothing that the
    program writes ahead counts as the answer to a later call. Within a call the program can say whatever it
    could have returned; that is what the caller compares.

    Attributes:
      loaded: what executing the program gave. Where it raised, what it had defined by then can be called: a
        program's own test of its function, failing behind it, does not make the function wrong. Where it
        ended the child, every call gives the same.
    """

    loaded: Called

    def __init__(self, child: Child, program: str):
        """Raises SandboxError where the child cannot be set up."""
        self._child = child
        self._end: Called | None = None  # what every further call gives
        try:
            self.loaded = self._exchange(program.encode("utf-8", "surrogatepass"))
        except SandboxError:
            child.close()
            raise

    def __enter__(self) -> "Functions":
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the child. Nothing is raised: what it said, it said before."""
        self._child.kill("wall")
        with suppress(SandboxError):
            self._child.pump(lambda: False)
        self._child.close()

    def call(self, name: str, args: list[Any], kwargs: dict[str, Any] | None = None) -> Called:
        """Call a function that the program defines at its top level, or as a method of a class `Solution`.

        Returns:
          A value of plain type; or `raised`, the text of an exception (`ValueError: ...`), also for a value
          of another type (`unserialisable: ...`); or `outcome`, where the child has ended, now or in an
          earlier call. Where there is no such function, `is_missing`; `raised` is then why, what the program
          itself has raised above all.
        Raises:
          SandboxError: the child broke down for a reason that is not the program's.
          Unserialisable: the arguments are no plain values.
        """
        request = dumps((name, list(args), dict(kwargs or {})))
        return self._exchange(request)

    def _exchange(self, request: bytes) -> Called:
        if self._end is not None:
            return self._end
        nonce = os.urandom(NONCE_BYTES)
        self._child.send(LENGTH.pack(NONCE_BYTES + len(request)) + nonce + request)
        self._child.pump(lambda: self._missing_bytes() <= 0)
        if self._child.has_ended:
            self._end = Called(outcome=self._child.outcome())
            return self._end
        header, answer = (
            self._child.answers[: LENGTH.size + NONCE_BYTES],
            bytes(self._child.answers[LENGTH.size + NONCE_BYTES :]),
        )
        if self._missing_bytes() < 0 or header[LENGTH.size :] != nonce:
            self._end = Called(raised=FORGED)
            return self._end
        self._child.answers.clear()
        try:
            kind, value = loads(answer)
        except (Unserialisable, TypeError, ValueError) as error:
            return Called(raised=f"unserialisable: {error}")
        if kind == "value":
            return Called(value=value)
        return Called(raised=value if isinstance(value, str) else FORGED, is_missing=kind == "missing")

    def _missing_bytes(self) -> int:
        """Of the answer that is due; below 0: there is more than an answer."""
        answers = self._child.answers
        size = LENGTH.unpack_from(answers)[0] if len(answers) >= LENGTH.size else 1
        return LENGTH.size + size - len(answers)
