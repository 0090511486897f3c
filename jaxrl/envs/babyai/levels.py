"""BabyAI's 40 levels in AgentGym's order, and how one is made. The package `minigrid` is imported late."""

import contextlib
import io
from functools import cache
from typing import Any

from jaxrl.errors import InputError

LEVELS = tuple(
    """
GoToRedBallGrey GoToRedBall GoToRedBallNoDists GoToObjS6 GoToLocalS8N7 GoToObjMazeS7 GoToImpUnlock GoToSeqS5R2
GoToRedBlueBall GoToDoor GoToObjDoor Open OpenRedDoor OpenDoorLoc OpenRedBlueDoorsDebug OpenDoorsOrderN4Debug
Pickup UnblockPickup PickupLoc PickupDistDebug PickupAbove PutNextLocalS6N4 PutNextS7N4Carrying Unlock
UnlockLocalDist KeyInBox UnlockPickupDist BlockedUnlockPickup UnlockToUnlock ActionObjDoor FindObjS7
KeyCorridorS6R3 OneRoomS20 MoveTwoAcrossS8N9 SynthS5R2 SynthLoc SynthSeq MiniBossLevel BossLevel
BossLevelNoUnlock
""".split()
)


def make(level: str, seed: int) -> Any:
    """A fresh minigrid environment of a level, reset with a seed.

    Raises:
      InputError: minigrid is not installed.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of grids that it has thrown away
        environment = _maker(level)()
        environment.reset(seed=seed)
    return environment


@cache
def _maker(level: str) -> Any:
    try:
        import gymnasium
        import minigrid  # noqa: F401  registers the levels
    except ImportError:
        raise InputError(
            "the world 'babyai' needs the package minigrid, which is not installed; "
            'install it with pip install "jaxrl[envs]"'
        ) from None
    known = [f"BabyAI-{level}-v{version}" for version in (0, 1)]
    name = next(name for name in known if name in gymnasium.registry)
    return lambda: gymnasium.make(name, disable_env_checker=True).unwrapped


def picture(environment: Any) -> list:
    """All that makes a level's beginning what it is, as JSON values."""
    return [
        environment.mission,
        environment.grid.encode().tolist(),
        [int(value) for value in environment.agent_pos],
        int(environment.agent_dir),
    ]
