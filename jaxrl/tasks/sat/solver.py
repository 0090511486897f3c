"""A complete solver for propositional formulas: conflict-driven clause learning, small and deterministic.

Good for random k-SAT of up to about a hundred variables at the threshold; it keeps every learnt clause and
never restarts.

Literals are signed integers, as in DIMACS files: 3 is x3, -3 is not x3. Lists of 2n + 1 entries are indexed
by literals directly, since Python counts negative indices from the end.
"""

from collections.abc import Iterable, Sequence

Clause = Sequence[int]

DECAY = 0.95  # of a variable's activity with each conflict


class Undecided(Exception):
    """The limit of conflicts was reached."""


def solve(clauses: Iterable[Clause], max_conflicts: int | None = None) -> list[int] | None:
    """A satisfying assignment, a literal for each variable from 1 to the largest, or None if there is none.

    Raises:
      Undecided: after `max_conflicts` conflicts; where that happens does not depend on the machine.
    """
    clauses = [list(dict.fromkeys(clause)) for clause in clauses]
    num_variables = max((abs(literal) for clause in clauses for literal in clause), default=0)
    clauses = [clause for clause in clauses if not any(-literal in clause for literal in clause)]
    return _Search(clauses, num_variables).run(max_conflicts)


def satisfies(assignment: Iterable[int], clauses: Iterable[Clause]) -> bool:
    """Whether each clause holds a literal of the assignment, which may leave variables out."""
    true = set(assignment)
    return all(any(literal in true for literal in clause) for clause in clauses)


class _Search:
    """The state of one search: what is assigned, when and why, and which clauses watch which literals."""

    def __init__(self, clauses: list[list[int]], num_variables: int):
        self.num_variables = n = num_variables
        self.value = [0] * (2 * n + 1)  # of a literal: 1 true, -1 false, 0 not assigned
        # clauses that must be looked at when a literal becomes false
        self.watches: list[list[list[int]]] = [[] for _ in range(2 * n + 1)]
        self.trail: list[int] = []  # true literals in the order they became so
        self.level_starts: list[int] = []  # where in the trail each decision stands
        self.level = [0] * (n + 1)
        self.reason: list[list[int] | None] = [None] * (n + 1)
        self.activity = [0.0] * (n + 1)
        self.bump = 1.0
        self.phase = [-1] * (n + 1)  # the sign that a variable had last
        self.is_refuted = not all(self._add(clause) for clause in clauses)

    def run(self, max_conflicts: int | None) -> list[int] | None:
        if self.is_refuted:
            return None
        conflicts, next_to_propagate = 0, 0
        while True:
            conflict = self._propagate(next_to_propagate)
            if conflict is None:
                variable = self._choose()
                if variable is None:
                    return [v if self.value[v] > 0 else -v for v in range(1, self.num_variables + 1)]
                next_to_propagate = len(self.trail)
                self.level_starts.append(next_to_propagate)
                self._assign(variable * self.phase[variable], None)
                continue
            if not self.level_starts:
                return None
            conflicts += 1
            if max_conflicts is not None and conflicts > max_conflicts:
                raise Undecided(f"{max_conflicts} conflicts")
            learnt, back_to = self._analyse(conflict)
            self._undo(back_to)
            next_to_propagate = len(self.trail)
            if len(learnt) > 1:
                self._watch(learnt)
            self._assign(learnt[0], learnt if len(learnt) > 1 else None)
            self.bump /= DECAY
            if self.bump > 1e100:
                self.activity = [activity * 1e-100 for activity in self.activity]
                self.bump *= 1e-100

    def _add(self, clause: list[int]) -> bool:
        """Take in a clause of the formula; False if it contradicts those of one literal."""
        if len(clause) > 1:
            self._watch(clause)
            return True
        if not clause or self.value[clause[0]] < 0:
            return False
        if self.value[clause[0]] == 0:
            self._assign(clause[0], None)
        return True

    def _watch(self, clause: list[int]) -> None:
        self.watches[clause[0]].append(clause)
        self.watches[clause[1]].append(clause)

    def _assign(self, literal: int, reason: list[int] | None) -> None:
        variable = abs(literal)
        self.value[literal], self.value[-literal] = 1, -1
        self.level[variable] = len(self.level_starts)
        self.reason[variable] = reason
        self.phase[variable] = 1 if literal > 0 else -1
        self.trail.append(literal)

    def _propagate(self, start: int) -> list[int] | None:
        """Follow all implications of the trail from `start` on.

        Returns a clause that has become false, if one has.

        Invariant: a clause watches its first two literals; when neither is true, both are unassigned (or it
        is being looked at).
        """
        value, watches, trail = self.value, self.watches, self.trail
        while start < len(trail):
            false = -trail[start]
            start += 1
            kept: list[list[int]] = []
            queue = watches[false]
            for i, clause in enumerate(queue):
                if clause[0] == false:
                    clause[0], clause[1] = clause[1], false
                if value[clause[0]] > 0:
                    kept.append(clause)
                    continue
                for k in range(2, len(clause)):
                    if value[clause[k]] >= 0:
                        clause[1], clause[k] = clause[k], false
                        watches[clause[1]].append(clause)
                        break
                else:
                    kept.append(clause)
                    if value[clause[0]] < 0:
                        watches[false] = kept + queue[i + 1 :]
                        return clause
                    self._assign(clause[0], clause)
            watches[false] = kept
        return None

    def _analyse(self, conflict: list[int]) -> tuple[list[int], int]:
        """The clause to learn, by resolving back to the first unique implication point, and the level to
        return to.

        Its first literal is the one that becomes true there, its second one of the highest level among the
        others.
        """
        here = len(self.level_starts)
        seen: set[int] = set()
        others: list[int] = []
        open_here, at, clause = 0, len(self.trail), conflict
        while True:
            for literal in clause:
                variable = abs(literal)
                if variable not in seen and self.level[variable] > 0:
                    seen.add(variable)
                    self.activity[variable] += self.bump
                    if self.level[variable] == here:
                        open_here += 1
                    elif self.value[literal] < 0:
                        others.append(literal)
            at -= 1
            while abs(self.trail[at]) not in seen:
                at -= 1
            open_here -= 1
            if open_here == 0:
                break
            clause = self.reason[abs(self.trail[at])] or []
        others.sort(key=lambda literal: self.level[abs(literal)], reverse=True)
        return [-self.trail[at], *others], self.level[abs(others[0])] if others else 0

    def _undo(self, level: int) -> None:
        for literal in self.trail[self.level_starts[level] :]:
            self.value[literal] = self.value[-literal] = 0
        del self.trail[self.level_starts[level] :]
        del self.level_starts[level:]

    def _choose(self) -> int | None:
        """The unassigned variable of the highest activity, the lowest of equals."""
        free = [variable for variable in range(1, self.num_variables + 1) if self.value[variable] == 0]
        return max(free, key=self.activity.__getitem__) if free else None
