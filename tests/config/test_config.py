"""The config: what is accepted, what is refused and with which words, and how a file becomes the resolved
object.
"""

from pathlib import Path

import pytest
import yaml

from jaxrl.config.experiment import Config
from jaxrl.config.file import dump_config, load_config, parse_yaml, validate_config
from jaxrl.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PLAIN = """
name: tiny
model: {architecture: {d_model: 32, num_heads: 4}}
lora: {rank: 8, alpha: 16}
task: {name: knowledge_graph, entities: 20, train: 30}
sample: {max_new_tokens: 24}
optim: {learning_rate: 3e-4, b2: 0.95}
stages:
  - {kind: sft, steps: 5, lora: null, task: {hops: [1]}, optim: {learning_rate: 2e-3}}
  - {kind: grpo, steps: 7, sample: {temperature: 0.7}}
  - {kind: eval, sample: {temperature: 0}, task: {test: 9}}
"""


@pytest.fixture
def load(tmp_path):
    def load(text: str = PLAIN, *overrides: str) -> Config:
        file = tmp_path / "config.yaml"
        file.write_text(text, encoding="utf-8")
        return load_config(file, list(overrides))

    return load


@pytest.fixture
def refusal(load):
    def refusal(text: str = PLAIN, *overrides: str) -> str:
        with pytest.raises(InputError) as caught:
            load(text, *overrides)
        return str(caught.value)

    return refusal


# ----------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "1.e-4", ".1e-3", "+1e-4", "0.0001", "10e-5"])
def test_a_small_number_is_a_float_however_it_is_written(text):
    assert parse_yaml(text) == 1e-4 and parse_yaml(f"{{a: {text}, b: [{text}]}}") == {"a": 1e-4, "b": [1e-4]}
    assert parse_yaml(f"a: {text} # small") == {"a": 1e-4}


def test_what_only_looks_like_a_number_stays_text():
    assert parse_yaml("['1e-4', 1e, e5, 1e-4x, v1e5]") == ["1e-4", "1e", "e5", "1e-4x", "v1e5"]
    assert parse_yaml("[1e3, -2e3, 12, 0x10]") == [1000.0, -2000.0, 12, 16]


def test_exponents_reach_the_config(load):
    assert load().optim.learning_rate == 3e-4 and load().stages[0].optim.learning_rate == 2e-3
    assert load(PLAIN, "stages.1.optim.learning_rate=1e-4").stages[1].optim.learning_rate == 1e-4
    assert load(PLAIN, "optim={learning_rate: 1e-5}").optim.learning_rate == 1e-5


@pytest.mark.parametrize(
    "override, place",
    [
        ("seed=1.5", "seed"),
        ("seed='1'", "seed"),
        ("seed=true", "seed"),
        ("seed=-1", "seed"),
        ("seed=4294967296", "seed"),
        ("optim.learning_rate='1e-4'", "optim.learning_rate"),
        ("optim.learning_rate=0", "optim.learning_rate"),
        ("optim.schedule=linaer", "optim.schedule"),
        ("sample.top_p=1.5", "sample.top_p"),
        ("sample.temperature=.nan", "sample.temperature"),
        ("lora.targets=[q, w]", "lora.targets.1"),
        ("lora.targets=[]", "lora.targets"),
        ("lora.dropout=1", "lora.dropout"),
        ("name=a/b", "name"),
        ("stages=[]", "stages"),
        ("stages.0.kind=stf", "stages.0"),
        ("stages.1.algo={group_size: 0}", "stages.1.algo.group_size"),
        ("stages.1.steps=ten", "stages.1.steps"),
        ("mesh=3", "mesh"),
        ("model.architecture.num_kv_heads=3", "num_kv_heads 3"),
    ],
)
def test_a_wrong_value_is_refused_by_its_place(refusal, override, place):
    text = refusal(PLAIN, override)
    assert place in text and "config.yaml" in text


def test_whole_numbers_serve_as_floats(load):
    assert load(PLAIN, "lora.alpha=16", "sample.temperature=1").lora.alpha == 16.0


@pytest.mark.parametrize(
    "override, wanted",
    [
        ("optim.learning_rat=1", "learning_rate"),
        ("smaple={}", "sample"),
        ("stages.1.algo={group_sise: 4}", "group_size"),
        ("stages.0.epoch=1", "epochs"),
        ("task.entites=9", "entities"),
        ("lora.target=[q]", "targets"),
    ],
)
def test_a_misspelt_key_is_answered_with_the_nearest(refusal, override, wanted):
    assert f"did you mean {wanted!r}?" in refusal(PLAIN, override)


def test_every_problem_is_named_at_once(refusal):
    text = refusal(PLAIN, "seed=a", "mesh.data=0", "verify.workers=0")
    assert "3 things" in text and all(place in text for place in ("seed", "mesh.data", "verify.workers"))


