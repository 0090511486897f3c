"""A server of a world in AgentGym's HTTP protocol, for its clients and other trainers (see `agentgym.py`).

    server = EnvServer(world, "train", ("127.0.0.1", 0))
    with server.running():
        ...  # http://127.0.0.1:{server.server_port}

The problem of index i is that of the split, counted round. Its actions are the world's own, one line each:
finding them in what a policy says is the client's business there. Errors are HTTP 200 with `{"error": text}`;
only what is no request of this protocol is told by its status (404, 400, 413). An episode belongs to whoever
knows its number; there is no password, so it listens on this machine alone unless told otherwise.
"""

import json
import logging
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from jaxrl.envs.agentgym import DIALECTS
from jaxrl.envs.world import Answer, Game, TextWorld
from jaxrl.errors import InputError
from jaxrl.types import Problem

log = logging.getLogger("jaxrl")
MOST_BYTES = 1 << 20  # of a request
QUIET_S = 120  # a connection without a request for so long is closed


class Refused(Exception):
    """What is asked cannot be done; the text is for the client."""


class Held:
    """An episode on the server: its game, and what was last seen. One request at a time works in it."""

    def __init__(self, game: Game):
        self.lock, self.used = threading.Lock(), time.monotonic()
        self.begin(game)

    def begin(self, game: Game) -> None:
        self.game, self.score, self.last = game, 0.0, Answer(game.opening)

    def step(self, action: str) -> Answer:
        if self.last.done:
            raise Refused("the episode is over; reset it")
        self.last = self.game.act(action)
        self.score += self.last.reward
        return self.last


class Episodes:
    """The episodes of a server, by number.

    Args:
      most: so many are held at once; one more is refused.
      idle_s: those that nobody has used for so long are closed when the next is made.
    """

    def __init__(self, world: TextWorld, problems: list[Problem], most: int, idle_s: float):
        self.world, self.problems, self.most, self.idle_s = world, problems, most, idle_s
        self.held: dict[int, Held] = {}
        self._next, self._lock = 0, threading.RLock()

    def create(self) -> tuple[int, Held]:
        with self._lock:
            self._make_room()
            number, self._next = self._next, self._next + 1
            held = self.held[number] = Held(self._game(number))
        return number, held

    def get(self, number: Any) -> Held:
        held = self.held.get(number) if isinstance(number, int) else None
        if held is None:
            raise Refused(f"there is no episode {str(number)[:40]}; create one")
        held.used = time.monotonic()
        return held

    def reset(self, held: Held, index: Any) -> None:
        if not isinstance(index, int) or isinstance(index, bool):
            raise Refused("the index of the problem must be a whole number")
        held.game.close()
        held.begin(self._game(index))

    def close(self, number: Any) -> bool:
        with self._lock:
            held = self.held.pop(number, None) if isinstance(number, int) else None
        if held is not None:
            held.game.close()
        return held is not None

    def _game(self, index: int) -> Game:
        return self.world.rules.game(self.problems[index % len(self.problems)].data)

    def _make_room(self) -> None:
        now = time.monotonic()
        for number, held in list(self.held.items()):
            if now - held.used > self.idle_s:
                self.close(number)
        if len(self.held) >= self.most:
            raise Refused(f"{self.most} episodes are open, which is all that are held; close one")


