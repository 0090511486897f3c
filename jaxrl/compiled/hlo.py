"""Read a compiled program: what one pass of a loop moves and launches, counted over XLA's optimised HLO.

XLA's own cost analysis counts the body of a loop once or not at all, so the counting is done here. Counted is
the traffic with the device's main memory, by three rules:

    a fusion   reads of its operands what its results need, and writes the results; what lies between stays in
               registers
    a slice    reads what it takes out, not what it takes it from; so does a gather
    an update  (dynamic-update-slice, scatter) writes what is put in, not what it is put into

Buffers outside main memory, whose layout has S(n), n > 0 (a TPU's vector memory), cost nothing: a copy into
them costs its read, a copy out of them its write. Not counted are the padding of tiled layouts and what a
GPU's cache saves.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from jaxrl.compiled.hlo_text import Computation, Instruction, parse_computations

TAKES = {"slice", "dynamic-slice", "gather"}  # from their first operand
# into their first operand; the number is that of what is put in
PUTS = {"dynamic-update-slice": 1, "scatter": -1}
# These put numbers of their operands elsewhere and compute none. (Copies between memories are prefetching:
# traffic, no move.)
MOVES = TAKES | frozenset(
    "copy transpose reshape concatenate pad reverse convert select all-gather all-gather-start".split()
)
# Every element of the result needs as much of an operand as every other.
EVEN = frozenset("bitcast reshape convert copy transpose pad select compare and or not negate abs".split())
EVEN |= frozenset("add subtract multiply divide maximum minimum exponential log tanh reduce".split())
COLLECTIVES = frozenset(
    "all-gather all-reduce all-to-all ragged-all-to-all reduce-scatter collective-permute".split()
)


def parse(text: str) -> "Module":
    """The text of a compiled program (`compiled.as_text()`) as a Module."""
    return Module(*parse_computations(text))


@dataclass(frozen=True)
class Module:
    """A compiled program: its computations by name. The counts are of one run of the named computation.

    What a computation is given are its parameters; those of a loop's body are what the loop carries: in a
    decode window, weights and caches.
    """

    computations: dict[str, Computation]
    entry: str

    def loop(self, trip_count: int) -> str:
        """The body of the one loop in the entry computation that goes round so often.

        Raises:
          LookupError: if there is none, or more than one.
        """
        entry = self.computations[self.entry]
        loops = [(i, self.trip_count(entry, i)) for i in entry.instructions.values() if i.opcode == "while"]
        bodies = [i.called("body")[0] for i, count in loops if count == trip_count]
        if len(bodies) != 1:
            raise LookupError(
                f"{len(bodies)} loops go round {trip_count} times; the loops go round "
                f"{[count for _, count in loops]} times"
            )
        return bodies[0]

    def trip_count(self, computation: Computation, loop: Instruction) -> int | None:
        """How often a `while` goes round; None if the program does not say.

        XLA notes it on GPU. On TPU it is read from the condition i < n, where i starts at 0 and is counted up
        by 1.
        """
        noted = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if noted:
            return int(noted.group(1))
        condition, body = (self.computations[loop.called(key)[0]] for key in ("condition", "body"))
        if condition.root.opcode != "compare" or "direction=LT" not in condition.root.attributes:
            return None
        counter, limit = condition.operands(condition.root)
        if (counter.opcode, limit.opcode) != ("get-tuple-element", "constant"):
            return None
        (start,) = computation.operands(loop)
        first, after = computation.operands(start)[counter.index], body.operands(body.root)[counter.index]
        first = computation.operands(first)[0] if first.opcode == "copy" else first
        steps = [i.literal for i in body.operands(after) if i.opcode == "constant"]
        is_counted = (first.opcode, first.literal, after.opcode, steps) == ("constant", "0", "add", ["1"])
        return int(limit.literal) if is_counted else None

    def executed(self, name: str, counted: bool = True) -> Iterator[tuple[Computation, Instruction, int]]:
        """Every instruction that does work, where it stands and how often it runs, inner loops included; of a
        conditional, all branches. Not `counted`: how often does not matter.

        Raises:
          ValueError: when counting, at an inner loop whose trip count is not known.
        """
        computation = self.computations[name]
        for instruction in computation.instructions.values():
            times, inner = (
                1,
                instruction.called(
                    "to_apply", "calls", "branch_computations", "true_computation", "false_computation"
                ),
            )
            if instruction.opcode == "while":
                times, inner = (
                    (self.trip_count(computation, instruction) if counted else 1),
                    instruction.called("body"),
                )
                if times is None:
                    raise ValueError(
                        f"the loop {instruction.name} in {name} goes round an unknown number of times"
                    )
            elif instruction.opcode not in ("call", "async-start", "conditional"):
                inner = []
                if not instruction.is_free:
                    yield computation, instruction, 1
            for callee in inner:
                yield from ((c, i, n * times) for c, i, n in self.executed(callee, counted))

    # ------------------------------------------------------------------------------------------------- counts

    def launches(self, name: str) -> int:
        """Operations run. On GPU each is a kernel, a copy or a library call."""
        return sum(times for _, _, times in self.executed(name))

    def traffic(self, name: str) -> int:
        """Bytes read from main memory and written to it."""
        return sum(
            times * (sum(self._reads(c, i).values()) + sum(self._writes(c, i)))
            for c, i, times in self.executed(name)
        )

    def given_traffic(self, name: str) -> int:
        """That part of the traffic which reads, moves or updates what the computation is given. The rest goes
        from one launch to another; if there is little of it at a time, a GPU's cache holds it.
        """
        total = 0
        for c, i, times in self.executed(name):
            reads = sum(
                size
                for operand, size in self._reads(c, i).items()
                if self._origins(c, c.instructions[operand])
            )
            handed_on = [[operand for operand, _ in self._handed_on(c, i, n)] for n in range(len(i.buffers))]
            writes = sum(
                size
                for size, operands in zip(self._writes(c, i), handed_on)
                if any(self._origins(c, o) for o in operands)
            )
            total += times * (reads + writes)
        return total

    def moves(self, name: str, at_least: int) -> list[Instruction]:
        """Instructions that write so many bytes or more to main memory and compute none of them: they copy,
        transpose, join, cut out or gather what the computation is given. The same done to what it computes is
        not listed.
        """
        return [i for c, i, _ in self.executed(name, counted=False) if self._moved(c, i) >= at_least]

    def collectives(self, name: str) -> list[Instruction]:
        """What devices send one another."""
        return [
            i
            for _, i, _ in self.executed(name, counted=False)
            if i.opcode.removesuffix("-start") in COLLECTIVES
        ]

    # -------------------------------------------------------------------------- the traffic of an instruction

    def _reads(self, computation: Computation, instruction: Instruction) -> dict[str, int]:
        """Bytes read of each operand; one that is given twice is read once."""
        sources = computation.operands(instruction)
        sizes = [sum(b.traffic for b in source.buffers) for source in sources]
        if instruction.opcode == "fusion":
            fused = self._fused(instruction)
            sizes = [min(size, self._needed(fused, fused.parameters[n])) for n, size in enumerate(sizes)]
        elif instruction.opcode in TAKES:
            sizes[0] = min(sizes[0], instruction.buffers[0].nbytes)
        elif instruction.opcode == "slice-start":
            sizes[0] = min(sizes[0], instruction.buffers[1].nbytes)
        elif instruction.opcode in PUTS:
            sizes[0] = 0
        return {source.name: size for source, size in zip(sources, sizes)}

    def _needed(self, fused: Computation, value: Instruction) -> int:
        """How many bytes of a value inside a fusion are looked at."""
        whole, needed = sum(b.nbytes for b in value.buffers), 0
        if value is fused.root:
            return whole
        for user in fused.users[value.name]:
            if needed >= whole:
                break
            is_first = user.operands[0] == value.name and value.name not in user.operands[1:]
            if user.opcode in TAKES and is_first:
                needed += self._needed(fused, user)
            elif user.opcode == "fusion":
                inner = self._fused(user)
                needed += sum(
                    self._needed(inner, inner.parameters[n])
                    for n, name in enumerate(user.operands)
                    if name == value.name
                )
            elif user.opcode in EVEN:
                needed += self._needed(fused, user) * whole // max(user.buffers[0].nbytes, 1)
            elif not (user.opcode in PUTS and is_first):
                return whole
        return min(whole, needed)

    def _writes(self, computation: Computation, instruction: Instruction) -> list[int]:
        """Bytes written of each result."""
        buffers = instruction.buffers
        if instruction.opcode == "copy-start":  # (to, from, context)
            return [buffers[0].traffic, 0, 0]
        n = len(instruction.operands)
        if instruction.opcode.endswith("-start") and len(buffers) >= 2 * n:  # (from ..., to ..., context)
            return [0] * n + [b.traffic for b in buffers[n : 2 * n]]
        sizes = [min(b.traffic, self._new(computation, instruction, n)) for n, b in enumerate(buffers)]
        has_workspace = (
            instruction.opcode == "custom-call" and '"__cub' in instruction.attributes and len(sizes) > 1
        )
        return sizes[:-1] if has_workspace else sizes  # of cuBLAS; it is the last result

    def _new(self, computation: Computation, value: Instruction, number: int = 0) -> int:
        """How many bytes of a result are not there already, in the buffer that it updates."""
        if value.opcode in PUTS:
            return computation.operands(value)[PUTS[value.opcode]].buffers[0].nbytes
        if value.opcode == "fusion":
            fused = self._fused(value)
            return self._new(fused, *fused.output(number))
        if value.opcode == "bitcast":
            return self._new(computation, *computation.operands(value))
        return value.buffers[number].nbytes

    # -------------------------------------------------------------------------------- where numbers come from

    def _moved(self, computation: Computation, instruction: Instruction) -> int:
        """The most bytes of one result that hold nothing but given numbers, which the instruction put
        there.
        """
        sizes = [0]
        for number, size in enumerate(self._writes(computation, instruction)):
            handed_on = self._handed_on(computation, instruction, number)
            if any(is_moved and self._origins(computation, operand) for operand, is_moved in handed_on):
                sizes.append(size)
        return max(sizes)

    def _origins(
        self, computation: Computation, value: Instruction, number: int = 0
    ) -> list[tuple[Instruction, bool]]:
        """The parameters whose numbers a result holds, and whether they were put elsewhere on the way; none
        if computed.
        """
        is_part = value.opcode == "get-tuple-element" and computation.operands(value)[0].opcode == "parameter"
        if is_part or value.opcode == "parameter":
            return [(value, False)]
        steps = self._handed_on(computation, value, number)
        return [
            (origin, first or then)
            for operand, first in steps
            for origin, then in self._origins(computation, operand)
        ]

    def _handed_on(
        self, computation: Computation, value: Instruction, number: int
    ) -> list[tuple[Instruction, bool]]:
        """The operands whose numbers one result of an instruction holds, and whether it put them
        elsewhere.
        """
        operands = computation.operands(value)
        if value.opcode == "fusion":
            fused = self._fused(value)
            return [
                (operands[int(p.literal)], is_moved)
                for p, is_moved in self._origins(fused, *fused.output(number))
            ]
        if value.opcode == "get-tuple-element":
            (whole,) = operands
            if whole.opcode == "tuple":
                return [(computation.operands(whole)[value.index], False)]
            return (
                self._handed_on(computation, whole, value.index)
                if whole.opcode == "fusion"
                else [(whole, False)]
            )
        if value.opcode in MOVES:
            moved = {"select": operands[1:]}.get(
                value.opcode, operands[:1] if value.opcode in TAKES else operands
            )
            return [(operand, True) for operand in moved]
        if value.opcode in PUTS:
            return [(operands[0], False), (operands[PUTS[value.opcode]], True)]
        is_handed_on = value.is_free or value.opcode in ("copy-start", "slice-start")
        return [(operand, False) for operand in operands] if is_handed_on else []

    def _fused(self, fusion: Instruction) -> Computation:
        return self.computations[fusion.called("calls")[0]]
