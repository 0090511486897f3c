"""BabyAI (Chevalier-Boisvert et al. 2019) in words: AgentGym's observations and actions over minigrid.

Reward, as upstream: 1 - 0.9 * steps / max_steps of the grid world at success, 0 otherwise; it needs no
normalising. `success` is 1 for whatever was in time. An action may take many steps; one that stops short,
because nothing changes any more, ends there.

Where ours differs from AgentGym, which `compat: agentgym` brings back:
- an episode ends at every success; there only above a reward of 0.5, so that slow ones never end;
- a mission keeps its order ("then", "after you"); there both become "and";
- `pick up red ball 1` is listed, as the instructions say, and `pickup` is understood too; there only this;
- only the whole words `check available actions` list the actions; there anything with "check" in it.
And which it does not: ways lead over cells that are seen, never through closed doors; a box can be opened
(`toggle`), without which KeyInBox has no solution; an action that is listed has the same number as in the
prose; and an episode that minigrid cuts short is over.
"""

import random
from typing import TYPE_CHECKING, Any

from jaxrl.envs.babyai.levels import LEVELS, make, picture
from jaxrl.envs.babyai.policies import Teacher, by_sight
from jaxrl.envs.babyai.view import CHECK, View
from jaxrl.envs.formats import Function, read_first_line
from jaxrl.envs.world import Answer, Data
from jaxrl.errors import InputError
from jaxrl.tasks.drawing import Claim
from jaxrl.tasks.fields import field, is_int

if TYPE_CHECKING:  # pydantic stays out of the processes that play
    from jaxrl.config.envs import BabyAISection

MAX_SEED = 2**31 - 1
DRAWS = 200  # of one level for one problem; a split with a tenth of the grids takes some ten
_THING = {"thing": "what is seen, with its number, such as red ball 1"}
_DOOR = {"door": "a door that is seen, with its number, such as blue closed door 1"}

FUNCTIONS = (
    Function("turn_left", "turn left", "turn by a quarter"),
    Function("turn_right", "turn right", "turn by a quarter"),
    Function("move_forward", "move forward", "one step"),
    Function("toggle_and_go_through", "toggle and go through {door}", "open a door and step into it", _DOOR),
    Function("go_through", "go through {door}", "step into an open door", _DOOR),
    Function("go_to", "go to {thing}", "walk to what is seen, and face it", _THING),
    Function("pick_up", "pick up {thing}", "walk to what is seen, and pick it up", _THING),
    Function("drop", "drop", "put down in front of you what you carry"),
    Function("toggle", "toggle", "open or close the door or box in front of you"),
    Function("check", CHECK, "list what can be done now"),
)
TASK = (
    "You walk through rooms of a grid world to reach a goal. You see what is in front of you, and carry one "
    "thing at a time. A locked door opens to the key of its colour."
)


class BabyAI:
    """The rules; `section`: see `config/envs.py`."""

    name = "babyai"
    task = TASK
    functions = FUNCTIONS
    failure_reward = 0.0
    policies = ("expert", "heuristic", "random")
    read_agentgym = staticmethod(read_first_line)

    def __init__(self, section: "BabyAISection"):
        self.section = section
        self.levels = section.levels or LEVELS
        for level in self.levels:
            if level not in LEVELS:
                raise InputError(f"env.levels has {level!r}; the levels are: {', '.join(LEVELS)}")
        make(self.levels[0], 0)  # the package is there

    def draw(self, rng: random.Random, index: int, claim: Claim) -> Data | None:
        start = index % len(self.levels)
        for level in (*self.levels[start:], *self.levels[:start]):  # a small one may have no more grids
            for _ in range(DRAWS):
                seed = rng.randint(0, MAX_SEED)
                if claim(picture(make(level, seed))):
                    return {"level": level, "seed": seed}
        raise InputError(
            f"after {index} problems of babyai, {DRAWS} draws of each of the {len(self.levels)} levels gave "
            "no new grid; ask for fewer problems, or name more levels in env.levels"
        )

    def game(self, data: Data) -> "GridWorld":
        level = field(data, "level", "one of BabyAI's levels", lambda value: value in LEVELS)
        seed = field(data, "seed", "a whole number from 0 on", lambda v: is_int(v) and 0 <= v <= MAX_SEED)
        return GridWorld(make(level, seed), self.section.compat)

    def choose(self, policy: str, game: "GridWorld", rng: random.Random) -> tuple[str, str]:
        if policy == "expert":
            game.teacher = game.teacher or Teacher(game.environment)
            return game.teacher.choose(game.macros)
        if policy == "heuristic":
            return by_sight(game.mission, game.told[-1], rng)
        return "I try something.", rng.choice(game.actions())


