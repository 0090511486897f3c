"""The text of XLA's optimised HLO (`compiled.as_text()`) as instructions. What they cost: `hlo.py`."""

import math
import re
from dataclasses import dataclass
from functools import cached_property

# No work: these name a buffer or a part of one, or wait for one.
FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all opt-barrier partition-id replica-id".split()
)
FREE_CALLS = ('"ConcatBitcast"', '"AssumeGatherIndicesInBound"', '"AllocateBuffer"')

BUFFER = re.compile(r"(\w+)\[([\d,]*)\](?:\{[^}]*?(?:S\((\d+)\))?\})?")
NAME = re.compile(r"%([\w.\-]+)")
OPENING = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
ASSIGNMENT = re.compile(r"  (ROOT )?%?([\w.\-]+) = (.*)$")


@dataclass(frozen=True)
class Buffer:
    """One array of a result. space: S(n) of its layout; 0 is main memory."""

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def nbytes(self) -> int:
        bits = 8 if self.dtype == "pred" else int(re.search(r"\d+|$", self.dtype).group() or 0)
        return math.prod(self.dims) * bits // 8

    @property
    def traffic(self) -> int:
        """Bytes that reading or writing all of it moves through main memory."""
        return self.nbytes if self.space == 0 else 0


@dataclass(frozen=True)
class Instruction:
    """literal: what stands between the parentheses, a constant's value, a parameter's number."""

    name: str
    opcode: str
    buffers: tuple[Buffer, ...]  # of the result, tuples flattened
    operands: tuple[str, ...]
    attributes: str
    literal: str

    def called(self, *keys: str) -> list[str]:
        """The computations named by these attributes."""
        found = [re.search(rf"\b{key}=(%[\w.\-]+|\{{[^}}]*\}})", self.attributes) for key in keys]
        return [name for match in found if match for name in NAME.findall(match.group(1))]

    @property
    def index(self) -> int:
        """Which element a get-tuple-element takes."""
        return int(re.search(r"\bindex=(\d+)", self.attributes).group(1))

    @property
    def is_free(self) -> bool:
        names_a_buffer = self.opcode == "custom-call" and any(
            target in self.attributes for target in FREE_CALLS
        )
        return names_a_buffer or self.opcode in FREE or self.opcode.endswith("-done")

    def __str__(self) -> str:
        return f"{self.opcode} {self.name}: " + ", ".join(
            f"{b.dtype}[{','.join(map(str, b.dims))}]" for b in self.buffers
        )


@dataclass(frozen=True)
class Computation:
    name: str
    instructions: dict[str, Instruction]
    root: Instruction

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        return {int(i.literal): i for i in self.instructions.values() if i.opcode == "parameter"}

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        users = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for name in dict.fromkeys(instruction.operands):
                users[name].append(instruction)
        return users

    def operands(self, instruction: Instruction) -> list[Instruction]:
        return [self.instructions[name] for name in instruction.operands]

    def output(self, number: int) -> tuple[Instruction, int]:
        """The instruction that makes a result (nested tuples flattened), and which of its results that is."""
        for element in self.operands(self.root) if self.root.opcode == "tuple" else [self.root]:
            if number < len(element.buffers):
                return element, number
            number -= len(element.buffers)
        raise IndexError(f"{self.name} has no such result")


def parse_computations(text: str) -> tuple[dict[str, Computation], str]:
    """The computations by name, and the name of the entry.

    Raises:
      ValueError: if the text has no entry computation.
    """
    computations, entry, name = {}, None, None
    for line in text.splitlines():
        opening, assignment = OPENING.match(line), ASSIGNMENT.match(line)
        if opening:
            name, instructions, root = opening.group(2), {}, None
            entry = name if opening.group(1) else entry
        elif assignment and name:
            instruction = parse_instruction(assignment.group(2), assignment.group(3))
            instructions[instruction.name] = instruction
            root = instruction if assignment.group(1) else root
        elif line.startswith("}") and name and root:  # before the root it is of a text that a kernel brought
            computations[name], name = Computation(name, instructions, root), None
    if entry is None:
        raise ValueError("the text is no HLO module: it has no ENTRY computation")
    return computations, entry


def parse_instruction(name: str, definition: str) -> Instruction:
    """`bf16[64,2]{1,0} add(%x, %y), attribute=...`; a tuple's shape is in parentheses."""
    end = _closing(definition, 0) + 1 if definition.startswith("(") else definition.index(" ")
    shape, rest = definition[:end], definition[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    literal = rest[opening + 1 : closing]
    buffers = tuple(
        Buffer(d, tuple(int(n) for n in dims.split(",") if n), int(s or 0))
        for d, dims, s in BUFFER.findall(shape)
    )
    return Instruction(
        name, rest[:opening], buffers, tuple(NAME.findall(literal)), rest[closing + 1 :], literal
    )


def _closing(text: str, opening: int) -> int:
    """Where the parenthesis that opens at a place is closed."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError(f"a parenthesis is never closed: {text[:80]}")