class EnvServer(ThreadingHTTPServer):
    """Serves one world. `server_port` is the port that it listens on.

    Args:
      split: whose problems are numbered. address: host and port; port 0 takes a free one.
      most, idle_s: see `Episodes`.
    Raises:
      InputError: a world without a dialect of the protocol, an empty split, a port that is taken.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self, world: TextWorld, split: str, address: tuple[str, int], most: int = 1024, idle_s: float = 600.0
    ):
        if world.name not in DIALECTS:
            raise InputError(
                f"AgentGym's protocol knows no world {world.name!r}; it can serve {', '.join(DIALECTS)}"
            )
        problems = world.problems(split)
        if not problems:
            raise InputError(f"env.{split} is 0, so there is nothing to serve; set it to 1 or more")
        self.episodes, self.dialect = Episodes(world, problems, most, idle_s), DIALECTS[world.name]
        self.world_name = world.name
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            place = f"{address[0]}:{address[1]}"
            raise InputError(
                f"{place} cannot be listened on: {error.strerror}; choose another port"
            ) from None

    @contextmanager
    def running(self) -> Iterator[None]:
        """It answers inside, in threads of its own."""
        thread = threading.Thread(target=self.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            self.server_close()
            thread.join()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """The JSON that answers a request; LookupError for a path that there is not."""
        if (method, path) == ("GET", ""):
            return "ok"
        if (method, path) == ("GET", "list_envs"):
            return list(self.episodes.held)
        if (method, path) == ("POST", "create"):
            number, held = self.episodes.create()
            return number if self.world_name == "webshop" else {self.dialect.id: number, **_state(held)}
        number = body.get(self.dialect.id)
        if (method, path) == ("POST", "close"):
            return self.episodes.close(number)
        answers = POSTS if method == "POST" else GETS
        if path not in answers:
            raise LookupError(path)
        held = self.episodes.get(number)
        with held.lock:
            return answers[path](self, held, body)


# ------------------------------------------------------------------------------------ the answers to requests


def _reset(server: EnvServer, held: Held, body: dict[str, Any]) -> Any:
    server.episodes.reset(held, body.get(server.dialect.problem, 0))
    if server.world_name == "webshop":
        return [held.last.observation, None]
    return {server.dialect.id: body[server.dialect.id], **_state(held), **_extras(server, held)}


def _step(server: EnvServer, held: Held, body: dict[str, Any]) -> Any:
    action = body.get("action")
    if not isinstance(action, str):
        raise Refused("`action` must be a text")
    answer = held.step(action)
    told = {server.dialect.text: answer.observation, "reward": answer.reward, "done": answer.done}
    if server.world_name in ("babyai", "scienceworld"):
        told["score"] = round(held.score * server.dialect.scale, 9)
    return told | ({"info": None} if server.world_name == "webshop" else _extras(server, held))


def _available(server: EnvServer, held: Held, body: dict[str, Any]) -> Any:
    if server.world_name == "webshop":
        return {"has_search_bar": held.game.has_search_bar(), "clickables": held.game.clickables()}
    return held.game.actions()


def _state(held: Held) -> dict[str, Any]:
    return {"observation": held.last.observation, "reward": held.last.reward, "done": held.last.done}


def _extras(server: EnvServer, held: Held) -> dict[str, Any]:
    return {"available_actions": held.game.actions()} if server.world_name == "alfworld" else {}


POSTS = {"reset": _reset, "step": _step}
GETS = {
    "observation": lambda server, held, body: held.last.observation,
    "available_actions": _available,
    "detail": lambda server, held, body: {**_state(held), "deleted": False},
    "goal": lambda server, held, body: getattr(held.game, "goal", None),
    "commands": lambda server, held, body: "\n".join(getattr(held.game, "commands", [])),
    "instruction_text": lambda server, held, body: f"Instruction: {held.game.goal.instruction_text}",
}


class _Handler(BaseHTTPRequestHandler):
    server: EnvServer
    protocol_version = "HTTP/1.1"
    timeout = QUIET_S
    wbufsize, disable_nagle_algorithm = 1 << 16, True  # an answer is one packet, and goes at once

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        self._answer("GET", url.path, {key: _number(values[-1]) for key, values in query.items()})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            self.close_connection = True  # the body is not read
            return self._send(413, {"error": f"a request holds at most {MOST_BYTES} bytes"})
        try:
            body = json.loads(self.rfile.read(int(length)) or b"{}")
        except (ValueError, RecursionError):
            return self._send(400, {"error": "the request is no JSON"})
        if not isinstance(body, dict):
            return self._send(400, {"error": "the request must be a JSON object"})
        self._answer("POST", urllib.parse.urlsplit(self.path).path, body)

    def _answer(self, method: str, path: str, body: dict[str, Any]) -> None:
        try:
            self._send(200, self.server.answer(method, path.strip("/"), body))
        except LookupError:
            self._send(404, {"error": f"{method} {path[:80]} is no request of this server"})
        except (Refused, InputError) as error:
            self._send(200, {"error": str(error)})
        except Exception as error:  # a defect costs its request, and not the server
            log.exception("%s %s failed", method, path[:80])
            self._send(200, {"error": f"{type(error).__name__}: {error}"})

    def _send(self, status: int, value: Any) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _number(text: str) -> int | str:
    return int(text) if text.isdecimal() and len(text) < 19 else text
