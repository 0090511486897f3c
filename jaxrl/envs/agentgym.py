"""Worlds of other programs: a client of AgentGym's HTTP protocol (Xi et al. 2024).

    POST /create                      -> the number of a new episode
    POST /reset  number, problem      -> its first observation
    POST /step   number, action       -> observation, reward, done
    POST /close  number               (WebShop's and ALFWorld's servers have none)
    GET  /observation?number

Each of its five worlds spells this differently (`DIALECTS`), and an error is HTTP 200 with `{"error": text}`.
A number is used again for the next problem, as AgentGym's own client does: making an episode is slow in some
worlds. `jaxrl serve-env` is such a server, of jaxrl's worlds (`envs/server.py`).

Actions, their formats and what the policy is told are those of jaxrl's world of the same name. Of a reward
that a server adds up over an episode (ScienceWorld's score of 0 to 100) each turn gets what it added, in
parts of 1.
"""

import contextlib
import http.client
import json
import math
import random
import time
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxrl.envs.base import WorldError
from jaxrl.envs.formats import Function, read_behind_last, read_first_line
from jaxrl.envs.textcraft.rules import TextCraft
from jaxrl.envs.webshop.rules import WebShop
from jaxrl.envs.world import Answer, Data
from jaxrl.errors import InputError
from jaxrl.files.jsonl import short
from jaxrl.tasks.drawing import Claim
from jaxrl.tasks.fields import field, is_int

if TYPE_CHECKING:
    from jaxrl.config.envs import AgentGymSection

TRIES = 5  # of a request that is answered 503, as AgentGym's client does
MOST_BYTES = 16 << 20  # of an answer


@dataclass(frozen=True)
class Dialect:
    """How a world's server spells the protocol.

    id: the key of an episode's number. problem: of the problem's, in `reset`. text: of an observation in a
    step's answer. reward: of the reward there; `score` is what has come together so far, in units of which
    `scale` are a reward of 1. success: from which reward of the whole episode on it is one.
    """

    rules: Any
    id: str = "id"
    problem: str = "data_idx"
    text: str = "observation"
    reward: str = "reward"
    scale: float = 1.0
    success: float = 1.0


class Unknown:
    """What is told of a world that jaxrl has no rules of."""

    task = "You act in a world that answers each of your actions with what you then see."
    functions = (Function("act", "{action}", "do something", {"action": "what to do"}),)

    def __init__(self, read_agentgym: Any):
        self.read_agentgym = read_agentgym


DIALECTS = {
    "textcraft": Dialect(TextCraft),
    "webshop": Dialect(WebShop, id="env_idx", problem="session_id", text="state"),
    "babyai": Dialect(Unknown(read_first_line), success=1e-6),
    "alfworld": Dialect(Unknown(read_behind_last), problem="game"),
    "scienceworld": Dialect(Unknown(read_behind_last), reward="score", scale=100.0),
}


