"""The Java machine that ScienceWorld's simulator runs in: one per process, its heap bounded, its calls timed.

Many games live in one machine, each in an interface of its own; an interface whose game is closed is used
again. A call that takes too long, or a machine that has died, ends the machine and all its games with
`WorldError`; the next game starts a new one.
"""

import contextlib
import logging
import os
import shutil
from typing import Any

from jaxrl.envs.base import WorldError
from jaxrl.errors import InputError

# The simulator walks through sets whose order hangs on where Java keeps things. With one hash for all of them
# the order is that of insertion: the same in every process, as often as an episode is played.
OPTIONS = ("-XX:+UseSerialGC", "-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2")
EXTRA = 'install it with pip install "jaxrl[envs]"'


class Machine:
    """Owns the Java process. Use `machine(...)`, which keeps one per process.

    heap_mb: the most memory for Java's objects. timeout_s: of one call.
    """

    def __init__(self, heap_mb: int, timeout_s: float):
        gateway, constants = _packages()
        logging.getLogger("py4j").setLevel(logging.CRITICAL)  # it tells what is raised as well
        port, self.process = gateway.launch_gateway(
            classpath=constants.JAR_PATH,
            cwd=constants.BASEPATH,
            javaopts=[f"-Xmx{heap_mb}m", *OPTIONS],
            die_on_exit=True,
            return_proc=True,
        )
        self._gateway = gateway.JavaGateway(
            gateway_parameters=gateway.GatewayParameters(port=port, read_timeout=timeout_s),
            java_process=self.process,
        )
        self._free: list[Any] = []
        self.is_alive = True

    def interface(self) -> Any:
        """An interface that no game has."""
        if self._free:
            return self._free.pop()
        jvm = self._gateway.jvm
        return self.call(lambda: jvm.scienceworld.runtime.pythonapi.PythonInterface())

    def release(self, interface: Any) -> None:
        if self.is_alive:
            self._free.append(interface)

    def call(self, method: Any, *arguments: Any) -> Any:
        """A call of Java's.

        Raises:
          WorldError: it took longer than timeout_s, or the machine is gone.
        """
        from py4j.protocol import Py4JError, Py4JJavaError

        try:
            return method(*arguments)
        except Py4JJavaError as error:  # an exception inside the simulator: this game alone is broken
            raise WorldError(f"ScienceWorld's simulator failed: {str(error)[:500]}") from error
        except (Py4JError, OSError, EOFError) as error:  # a broken or silent connection, under many names
            self.end()
            raise WorldError(f"ScienceWorld's Java machine does not answer: {error}") from error

    def end(self) -> None:
        """Kill it; again is no error."""
        self.is_alive = False
        self._free.clear()
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()


_machines: dict[int, Machine] = {}  # by process id: a forked child must not talk into its parent's


def machine(heap_mb: int, timeout_s: float) -> Machine:
    """This process's machine, started where there is none."""
    current = _machines.get(os.getpid())
    if current is None or not current.is_alive:
        current = _machines[os.getpid()] = Machine(heap_mb, timeout_s)
    return current


def _packages() -> tuple[Any, Any]:
    try:
        from py4j import java_gateway
        from scienceworld import constants
    except ImportError:
        raise InputError(
            f"the world 'scienceworld' needs the package scienceworld, which is not installed; {EXTRA}"
        ) from None
    if shutil.which("java") is None:
        raise InputError(
            "the world 'scienceworld' needs Java, and no program `java` is on the PATH; install a Java "
            "runtime, version 8 or newer: apt-get install default-jre-headless, brew install openjdk, or "
            "conda install openjdk"
        )
    return java_gateway, constants
