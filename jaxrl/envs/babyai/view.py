"""What the agent sees, as prose, and what it can do, as macros: names -> steps of the grid world.

The prose is AgentGym's. Cells are given from where the agent stands: `right` and `front` steps away, both
counted along its own axes. All that is planned here is planned over cells that are seen.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE = range(6)  # minigrid's actions
CHECK = "check available actions"

Cell = tuple[int, int]  # right, front
_AHEAD = ((0, 1), (1, 0), (0, -1), (-1, 0))  # facing ahead, right, back, left


@dataclass(frozen=True)
class Seen:
    """A thing in sight. name: `red ball`, `blue locked door`; label: with its number among those in sight."""

    name: str
    label: str
    kind: str
    cell: Cell
    what: Any  # minigrid's object


class View:
    """One look around. `environment`: minigrid's, unwrapped."""

    def __init__(self, environment: Any):
        grid, mask = environment.gen_obs_grid()
        self.carrying = environment.carrying
        size, half = grid.height, grid.width // 2
        self.cells: dict[Cell, Any] = {
            (i - half, size - 1 - j): grid.get(i, j)
            for j in range(size)
            for i in range(grid.width)
            if mask[i, j] and (i, j) != (half, size - 1)  # minigrid puts what is carried where one stands
        }
        self.things = _things(self.cells)
        self._paths: dict[tuple[Cell, int], list[int]] = _paths(self.cells)

    def prose(self) -> str:
        """AgentGym's sentences, with its spaces."""
        if self.things or any(thing for thing in self.cells.values()):
            text = "In front of you in this room, you can see several objects: "
            text += "".join(f"There is a {thing.label} {_where(thing.cell)}.  " for thing in self.things)
        else:
            text = "You cannot see any objects within sight."
        text += "The room has walls around you. "
        barriers = [
            (cell[1], thing.type)
            for cell, thing in self.cells.items()
            if thing is not None and thing.type in ("box", "wall") and cell[0] == 0
        ]
        if barriers:
            steps, kind = min(barriers)
            text += f"You are facing a {kind} {steps} steps away. "
        if self.carrying is None:
            return text + "You are not carrying anything."
        return text + f"You are carrying a {self.carrying.color} {self.carrying.type}."

    def macros(self, pickup: str = "pick up") -> dict[str, list[int]]:
        """What can be done, in AgentGym's order. `pickup`: how picking up is called."""
        ahead = self.cells.get((0, 1))
        found = {"turn left": [LEFT], "turn right": [RIGHT]}
        if _is_free(ahead):
            found["move forward"] = [FORWARD]
        if self.carrying is None:
            for thing in self.things:
                if thing.kind in ("ball", "box", "key") and (path := self._facing(thing.cell)) is not None:
                    found[f"{pickup} {thing.label}"] = [*path, PICKUP]
        elif ahead is None and (0, 1) in self.cells:
            found["drop"] = [DROP]
        for thing in self.things:
            if thing.kind == "door":
                found |= self._door(thing)
        if ahead is not None and ahead.type in ("door", "box") and not self._is_barred(ahead):
            found["toggle"] = [TOGGLE]
        for thing in self.things:
            if thing.kind == "goal" and (path := self._onto(thing.cell)) is not None:
                found["go to goal"] = path
        for thing in self.things:
            if thing.kind != "goal" and (path := self._facing(thing.cell)) is not None:
                found[f"go to {thing.label}"] = path
        return found | {CHECK: []}

    def _door(self, door: Seen) -> dict[str, list[int]]:
        if door.what.is_open:
            path = self._onto(door.cell)
            return {} if path is None else {f"go through {door.label}": path}
        path = None if self._is_barred(door.what) else self._facing(door.cell)
        return {} if path is None else {f"toggle and go through {door.label}": [*path, TOGGLE, FORWARD]}

    def _is_barred(self, thing: Any) -> bool:
        """Whether it is a locked door, and its key is not in the hand."""
        if thing.type != "door" or not thing.is_locked:
            return False
        key = self.carrying
        return key is None or key.type != "key" or key.color != thing.color

    def _facing(self, cell: Cell) -> list[int] | None:
        """The shortest way to where one faces a cell; of equal ones the first found."""
        spots = (((cell[0] - right, cell[1] - front), way) for way, (right, front) in enumerate(_AHEAD))
        return _shortest(self._paths[spot] for spot in spots if spot in self._paths)

    def _onto(self, cell: Cell) -> list[int] | None:
        return _shortest(self._paths[cell, way] for way in range(4) if (cell, way) in self._paths)


def _things(cells: dict[Cell, Any]) -> list[Seen]:
    """All but walls and floors, the nearest first."""
    found: list[Seen] = []
    counts: dict[str, int] = {}
    for cell, thing in sorted(cells.items(), key=lambda row: abs(row[0][0]) + abs(row[0][1])):
        if thing is None or thing.type in ("wall", "floor"):
            continue
        name = f"{thing.color} {thing.type}"
        if thing.type == "door":
            state = "open" if thing.is_open else "locked" if thing.is_locked else "closed"
            name = f"{thing.color} {state} door"
        counts[name] = counts.get(name, 0) + 1
        found.append(Seen(name, f"{name} {counts[name]}", thing.type, cell, thing))
    return found


def _where(cell: Cell) -> str:
    right, front = cell
    if right == 0:
        return f"right in front of you {front} steps away"
    side = "right" if right > 0 else "left"
    return f"{front} steps in front of you and {abs(right)} steps to your {side}"


def _is_free(thing: Any) -> bool:
    return thing is None or thing.can_overlap()


def _paths(cells: dict[Cell, Any]) -> dict[tuple[Cell, int], list[int]]:
    """(cell, way one faces) -> steps to get there from here, over free cells that are seen."""
    start = ((0, 0), 0)
    paths: dict[tuple[Cell, int], list[int]] = {start: []}
    queue = deque([start])
    while queue:
        (right, front), way = state = queue.popleft()
        ahead = (right + _AHEAD[way][0], front + _AHEAD[way][1])
        moves = [((right, front), (way - 1) % 4, LEFT), ((right, front), (way + 1) % 4, RIGHT)]
        if ahead == (0, 0) or (ahead in cells and _is_free(cells[ahead])):
            moves.insert(0, (ahead, way, FORWARD))
        for cell, facing, step in moves:
            if (cell, facing) not in paths:
                paths[cell, facing] = [*paths[state], step]
                queue.append((cell, facing))
    return paths


def _shortest(paths: Iterable[list[int]]) -> list[int] | None:
    return min(paths, key=len, default=None)