def test_a_fault_that_every_stage_inherits_is_named_once(refusal):
    text = refusal(PLAIN, "sample.top_p=1.5")
    # nothing of `stages`, where all have failed with it
    assert len(text.splitlines()) == 1 and "sample.top_p" in text
    assert "at least 1 item" in refusal(PLAIN, "stages=[]")


def test_an_unknown_kind_or_task_is_answered_with_the_nearest(refusal):
    assert (
        "stages.1: unknown kind 'gpro'; did you mean 'grpo'? there are: sft, rsft, grpo, ppo, eval"
        in refusal(PLAIN, "stages.1.kind=gpro")
    )
    assert "task: unknown name 'contdown'; did you mean 'countdown'?" in refusal(
        PLAIN, "task={name: contdown}"
    )
    assert "stages.1: unknown kind 'dance'; there are: " in refusal(PLAIN, "stages.1.kind=dance")


def test_a_model_has_exactly_one_source(refusal):
    assert "exactly one of `path`" in refusal(PLAIN, "model.path=somewhere")
    assert "exactly one of `path`" in refusal(PLAIN, "model.architecture=null")


def test_stage_names_differ(refusal, load):
    text = refusal(PLAIN + "  - {kind: sft}\n", "stages.3.steps=1")
    assert "two stages are named 'sft'" in text
    assert load(PLAIN + "  - {kind: sft, name: more}\n").stages[3].name == "more"


# ------------------------------------------------------------------------------------------------ inheritance


def test_stages_inherit_the_shared_sections_key_by_key(load):
    config = load()
    sft, grpo, evaluation = config.stages
    assert sft.lora is None and grpo.lora == config.lora and config.lora.rank == 8
    assert (sft.optim.learning_rate, sft.optim.b2) == (2e-3, 0.95) and grpo.optim == config.optim
    assert (sft.task.hops, sft.task.entities, sft.task.train) == ((1,), 20, 30) and grpo.task == config.task
    assert (grpo.sample.temperature, grpo.sample.max_new_tokens) == (0.7, 24)
    assert (evaluation.sample.temperature, evaluation.sample.max_new_tokens, evaluation.task.test) == (
        0,
        24,
        9,
    )
    assert config.sample.temperature == 1.0


def test_a_stage_replaces_lists_whole_and_can_bring_its_own_adapters(load):
    config = load(PLAIN, "lora=null", "stages.1.lora={rank: 2}", "task.hops=[1, 2, 3]")
    assert config.stages[1].lora.rank == 2 and config.stages[0].task.hops == (1,)


def test_a_stage_without_the_task_it_needs_says_so(refusal):
    assert "stages.1.task: is required" in refusal(
        PLAIN, "task=null", "stages.0.task=null", "stages.2.task=null"
    )
    assert "stages.2.task: 'name' is required" in refusal(PLAIN, "task=null")


def test_the_resolved_config_loads_as_the_same_object(load, tmp_path):
    numbers = ["optim.eps=1e-12", "optim.learning_rate=1e-22"]
    config = load(PLAIN, *numbers, "sample.stop=['\\n', 'ü: #']", "track.wandb={}")
    text = dump_config(config)
    assert validate_config(yaml.safe_load(text), "dump") == config == load(text)
    assert dump_config(load(text)) == text


# -------------------------------------------------------------------------------------------------- overrides


def test_overrides_reach_every_place(load):
    config = load(
        PLAIN,
        "stages.0.steps=9",
        "mesh.data=2",
        "lora=null",
        "runs_dir=a=b",
        "stages.1={kind: eval, name: x}",
    )
    assert (config.stages[0].steps, config.mesh.data, config.lora, config.runs_dir) == (9, 2, None, "a=b")
    assert config.stages[1].kind == "eval"