class GridWorld:
    """One game. `environment`: minigrid's, reset; `compat`: see the file's beginning."""

    def __init__(self, environment: Any, compat: str | None):
        self.environment, self.compat = environment, compat
        self.teacher: Teacher | None = None  # it follows what is done, once it has been asked
        self.mission = environment.mission
        if compat:
            self.mission = self.mission.replace("then", "and").replace("after you", "and")
        self.opening = f"Your goal: {self.mission}\n{self._look()}"
        self.told = [self.opening]

    def act(self, action: str) -> Answer:
        words = " ".join(action.lower().split())
        if not self.compat:
            words = words.replace("pickup ", "pick up ", 1)
        if words == CHECK or (self.compat and "check" in words):
            return self._answer(f"You can take the following actions: {', '.join(self.macros)}")
        if words not in self.macros:
            return self._answer("The action is not recognized. Please check valid actions.")
        reward, is_over = 0.0, False
        for step in self.macros[words]:
            changed, reward, is_over = self._step(step)
            if is_over or not changed:
                break
        if not self.macros[words]:
            return self._answer("No change in state.")
        success = reward > 0
        text = self._look()
        if success:
            text += "\nThe task is completed."
        done = is_over and (not self.compat or reward > 0.5)
        return self._answer(text, reward, done, {"success": float(success)} if done else {})

    def progress(self) -> float:
        """Share of the mission's parts that are done."""
        return _share_done(self.environment.instrs)

    def actions(self) -> list[str]:
        return list(self.macros)

    def close(self) -> None:
        self.environment.close()

    def _step(self, step: int) -> tuple[bool, float, bool]:
        """One step of the grid world: whether anything changed, the reward, whether it is over."""
        world = self.environment
        front = tuple(world.front_pos)  # all that a step can change is there, or is the agent

        def state() -> tuple:
            cell = world.grid.get(*front)
            return tuple(world.agent_pos), world.agent_dir, world.carrying, cell and cell.encode()

        before = state()
        _, reward, terminated, truncated, _ = world.step(step)
        if self.teacher:
            self.teacher.follow(step)
        return state() != before, float(reward), terminated or truncated

    def _look(self) -> str:
        view = View(self.environment)
        self.macros = view.macros("pickup" if self.compat else "pick up")
        names = ", ".join(f'"{name}"' for name in self.macros)
        return f"{view.prose()}\nAvailable actions: [{names}]"

    def _answer(self, text: str, reward: float = 0.0, done: bool = False, metrics: Any = None) -> Answer:
        self.told.append(text)
        return Answer(text, reward, done, metrics or {})


def _share_done(instruction: Any) -> float:
    """Of an instruction with two parts the mean of theirs; parts are done or not."""
    parts = [name for name in ("a", "b") if hasattr(instruction, f"instr_{name}")]
    if not parts:
        return 0.0
    done = [
        1.0
        if getattr(instruction, f"{name}_done", False) == "success"
        else _share_done(getattr(instruction, f"instr_{name}"))
        for name in parts
    ]
    return sum(done) / len(done)
