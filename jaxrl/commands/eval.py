"""`jaxrl eval`: a model directory on the task of a config's eval stage."""

from datetime import datetime

import jax
from jax.sharding import Mesh

from jaxrl.commands.model import tokenizer_at, with_tokens_of
from jaxrl.config.experiment import EvalStage
from jaxrl.config.shared import VerifySection
from jaxrl.data.tokenizer import eos_ids
from jaxrl.envs.asked import make_asked
from jaxrl.errors import InputError
from jaxrl.eval.evaluate import baseline_rows, choose_problems, evaluate
from jaxrl.policy.folder import model_folder
from jaxrl.policy.hand_over import PolicyWeights
from jaxrl.rollout.collect import open_pool, verifiers_of
from jaxrl.sample.engine import Engine
from jaxrl.track.evaluations import Row


def evaluate_model(
    weights: PolicyWeights,
    model: str,
    stage: EvalStage,
    verify: VerifySection,
    seed: int,
    mesh: Mesh,
    moment: datetime | None = None,
) -> list[Row]:
    """The baselines' rows and the policy's, on the task and split of an eval stage; `moment` as in
    `sample_file`.
    """
    task = make_asked(stage.task)
    problems = choose_problems(task, stage)
    folder = model_folder(model)
    tokenizer = tokenizer_at(moment, folder)
    if tokenizer is None:
        raise InputError(f"{folder} has no tokenizer; an evaluation needs the one that belongs to the model")
    engine = Engine(
        with_tokens_of(tokenizer, weights.policy),
        stage.sample,
        eos_ids(tokenizer, folder),
        tokenizer.decode,
        mesh,
    )
    with open_pool(task, verify) as pool:
        row, _ = evaluate(
            engine,
            pool,
            tokenizer,
            problems,
            weights.trainable,
            weights.frozen,
            jax.random.key(seed),
            stage.name,
        )
        with verifiers_of(task, pool, verify) as verifiers:
            return [*baseline_rows(task, verifiers, problems, seed), row]
