"""AgentGym's protocol: a world behind a server is the world itself, and errors are answers."""

import http.client
import http.server
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ClassVar

import pytest

from jaxrl.cli import parse
from jaxrl.commands.serve_env import make_server
from jaxrl.config.file import make_env_section
from jaxrl.envs import make_world
from jaxrl.envs.agentgym import TRIES
from jaxrl.envs.base import WorldError
from jaxrl.envs.server import MOST_BYTES, EnvServer
from jaxrl.envs.world import replay
from jaxrl.errors import InputError
from tests.envs.worlds import played, world_of

worlds = pytest.mark.parametrize("name", ["textcraft", "webshop"])
HERE = "127.0.0.1"
NUMBER = {"textcraft": "id", "webshop": "env_idx"}
INDEX = {"textcraft": "data_idx", "webshop": "session_id"}
MAX_TURNS = {"alfworld": 50, "webshop": 15}  # the worlds' own; the client's is another


@contextmanager
def served(name, most=1024, idle_s=600.0, **values):
    server = EnvServer(world_of(name, **values), "train", (HERE, 0), most, idle_s)
    with server.running():
        yield server


def client(server, name, **values):
    own = {"url": f"http://{HERE}:{server.server_port}", "env": name, "items": 40, "timeout_s": 30.0}
    sizes = {"train": 25, "val": 0, "test": 0, "max_turns": MAX_TURNS.get(name, 30)}
    return make_world(make_env_section("agentgym", own | sizes | values))


def ask(server, method, path, body=None, raw=None):
    """(status, value) of a request by hand."""
    connection = http.client.HTTPConnection(HERE, server.server_port, timeout=30)
    connection.request(method, path, raw if raw is not None else body and json.dumps(body))
    response = connection.getresponse()
    value = json.loads(response.read())
    connection.close()
    return response.status, value


def seen(transcript):
    results = [
        (r.observation, r.reward, r.done, r.stop_reason, r.metrics["parse_errors"], r.metrics.get("success"))
        for r in transcript.results
    ]
    return transcript.messages, results


@worlds
@pytest.mark.parametrize(
    "values", [{}, {"action_format": "function_calling"}, {"compat": "agentgym"}], ids=str
)
def test_a_world_behind_a_server_is_the_world_itself(name, values):
    direct = world_of(name, **values)
    with served(name, **values) as server:
        remote = client(server, name, **values)
        for policy in ("expert", "random"):
            episodes = {t.problem.uid: t for t in played(direct, policy, "train")}
            for problem in remote.problems("train")[:8]:
                there = direct.problems("train")[problem.data["data_idx"]]
                turns = ["nothing to read", *episodes[there.uid].turns]
                assert seen(replay(remote, problem, turns)) == seen(replay(direct, there, turns))
        assert len(server.episodes.held) == 1, "an episode's number is used again"


@worlds
def test_many_episodes_at_once_are_each_their_own(name):
    with served(name) as server:
        remote, world = client(server, name), world_of(name)
        episodes = {t.problem.uid: t for t in played(world, "random", "train")}

        def is_same(problem):
            there = episodes[world.problems("train")[problem.data["data_idx"]].uid]
            return seen(replay(remote, problem, there.turns)) == seen(there)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(is_same, remote.problems("train") * 2))
        assert len(server.episodes.held) <= 9