def test_the_last_override_wins(load):
    assert load(PLAIN, "seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(
    "override, reason",
    [
        ("seed", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("stages.9.steps=1", "'9' is not an index into a list of 3 items"),
        ("stages.-1.steps=1", "'-1' is not an index"),
        ("stages.sft.steps=1", "'sft' is not an index"),
        ("stages.²={}", "'²' is not an index"),
        ("stages.3={}", "'3' is not an index"),
        ("name.x=1", "name holds no keys"),
        ("optim.learning_rate.x=1", "optim.learning_rate holds no keys"),
        ("sample.stop=[a", "not valid YAML"),
        ("optim..learning_rate=1", "unknown key ''"),
    ],
)
def test_a_wrong_override_is_refused(refusal, override, reason):
    assert reason in refusal(PLAIN, override)


# ------------------------------------------------------------------------------------------------------ files


def test_a_base_is_overlaid_once(tmp_path, load):
    (tmp_path / "base.yaml").write_text(PLAIN)
    config = load("base: base.yaml\nname: other\noptim: {learning_rate: 1e-5}\nmesh: {data: 2}\n", "seed=4")
    assert (config.name, config.seed, config.mesh.data) == ("other", 4, 2)
    assert (config.optim.learning_rate, config.optim.b2) == (1e-5, 0.95) and len(config.stages) == 3


EXPECT = "expect: {runs: 12, accuracy: {eval: [0.9, 1]}}\n"


def test_what_is_expected_holds_of_the_file_s_own_settings(load, tmp_path):
    """Which run it is and what it runs on is not what it learns; everything else is noted, whichever way it
    was set.
    """
    text = PLAIN + EXPECT
    assert load(text).expect.accuracy == {"eval": (0.9, 1.0)} and load(text).expect.changed == ()
    assert (
        load(
            text, "name=b", "seed=3", "runs_dir=x", "track.log_every=2", "checkpoint.every=3", "mesh.data=1"
        ).expect.changed
        == ()
    )
    changed = load(text, "seed=3", "stages.1.steps=3", "optim.b2=0.9", "task.test=4")
    assert changed.expect.changed == ("stages.1.steps", "optim.b2", "task.test")
    assert validate_config(yaml.safe_load(dump_config(changed)), "again") == changed
    assert (
        load(text, "expect=null", "stages.1.steps=3").expect is None
        and load(PLAIN, "stages.1.steps=3").expect is None
    )
    (tmp_path / "base.yaml").write_text(text)
    assert load("base: base.yaml\nname: other\n").expect is None
    assert load("base: base.yaml\n" + EXPECT.replace("12", "3")).expect.runs == 3


@pytest.mark.parametrize(
    "expect, reason",
    [
        (
            "{runs: 3, accuracy: {evil: [0, 1]}}",
            "names 'evil', which is no eval stage; the eval stages are: eval",
        ),
        (
            "{runs: 3, accuracy: {eval: [0.9, 0.8]}}",
            "accuracy of 'eval': [0.9, 0.8] must be the lowest and the highest",
        ),
        ("{runs: 3, accuracy: {eval: [90, 100]}}", "less than or equal to 1 (it is 100)"),
        ("{runs: 0, accuracy: {eval: [0, 1]}}", "expect.runs"),
        ("{runs: 3, accuracy: {}}", "expect.accuracy"),
        ("{accuracy: {eval: [0, 1]}}", "expect.runs: is required"),
    ],
)
def test_an_expectation_that_cannot_be_is_refused(refusal, expect, reason):
    assert reason in refusal(PLAIN + f"expect: {expect}\n")


def test_only_one_base(tmp_path, refusal):
    (tmp_path / "base.yaml").write_text("base: deeper.yaml\n" + PLAIN)
    assert "only one level" in refusal("base: base.yaml\n")
    assert "absent.yaml" in refusal("base: absent.yaml\n")
    assert "base" in refusal("base: 3\n")


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"name: [a\n", "not valid YAML"),
        (b"a: b: c\n", "not valid YAML"),
        (b"- 1\n", "must hold a mapping"),
        (b"", "must hold a mapping"),
        (b"name: \xff\n", "cannot be read"),
        (b"1: 2\n", "unknown key '1'"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, content, reason):
    (tmp_path / "broken.yaml").write_bytes(content)
    with pytest.raises(InputError, match=reason):
        load_config(tmp_path / "broken.yaml")


def test_a_missing_file_is_refused(tmp_path):
    for place in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            load_config(place)


@pytest.mark.parametrize(
    "file", sorted(CONFIGS.rglob("*.yaml")), ids=lambda file: str(file.relative_to(CONFIGS))
)
def test_every_config_of_the_project_loads(file):
    config = load_config(file)
    assert validate_config(yaml.safe_load(dump_config(config)), "dump") == config


@pytest.mark.parametrize("text, message", [(".inf", "optim.learning_rate"), (".nan", "optim.learning_rate")])
def test_rates_are_finite(text, message, refusal):
    assert message in refusal(PLAIN, f"optim.learning_rate={text}")


def test_a_key_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "twice.yaml").write_text("name: a\nseed: 1\nseed: 2\n")
    with pytest.raises(InputError, match="'seed' stands twice"):
        load_config(tmp_path / "twice.yaml")


def test_grpo_does_not_sample_greedily(refusal):
    stage = "stages=[{kind: grpo, task: {name: knowledge_graph}, sample: {temperature: 0}}]"
    assert "sample.temperature 0" in refusal(PLAIN, stage)


def test_a_mesh_may_be_left_to_the_run(load):
    config = load(PLAIN, "mesh=auto")
    assert set(config.mesh.model_dump().values()) == {None}
    assert validate_config(yaml.safe_load(dump_config(config)), "again") == config
    assert load(PLAIN, "mesh={fsdp: null, tensor: 2}").mesh.model_dump() == {
        "dcn_data": 1,
        "data": 1,
        "fsdp": None,
        "tensor": 2,
    }
    with pytest.raises(InputError, match="mesh holds no keys \\(it is 'auto'\\)"):
        load(PLAIN + "mesh: auto\n", "mesh.data=2")
