"""How many rows an update works on at once where the config leaves that open.

Some thousand tokens keep an accelerator busy, and more only cost memory. A CPU is faster with fewer: their activations stay
in its caches (1.25 x at 135 million numbers, `LOG.md`).
"""

from jax.sharding import Mesh

from jaxrl.config import RSFTStage, SFTStage
from jaxrl.config_algo import PolicyGradientSection
from jaxrl.sharding import num_row_shards

PIECE_TOKENS = 4096  # on each row shard, padding included
CPU_PIECE_TOKENS = 1024


def policy_microbatch(algo: PolicyGradientSection, row_tokens: int, mesh: Mesh) -> int:
    """Rows of a microbatch of GRPO or PPO, over all devices; `row_tokens` long each."""
    return min(algo.microbatch or _usual(row_tokens, mesh), algo.rows_per_update)


def sft_microbatch(stage: SFTStage | RSFTStage, mesh: Mesh) -> int:
    """Rows of a microbatch of SFT, over all devices: as many as is usual, or fewer, so that they divide the step's rows."""
    shards = num_row_shards(mesh)
    if stage.microbatch is not None or stage.rows % shards:  # the latter is refused before anything is run
        return stage.microbatch or stage.rows
    return max(rows for rows in range(shards, _usual(stage.seq_len, mesh) + 1, shards) if stage.rows % rows == 0)


def _usual(row_tokens: int, mesh: Mesh) -> int:
    is_cpu = mesh.devices.flat[0].platform == "cpu"
    return num_row_shards(mesh) * -(-(CPU_PIECE_TOKENS if is_cpu else PIECE_TOKENS) // row_tokens)
