"""How many rows an update works on at once where the config leaves that open.

A CPU is faster with fewer tokens: their activations stay in its caches (`LOG.md`). What is best on an
accelerator has not been measured; some thousand tokens should keep it busy.
"""

from jax.sharding import Mesh

from jaxrl.config.algo import PolicyGradientSection
from jaxrl.config.experiment import FineTuningStage, RLStage
from jaxrl.device.mesh import num_row_shards

PIECE_TOKENS = 4096  # on each row shard, padding included
CPU_PIECE_TOKENS = 1024


def stage_microbatch(stage: FineTuningStage | RLStage, mesh: Mesh) -> int:
    """Rows of a microbatch of a stage, over all devices."""
    return (
        policy_microbatch(stage.algo, stage.row_tokens, mesh)
        if isinstance(stage, RLStage)
        else sft_microbatch(stage, mesh)
    )


def policy_microbatch(algo: PolicyGradientSection, row_tokens: int, mesh: Mesh) -> int:
    """That of GRPO or PPO, of rows of `row_tokens`. Pieces that stay empty cost nothing."""
    return min(algo.microbatch or _usual(row_tokens, mesh), algo.rows_per_update)


def sft_microbatch(stage: FineTuningStage, mesh: Mesh) -> int:
    """That of SFT: as few pieces as are usual, as even as can be."""
    shards = num_row_shards(mesh)
    if stage.microbatch is not None or stage.rows % shards:  # the latter is refused before anything is run
        return stage.microbatch or stage.rows
    pieces = -(-stage.rows // _usual(stage.seq_len, mesh))
    return shards * -(-stage.rows // (pieces * shards))


def _usual(row_tokens: int, mesh: Mesh) -> int:
    is_cpu = mesh.devices.flat[0].platform == "cpu"
    return num_row_shards(mesh) * -(-(CPU_PIECE_TOKENS if is_cpu else PIECE_TOKENS) // row_tokens)
