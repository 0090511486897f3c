"""Names that TRL, transformers, PEFT and verl give to settings, and where ours is: a hint for who brings a
config along.

A name that is a key of ours, too, is not here: it is answered with the section that has it. Dotted names are
places in a config, `algo` and what is shared by stages in a stage; docs/coming-from.md has the whole table.
"""

_BATCH = (
    "`algo.problems_per_batch` times `algo.group_size` completions a batch, cut into "
    "`algo.updates_per_batch` optimiser steps (sft: `rows` a step), and `microbatch` rows at once, which "
    "changes memory alone"
)
_EPOCHS = "`steps` of the stage (sft: `epochs`)"
_NAMES: dict[tuple[str, ...], str] = {
    # batches and steps
    ("num_generations", "rollout_n"): "`algo.group_size`",
    ("train_batch_size",): "`algo.problems_per_batch`",
    ("per_device_train_batch_size", "gradient_accumulation_steps", "generation_batch_size"): _BATCH,
    ("steps_per_generation", "ppo_mini_batch_size"): "`algo.updates_per_batch`, a count of optimiser steps",
    ("ppo_micro_batch_size", "ppo_micro_batch_size_per_gpu"): "`algo.microbatch`",
    ("num_iterations",): "not in grpo (ppo: `algo.ppo_epochs`)",
    ("num_train_epochs", "total_epochs"): _EPOCHS,
    ("max_steps", "total_training_steps"): "`steps` of the stage",
    # the objective
    ("beta", "kl_loss_coef"): "`algo.kl_coef`",
    ("use_kl_loss", "use_kl_in_reward"): "`algo.kl_coef` above 0, and `algo.kl_in`",
    ("kl_loss_type",): "`algo.kl_estimator`",
    ("epsilon", "clip_ratio", "clip_ratio_low", "cliprange"): "`algo.clip_low` (and `algo.clip_high`)",
    ("epsilon_high", "clip_ratio_high"): "`algo.clip_high`",
    ("delta", "clip_ratio_c"): "`algo.dual_clip`",
    ("loss_type",): "`algo.aggregate` (cispo: `algo.loss`)",
    ("loss_agg_mode",): "`algo.aggregate`",
    ("scale_rewards", "adv_estimator"): "`algo.advantage`",
    ("importance_sampling_level",): "`algo.ratio_level`",
    ("mask_truncated_completions",): "`algo.overlong`: mask",
    ("entropy_coeff",): "`algo.entropy_coef`",
    ("lam",): "`algo.gae_lambda` of ppo",
    ("cliprange_value",): "`algo.value_clip` of ppo",
    # lengths
    ("max_completion_length", "max_response_length", "response_length", "max_tokens"): (
        "`sample.max_new_tokens`"
    ),
    ("max_prompt_length",): "`sample.max_prompt_tokens`",
    ("max_length", "max_seq_length"): "`seq_len` of an sft stage; of prompts `sample.max_prompt_tokens`",
    # the optimiser
    ("lr",): "`optim.learning_rate`",
    ("lr_scheduler_type",): "`optim.schedule`",
    ("warmup_ratio", "lr_warmup_steps"): "`optim.warmup_steps`",
    ("max_grad_norm", "grad_clip"): "`optim.clip_norm`",
    ("adam_beta1",): "`optim.b1`",
    ("adam_beta2",): "`optim.b2`",
    ("adam_epsilon",): "`optim.eps`",
    # the model
    ("model_name_or_path", "model_id"): "`model.path`",
    ("bf16", "fp16", "torch_dtype"): "`model.dtype`: bfloat16",
    ("gradient_checkpointing", "enable_gradient_checkpointing"): "`model.remat`, which chooses by itself",
    ("attn_implementation",): "`model.attention`",
    ("peft_config", "use_peft"): "`lora`",
    ("r", "lora_r", "lora_rank"): "`lora.rank`",
    ("lora_alpha",): "`lora.alpha`",
    ("lora_dropout",): "`lora.dropout`",
    ("target_modules", "lora_target_modules"): "`lora.targets`",
    ("use_rslora",): "`lora.rslora`",
    # data and rewards
    ("reward_funcs", "reward_functions", "custom_reward_function"): "`task.reward`: a Python file",
    ("dataset", "dataset_name"): "`data` of an sft stage, and `task` for what is asked",
    ("train_files", "val_files"): "`task`, whose section names files",
    ("assistant_only_loss", "completion_only_loss"): "always so, without a key",
    # the run
    ("output_dir",): "`runs_dir` and `name`",
    ("save_steps", "save_freq"): "`checkpoint.every`",
    ("save_total_limit", "max_actor_ckpt_to_keep"): "`checkpoint.keep`",
    ("resume_from_checkpoint", "resume_mode"): "always so: the same command goes on",
    ("logging_steps",): "`track.log_every`",
    ("report_to",): "`track.wandb`",
    ("eval_steps", "eval_strategy", "test_freq"): "an eval stage (within sft: `eval_every`)",
    ("use_vllm", "vllm_mode"): "not needed: the sampler is jaxrl's own",
}
FOREIGN = {name: ours for names, ours in _NAMES.items() for name in names}
