"""Names of other libraries in a config: the refusal says what ours is and where."""

import re

import pytest

from jaxrl.config.experiment import STAGES, Config
from jaxrl.config.file import validate_config
from jaxrl.config.foreign import FOREIGN
from jaxrl.config.section import Section, _descendants, _in
from jaxrl.errors import InputError

STAGE = {"kind": "grpo"}
PLAIN = {"name": "x", "model": {"path": "m"}, "task": {"name": "tiny", "game": "letter"}}


def test_what_the_table_names_is_there():
    for name, ours in FOREIGN.items():
        for place in re.findall("`(.*?)`", ours):
            assert any(has(root, place.split(".")) for root in (Config, *STAGES.values())), (name, place)


def test_no_name_of_ours_is_in_the_table():
    """But `dataset`, which reasoning-gym calls so, too: elsewhere the table still explains it."""
    ours = {key for section in _descendants(Section) for key in section.model_fields}
    assert ours & FOREIGN.keys() == {"dataset"}


@pytest.mark.parametrize(
    "stage, message",
    [
        (
            {"algo": {"num_generations": 8}},
            "unknown key 'num_generations' in GRPOSection; here it is `algo.group_size`; the keys here are: ",
        ),
        ({"algo": {"beta": 0.1}}, "unknown key 'beta' in GRPOSection; here it is `algo.kl_coef`;"),
        ({"learning_rate": 1e-5}, "it is a key of OptimSection, under `optim`;"),
        ({"kl_coef": 0.1}, "it is a key of GRPOSection, PPOSection, under `algo`;"),
        (
            {"stepz": 1, "max_steps": 1},
            "unknown key 'stepz' in GRPOStage; did you mean 'steps'?; unknown key 'max_steps' in GRPOStage; "
            "here it is `steps` of the stage; the keys here are: ",
        ),
    ],
)
def test_a_foreign_name_is_answered_with_ours(stage, message):
    with pytest.raises(InputError) as caught:
        validate_config({**PLAIN, "stages": [{**STAGE, **stage}]}, "c.yaml")
    assert message in str(caught.value)


def has(section: type[Section], keys: list[str]) -> bool:
    """Whether a section, or one in it, has a key at a place."""
    field = section.model_fields.get(keys[0])
    inner = [one for one in _in(field.annotation) if issubclass(one, Section)] if field else []
    return field is not None and (len(keys) == 1 or any(has(one, keys[1:]) for one in inner))