@worlds
def test_errors_are_answers(name):
    with served(name) as server:
        key = NUMBER[name]
        created = ask(server, "POST", "/create", {})[1]
        number = created[key] if isinstance(created, dict) else created
        for body, said in [
            ({key: 77, "action": "x"}, "there is no episode 77; create one"),
            ({key: "0", "action": "x"}, "there is no episode 0; create one"),
            ({}, "there is no episode None; create one"),
            ({key: number}, "`action` must be a text"),
            ({key: number, "action": 3}, "`action` must be a text"),
        ]:
            assert ask(server, "POST", "/step", body) == (200, {"error": said})
        assert ask(server, "POST", "/reset", {key: number, INDEX[name]: "x"})[1]["error"].startswith(
            "the index"
        )
        assert ask(server, "POST", "/step", raw=b"{")[0] == 400
        assert ask(server, "POST", "/step", raw=b"[]")[0] == 400
        assert ask(server, "POST", "/step", raw=b"[" * 100_000)[0] == 400
        assert ask(server, "POST", "/fly", {key: number})[0] == 404
        assert ask(server, "GET", "/")[1] == "ok"
        assert (
            ask(server, "GET", f"/observation?{key}={number}")[1]
            == world_of(name).rules.game(world_of(name).problems("train")[number].data).opening
        )
        for turn in ("", "\x00" * 1000, "é" * 1000, "x" * (MOST_BYTES // 2)):
            assert "error" not in ask(server, "POST", "/step", {key: number, "action": turn})[1]
        connection = http.client.HTTPConnection(HERE, server.server_port, timeout=30)
        connection.putrequest("POST", "/step")
        connection.putheader("Content-Length", str(MOST_BYTES + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413, "said before any of it is read"
        connection.close()
        expert = played(world_of(name), "expert", "train")[number]
        for turn in expert.turns:
            told = ask(server, "POST", "/step", {key: number, "action": turn.partition("Action:\n")[2]})[1]
        assert told["done"] and told["reward"] == 1.0
        assert "over; reset it" in ask(server, "POST", "/step", {key: number, "action": "x"})[1]["error"]
        assert ask(server, "POST", "/close", {key: number}) == (200, True)
        assert ask(server, "POST", "/close", {key: number}) == (200, False)


def test_the_spelling_of_each_world():
    """By hand, from AgentGym's servers."""
    with served("textcraft") as server:
        created = ask(server, "POST", "/create", {"commands": None, "goal": None})[1]
        assert sorted(created) == ["done", "id", "observation", "reward"]
        assert sorted(ask(server, "POST", "/step", {"id": 0, "action": "x"})[1]) == [
            "done",
            "observation",
            "reward",
        ]
        assert sorted(ask(server, "POST", "/reset", {"id": 0, "data_idx": 45})[1]) == sorted(created)
        data = world_of("textcraft").problems("train")[5].data
        assert ask(server, "GET", "/goal?id=0")[1] == data["goal"]
        assert ask(server, "GET", "/commands?id=0")[1].splitlines() == data["commands"]
        assert sorted(ask(server, "GET", "/detail?id=0")[1]) == ["deleted", "done", "observation", "reward"]
    with served("webshop") as server:
        assert ask(server, "POST", "/create")[1] == 0 and ask(server, "GET", "/list_envs")[1] == [0]
        first, nothing = ask(server, "POST", "/reset", {"env_idx": 0, "session_id": 3})[1]
        assert first.startswith("WebShop [SEP] Instruction: [SEP] Find me ") and nothing is None
        told = ask(server, "POST", "/step", {"env_idx": 0, "action": "search[red]"})[1]
        assert sorted(told) == ["done", "info", "reward", "state"] and told["info"] is None
        available = ask(server, "GET", "/available_actions?env_idx=0")[1]
        assert available["has_search_bar"] is False and available["clickables"][0] == "back to search"
        assert ask(server, "GET", "/instruction_text?env_idx=0")[1].startswith("Instruction: Find me ")


def test_no_more_episodes_are_held_than_allowed_and_idle_ones_go():
    with served("textcraft", most=2, idle_s=1e9) as server:
        assert [ask(server, "POST", "/create")[1].get("id") for _ in range(2)] == [0, 1]
        assert "2 episodes are open" in ask(server, "POST", "/create")[1]["error"]
        ask(server, "POST", "/close", {"id": 0})
        assert ask(server, "POST", "/create")[1]["id"] == 2
        server.episodes.held[1].used -= 2e9
        assert ask(server, "POST", "/create")[1]["id"] == 3
        assert list(server.episodes.held) == [2, 3], "the one that nobody used has gone"
        server.episodes.held[2].used -= 2e9
        ask(server, "POST", "/step", {"id": 2, "action": "inventory"})
        assert "2 episodes are open" in ask(server, "POST", "/create")[1]["error"]


def test_a_number_that_the_server_has_forgotten_is_replaced():
    with served("textcraft") as server:
        remote = client(server, "textcraft")
        problem = remote.problems("train")[0]
        server.episodes.close(0)
        turns = played(world_of("textcraft"), "expert", "train")[problem.data["data_idx"]].turns
        assert replay(remote, problem, turns).success


class Stub(http.server.BaseHTTPRequestHandler):
    answers: ClassVar[list] = []

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        status, text = self.answers.pop(0)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


@contextmanager
def stub(*answers):
    Stub.answers = list(answers)
    with http.server.HTTPServer((HERE, 0), Stub) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "answers, said",
    [
        ([(200, '{"error": "boom"}')], "/create answered with an error: boom"),
        ([(500, "no")], "HTTP 500 and no JSON"),
        ([(404, "[]")], "/create answered with HTTP 404"),
        ([(503, "{}")] * TRIES, "/create answered with HTTP 503"),
        ([(200, "{}")], "answered /create without a number"),
        ([(200, '{"id": 1}'), (200, "[]")], "answered /reset without an observation"),
        ([(200, '{"id": 1}'), (200, '{"observation": "a"}'), (200, "[]")], r"answered /step with \[\]"),
        (
            [
                (200, '{"id": 1}'),
                (200, '{"observation": "a"}'),
                (200, '{"observation": "b", "reward": NaN, "done": true}'),
            ],
            "answered /step with .* nan",
        ),
    ],
)
def test_a_failing_server_costs_the_episode_by_name(answers, said):
    with stub(*answers) as server, pytest.raises(WorldError, match=said):
        client(server, "textcraft").rules.game({"data_idx": 0}).act("look")
    assert Stub.answers == []


def test_a_busy_server_is_asked_again_and_scores_are_taken_apart():
    told = [{"observation": str(s), "reward": 0, "score": s, "done": s == 100} for s in (10, 10, 100)]
    steps = [(200, json.dumps(step)) for step in told]
    start = [(503, "{}"), (200, '{"id": 5}'), (200, '{"observation": "hall"}')]
    with stub(*start, *steps) as server:
        remote = client(server, "scienceworld", items=1, train=0)
        game = remote.rules.game({"data_idx": 0})
        assert [(a.reward, a.done, a.metrics) for a in (game.act("look") for _ in range(3))] == [
            (0.1, False, {}),
            (0.0, False, {}),
            (0.9, True, {"success": 1.0}),
        ]


def test_wrong_settings_are_named():
    for values, said in [
        ({"url": "36001"}, "env.url '36001' is no address of a server"),
        ({"url": "http://here:port"}, "is no address of a server"),
        ({"url": "https://here"}, "is no address of a server"),
        ({"shaping": 1.0}, "no server tells"),
    ]:
        with pytest.raises(InputError, match=said):
            make_world(make_env_section("agentgym", values))
    with pytest.raises(WorldError, match="does not answer: .*; start the server, or check env.url"):
        make_world(make_env_section("agentgym", {"url": f"http://{HERE}:1"})).problem({"data_idx": 0})
    with served("textcraft") as server:
        for words, said in [
            (["textcraft", [], "train", HERE, server.server_port], "cannot be listened on"),
            (["textcraft", [], "dev", HERE, 0], "unknown split 'dev'"),
            (["textcraft", ["train=0"], "train", HERE, 0], "env.train is 0"),
            (["textcraft", [], "train", HERE, 70000], "--port 70000 is no port"),
            (["chess", [], "train", HERE, 0], "unknown world 'chess'"),
        ]:
            with pytest.raises(InputError, match=said):
                make_server(*words)


def test_it_listens_on_this_machine_alone_unless_told():
    assert parse(["serve-env", "textcraft"]).host == HERE
    server = make_server("textcraft", ["train=1", "val=0", "test=0"], "train", HERE, 0)
    with server:
        assert server.server_address[0] == HERE
