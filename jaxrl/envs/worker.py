"""The child of an environment pool: keeps episodes that wait for the policy's next turn, and takes turns.

    python -m jaxrl.envs.worker SOCKET_FD PARENT_PID MEMORY_BYTES CPU_SECONDS

It begins and speaks as `verify/worker.py` does. What is served is a world, with the number of turns that may
be taken at once (in threads; one is taken in the main thread). A request is a pickle of (episode's number,
its problem or None, texts, numbers of episodes that are over): with a problem the episode begins, and takes
all the texts from there, which brings it back where an earlier worker was lost. Its answer holds the result
of the last text, and fingerprints of the results before it; or an error, and whether the episode is worth
another try, since what failed (`WorldError`: a server, a process that several episodes share) may have been
another's doing.
"""

import hashlib
import json
import math
import os
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jaxrl.envs.base import Environment, StepResult, World, WorldError
from jaxrl.envs.world import Episode
from jaxrl.errors import InputError
from jaxrl.types import MAX_REWARD, Problem, StopReason
from jaxrl.verify.worker import MAX_PARTS, allow_cpu, enter, failure, receive, send, told

MAX_OBSERVATION = 50_000  # characters; in JSON they may take six bytes each


def main(arguments: list[str]) -> None:
    connection, (world, turns_at_once), cpu_seconds = enter(arguments)
    episodes, sending = Episodes(world), threading.Lock()

    def work(ticket: int, body: bytes) -> None:
        values = episodes.answer(body)
        with sending:
            send(connection, ticket, values)

    executor = ThreadPoolExecutor(turns_at_once)
    while (request := receive(connection)) is not None:
        allow_cpu(cpu_seconds * turns_at_once)
        if turns_at_once == 1:
            work(*request)
        else:
            executor.submit(work, *request)
    os._exit(0)  # whatever the threads do


class Episodes:
    """The episodes of one worker, by number. Turns of different episodes may be taken at once."""

    def __init__(self, world: World):
        self.world = world
        self.environments: dict[int, Environment] = {}

    def answer(self, body: bytes) -> dict[str, Any]:
        """What came of a request as JSON values, or `error`, and its seconds; whatever the world raises is
        the episode's error, and its end.
        """
        began = time.monotonic()
        number, problem, texts, over = pickle.loads(body)
        for other in over:
            self._let_go(other)
        try:
            if problem is not None:
                self.environments[number] = self._begin(problem)
            environment = self.environments[number]
            results = [result_values(environment.step(text)) for text in texts]
            values = {
                "result": results[-1] if results else None,
                "before": [fingerprint(result) for result in results[:-1]],
            }
        except BaseException as error:
            values = {"error": failure(error), "again": isinstance(error, WorldError)}
        if "error" in values or (values["result"] and values["result"]["done"]):
            self._let_go(number)
        return values | {"seconds": time.monotonic() - began}

    def _begin(self, problem: Problem) -> Environment:
        environment = self.world.environment(problem)
        if list(environment.start()) != list(problem.messages):
            raise InputError(
                "`start` does not return the problem's messages, which the policy has read; let both be equal"
            )
        return environment

    def _let_go(self, number: int) -> None:
        environment = self.environments.pop(number, None)
        if isinstance(environment, Episode):  # one's own need no `close`
            environment.close()


def result_values(result: Any) -> dict[str, Any]:
    """A step's result as JSON values; raises TypeError or ValueError where it is none."""
    if not isinstance(result, StepResult):
        raise TypeError(f"step returned {type(result).__name__}, not StepResult")
    if not isinstance(result.observation, str):
        raise TypeError(f"the observation is {type(result.observation).__name__}, not text")
    if len(result.observation) > MAX_OBSERVATION:
        raise ValueError(
            f"the observation has {len(result.observation)} characters; at most {MAX_OBSERVATION} are carried"
        )
    if len(result.metrics) > MAX_PARTS:
        raise ValueError(f"a turn has {len(result.metrics)} metrics; at most {MAX_PARTS} are carried")
    metrics = {told(name): float(value) for name, value in result.metrics.items()}
    reward = float(result.reward)
    for name, value in {**metrics, "reward": reward}.items():
        if not math.isfinite(value) or abs(value) > MAX_REWARD:
            raise ValueError(f"{name} is {value}, not a finite number of at most {MAX_REWARD:g}")
    reason = StopReason(result.stop_reason or StopReason.ENV_DONE).value if result.done else None
    return {
        "observation": told(result.observation, MAX_OBSERVATION),
        "reward": reward,
        "done": bool(result.done),
        "stop_reason": reason,
        "metrics": metrics,
    }


def fingerprint(values: dict[str, Any]) -> str:
    """Of a step's result: equal for equal ones."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    main(sys.argv[1:])
