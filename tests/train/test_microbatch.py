"""What an update works on at once: some thousand tokens for every device, on CPU fewer."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxrl.config import SFTStage
from jaxrl.config_algo import GRPOSection
from jaxrl.train.microbatch import policy_microbatch, sft_microbatch


def mesh(platform, row_shards=1):
    """As much of a mesh as is looked at."""
    return SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)]), shape={"data": row_shards, "fsdp": 1, "tensor": 1})


@pytest.mark.parametrize("platform, expected", [("gpu", [64, 5, 4, 1]), ("tpu", [64, 5, 4, 1]), ("cpu", [16, 2, 1, 1])])
def test_of_a_batch_of_experience(platform, expected):
    algo = GRPOSection(problems_per_batch=64, group_size=8)
    assert [policy_microbatch(algo, tokens, mesh(platform)) for tokens in (64, 1000, 1024, 9000)] == expected
    assert policy_microbatch(algo, 1024, mesh(platform, row_shards=8)) == 8 * expected[2]
    assert policy_microbatch(algo, 2, mesh(platform)) == algo.rows_per_update == 512
    assert policy_microbatch(algo.model_copy(update={"microbatch": 48}), 1024, mesh(platform, 8)) == 48


@pytest.mark.parametrize("rows, seq_len, shards, expected", [(16, 512, 1, 8), (6, 1000, 1, 3), (7, 1000, 1, 1), (12, 1024, 2, 6), (4, 9000, 4, 4), (8, 16, 1, 8), (9, 512, 2, 9)])
def test_of_sft_it_divides_the_rows_and_is_divided_by_the_shards(rows, seq_len, shards, expected):
    stage = SFTStage(kind="sft", rows=rows, seq_len=seq_len)
    assert sft_microbatch(stage, mesh("gpu", shards)) == expected
    assert sft_microbatch(stage.model_copy(update={"microbatch": 3}), mesh("gpu", shards)) == 3
