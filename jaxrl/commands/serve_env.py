"""`jaxrl serve-env`: serves a world in AgentGym's HTTP protocol. No jax, no accelerator."""

from jaxrl.config.file import make_env_section, read_overrides
from jaxrl.envs import make_world
from jaxrl.envs.server import EnvServer
from jaxrl.errors import InputError
from jaxrl.tasks.base import SPLITS


def make_server(name: str, overrides: list[str], split: str, host: str, port: int) -> EnvServer:
    """A server that listens, and answers once `serve_forever` is called.

    Raises:
      InputError: settings that do not fit, an unknown split, a port that is taken.
    """
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}; the splits are: {', '.join(SPLITS)}")
    if not 0 <= port < 65536:
        raise InputError(f"--port {port} is no port; give one from 0 (any that is free) to 65535")
    world = make_world(make_env_section(name, read_overrides(overrides)))
    return EnvServer(world, split, (host, port))
