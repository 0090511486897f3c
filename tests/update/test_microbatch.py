"""What an update works on at once: some thousand tokens for every device, on CPU fewer."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxrl.commands.run import smaller
from jaxrl.config.algo import GRPOSection
from jaxrl.config.experiment import SFTStage
from jaxrl.update.microbatch import policy_microbatch, stage_microbatch


def mesh(platform, row_shards=1):
    """As much of a mesh as is looked at."""
    return SimpleNamespace(
        devices=np.array([SimpleNamespace(platform=platform)]),
        shape={"data": row_shards, "fsdp": 1, "tensor": 1},
    )


@pytest.mark.parametrize(
    "platform, expected", [("gpu", [64, 5, 4, 1]), ("tpu", [64, 5, 4, 1]), ("cpu", [16, 2, 1, 1])]
)
def test_of_a_batch_of_experience(platform, expected):
    algo = GRPOSection(problems_per_batch=64, group_size=8)
    assert [policy_microbatch(algo, tokens, mesh(platform)) for tokens in (64, 1000, 1024, 9000)] == expected
    assert policy_microbatch(algo, 1024, mesh(platform, row_shards=8)) == 8 * expected[2]
    assert policy_microbatch(algo, 2, mesh(platform)) == algo.rows_per_update == 512
    assert policy_microbatch(algo.model_copy(update={"microbatch": 48}), 1024, mesh(platform, 8)) == 48


@pytest.mark.parametrize(
    "platform, rows, seq_len, shards, expected",
    [
        ("gpu", 16, 512, 1, 8),
        ("gpu", 17, 512, 1, 6),  # three pieces, the last of them with a row of padding
        ("gpu", 7, 1000, 1, 4),
        ("gpu", 12, 1024, 2, 6),
        ("gpu", 4, 9000, 4, 4),
        ("gpu", 8, 16, 1, 8),
        ("cpu", 16, 512, 1, 2),
        ("cpu", 13, 128, 1, 7),
        ("cpu", 32, 64, 8, 32),
        ("cpu", 2, 5000, 1, 1),
    ],
)
def test_of_sft_pieces_are_few_and_even_and_spread_over_the_shards(platform, rows, seq_len, shards, expected):
    stage = SFTStage(kind="sft", rows=rows, seq_len=seq_len)
    assert stage_microbatch(stage, mesh(platform, shards)) == expected
    assert stage_microbatch(stage.model_copy(update={"microbatch": 2}), mesh(platform, shards)) == 2


@pytest.mark.parametrize(
    "stage, shards, setting",
    [
        (SFTStage(kind="sft", rows=2, microbatch=2), 1, "set microbatch to 1, or"),
        (SFTStage(kind="sft", rows=24, microbatch=24), 4, "set microbatch to 12, or"),
        # 6 rows do not spread over 4 shards
        (SFTStage(kind="sft", rows=12, microbatch=12), 4, "set microbatch to 4, or"),
        (SFTStage(kind="sft", rows=4, microbatch=4), 4, "hold the weights"),
    ],
)
def test_where_memory_runs_out_a_microbatch_that_can_be_set_is_named(stage, shards, setting):
    assert smaller(stage, mesh("gpu", shards)).startswith(setting)
