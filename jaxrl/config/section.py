"""What every section of a config is made of: strict frozen models, types of fields, merging."""

import difflib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what a PRNG key is made of
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of all sections: frozen, strictly typed (a string is no number); unknown keys get a suggestion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _suggest_names(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in values:
                if key not in cls.model_fields:
                    raise ValueError(_unknown_name(str(key), cls))
        return values


def _unknown_name(name: str, section: type[Section]) -> str:
    """Says where the key belongs, if another section has it (value settings, say, are PPO's alone); else the
    nearest name.
    """
    choices = list(section.model_fields)
    owners = sorted(
        other.__name__
        for other in _descendants(Section)
        if name in other.model_fields and not other.__subclasses__()
    )
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = (
        f"it is a key of {', '.join(owners)}; " if owners else f"did you mean {near[0]!r}? " if near else ""
    )
    return (
        f"unknown key {name!r} in {section.__name__}; {hint}the keys here are: {', '.join(sorted(choices))}"
    )


def _descendants(section: type[Section]) -> set[type[Section]]:
    children = set(section.__subclasses__())
    return children.union(*map(_descendants, children))


def merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `under`, mappings key by key, everything else whole."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged
