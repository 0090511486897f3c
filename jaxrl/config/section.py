"""What every section of a config is made of: strict frozen models, types of fields, merging."""

import difflib
import typing
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from jaxrl.config.foreign import FOREIGN

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what a PRNG key is made of
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


def _in_order(span: tuple[int, int]) -> tuple[int, int]:
    if span[0] > span[1]:
        raise ValueError(
            f"{list(span)} must be the smallest and the largest number, in this order; swap them"
        )
    return span


def span(least: int, most: int) -> Any:
    """The type of a pair of whole numbers, smallest and largest, both between `least` and `most`.

    (A type checker does not know types that a function makes: hence `ignore[valid-type]` where it is used.)
    """
    end = Annotated[int, Field(ge=least, le=most)]
    return Annotated[tuple[end, end], Field(strict=False), AfterValidator(_in_order)]


class Section(BaseModel):
    """Base of all sections: frozen, strictly typed (a string is no number); unknown keys get a suggestion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _suggest_names(cls, values: Any) -> Any:
        unknown = (
            [str(key) for key in values if key not in cls.model_fields] if isinstance(values, dict) else []
        )
        if unknown:
            found = "; ".join(_unknown_name(name, cls) for name in unknown)
            end = " " if found.endswith("?") else "; "
            raise ValueError(f"{found}{end}the keys here are: {', '.join(sorted(cls.model_fields))}")
        return values


def _unknown_name(name: str, section: type[Section]) -> str:
    """Says where the key belongs, if another section has it (value settings, say, are PPO's alone), or what
    it is called here, if other libraries have it; else the nearest name.
    """
    known = _descendants(Section)
    in_configs = {
        inner for other in known for key in other.model_fields.values() for inner in _in(key.annotation)
    }
    owners = {
        other
        for other in known & in_configs
        if name in other.model_fields and not other.__subclasses__() and name not in FOREIGN
    }
    near = difflib.get_close_matches(name, section.model_fields, n=1, cutoff=0.5)
    hint = ""
    if owners:
        places = sorted(
            {
                key
                for other in known
                for key, field in other.model_fields.items()
                if owners & _in(field.annotation)
            }
        )
        under = f", under {' or '.join(f'`{place}`' for place in places)}" if places else ""
        hint = f"; it is a key of {', '.join(sorted(owner.__name__ for owner in owners))}{under}"
    elif name in FOREIGN:
        hint = f"; here it is {FOREIGN[name]}"
    elif near:
        hint = f"; did you mean {near[0]!r}?"
    return f"unknown key {name!r} in {section.__name__}{hint}"


def _in(annotation: Any) -> set[Any]:
    """The classes that a field's type is made of."""
    inner = set().union(*map(_in, typing.get_args(annotation)))
    return inner | {annotation} if isinstance(annotation, type) else inner


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