class AgentGym:
    """The rules, which are a server's; `section`: see `config/envs.py`.

    Raises:
      InputError: the url is none; shaping, for which no server tells the progress.
    """

    name = "agentgym"
    failure_reward = 0.0
    policies = ()

    def __init__(self, section: "AgentGymSection"):
        try:
            url = urllib.parse.urlsplit(section.url)
            self.host, self.port, self.path = url.hostname, url.port, url.path.rstrip("/")
        except ValueError:  # of a port that is no number
            self.host = None
        if self.host is None or url.scheme != "http":
            raise InputError(
                f"env.url {section.url!r} is no address of a server; give one as http://host:port"
            )
        if section.shaping:
            raise InputError("env.shaping needs a world's progress, which no server tells; set it to 0")
        self.section, self.dialect = section, DIALECTS[section.env]
        rules = self.dialect.rules
        self.task, self.functions, self.read_agentgym = rules.task, rules.functions, rules.read_agentgym
        self._free: list[int] = []  # numbers whose episode is over

    def draw(self, rng: random.Random, index: int, claim: Claim) -> Data | None:
        data = {"data_idx": rng.randrange(self.section.items)}
        return data if claim(data) else None

    def game(self, data: Data) -> "Remote":
        """Raises WorldError where the server cannot be reached, or refuses."""
        return Remote(self, field(data, "data_idx", "the number of a problem", is_int))

    def choose(self, policy: str, game: "Remote", rng: random.Random) -> tuple[str, str]:
        raise NotImplementedError("a server plays no policies")

    def begin(self, data_idx: int) -> tuple[int, str]:
        """(number of an episode, first observation)"""
        with contextlib.suppress(IndexError, WorldError):  # none is free, or it is forgotten there
            number = self._free.pop()
            return number, self._reset(number, data_idx)
        created = self.ask("create", {})
        number = created.get(self.dialect.id) if isinstance(created, dict) else created
        if not is_int(number):
            raise WorldError(f"{self.section.url} answered /create without a number: {short(created)}")
        return number, self._reset(number, data_idx)

    def end(self, number: int) -> None:
        self._free.append(number)

    def _reset(self, number: int, data_idx: int) -> str:
        body = {self.dialect.id: number, self.dialect.problem: data_idx}
        told = self.ask("reset", body | ({"world_type": "Text"} if self.section.env == "alfworld" else {}))
        text = told.get("observation") if isinstance(told, dict) else told and told[0]
        if not isinstance(text, str):
            raise WorldError(f"{self.section.url} answered /reset without an observation: {short(told)}")
        return text

    def ask(self, verb: str, body: Data) -> Any:
        """What the server answers to a POST.

        Raises:
          WorldError: it does not, or answers with an error.
        """
        where = f"{self.section.url.rstrip('/')}/{verb}"
        for left in reversed(range(TRIES)):
            connection = http.client.HTTPConnection(self.host, self.port, timeout=self.section.timeout_s)
            try:
                connection.request(
                    "POST", f"{self.path}/{verb}", json.dumps(body), {"Content-Type": "application/json"}
                )
                response = connection.getresponse()
                status, text = response.status, response.read(MOST_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise WorldError(
                    f"{where} does not answer: {error}; start the server, or check env.url"
                ) from None
            finally:
                connection.close()
            if status != 503 or not left:
                break
            time.sleep(0.1)
        return _value(status, text, where)


class Remote:
    """One game on the server; `act` raises WorldError where that fails."""

    def __init__(self, rules: AgentGym, data_idx: int):
        self.rules, self.is_open, self.score = rules, True, 0.0
        self.number, self.opening = rules.begin(data_idx)

    def act(self, action: str) -> Answer:
        dialect = self.rules.dialect
        told = self.rules.ask("step", {dialect.id: self.number, "action": action})
        given = told if isinstance(told, dict) else {}
        text, value, done = (given.get(key) for key in (dialect.text, dialect.reward, "done"))
        is_whole = isinstance(text, str) and isinstance(value, int | float) and isinstance(done, bool)
        if not is_whole or not math.isfinite(value):
            raise WorldError(f"{self.rules.section.url} answered /step with {short(told)}")
        reward = value / dialect.scale - (self.score if dialect.reward == "score" else 0.0)
        self.score += reward
        success = {"success": float(self.score >= dialect.success)} if done else {}
        return Answer(text, reward, done, success)

    def progress(self) -> float:
        return 0.0  # no server tells it

    def actions(self) -> list[str]:
        return []

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.rules.end(self.number)


def _value(status: int, text: bytes, where: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        raise WorldError(f"{where} answered with HTTP {status} and no JSON: {text[:100]!r}") from None
    if isinstance(value, dict) and "error" in value:
        raise WorldError(f"{where} answered with an error: {value['error']}")
    if status != 200:
        raise WorldError(f"{where} answered with HTTP {status}: {text[:100]!r}")
    return value
