"""The rules of Sudoku: random boards, exact solving, puzzles, symmetries and corruption.

A board is an array of 81 digits, row by row, 0 for an empty cell.  The solver sees Sudoku as an
exact cover: 729 candidates ("digit d in cell i" has the index 81 d + i, with d from 0) and 324
constraints (each cell holds a digit; each row, column and box holds every digit), each to be met
by exactly one of its nine candidates.  The set of candidates still alive is one Python integer of
729 bits, so that a few shifts and ands count the candidates of all constraints of a kind at once.

Everything random draws from the generator that is passed in and from nothing else, so that equal
generators give equal results.  `random_board` can return every valid board, but not with exactly
equal probabilities; `shuffle_boards` draws uniformly from the symmetries.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]


def _units() -> NDArray[np.int64]:
    rows = np.arange(81).reshape(9, 9)
    boxes = rows.reshape(3, 3, 3, 3).swapaxes(1, 2).reshape(9, 9)
    return np.concatenate([rows, rows.T, boxes])


def _peers() -> NDArray[np.bool_]:
    member = (UNITS[:, :, None] == np.arange(81)).any(1).astype(int)
    shared: NDArray[np.bool_] = member.T @ member > 0
    return shared & ~np.eye(81, dtype=bool)


UNITS = _units()
"""(27, 9) cell indices of the 9 rows, then the 9 columns, then the 9 boxes."""

PEERS = _peers()
"""(81, 81) True where two different cells share a row, a column or a box."""


# --- The exact cover ----------------------------------------------------------------------------


class _Family(NamedTuple):
    """Nine or more constraints of one shape: candidates at `anchor + shift` for all nine shifts."""

    anchors: int  # bit set: the first candidate of each constraint
    shifts: tuple[int, ...]
    spread: int  # bit set of the shifts: anchor * spread is the constraint's candidates


def _mask(bits: Iterable[int]) -> int:
    return sum(1 << int(bit) for bit in bits)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _family(anchors: Iterable[int], shifts: Iterable[int]) -> _Family:
    steps = tuple(int(shift) for shift in shifts)
    return _Family(_mask(anchors), steps, _mask(steps))


def _families() -> tuple[_Family, ...]:
    cells = _family(range(81), range(0, 729, 81))
    digits = 81 * np.arange(9)[:, None]
    kinds = (UNITS[:9], UNITS[9:18], UNITS[18:])
    return (cells, *(_family((digits + u[:, 0]).ravel(), u[0] - u[0, 0]) for u in kinds))


def _keeps() -> tuple[int, ...]:
    clash = [0] * 729
    for family in _FAMILIES:
        for anchor in _bits(family.anchors):
            for candidate in _bits(family.spread << anchor):
                clash[candidate] |= family.spread << anchor
    return tuple(_ALL & ~mask | 1 << candidate for candidate, mask in enumerate(clash))


_ALL = (1 << 729) - 1
_FAMILIES = _families()
_KEEP = _keeps()  # what stays alive once a candidate is placed


def _load(board: Integers) -> tuple[int, int]:
    """The alive and the placed candidates of a board with the given digits."""
    alive, placed = _ALL, 0
    for cell, digit in enumerate(board.tolist()):
        if digit:
            candidate = 81 * (digit - 1) + cell
            alive &= _KEEP[candidate]
            placed |= 1 << candidate
    return alive, placed


def _unload(placed: int) -> NDArray[np.int8]:
    board = np.zeros(81, np.int8)
    for candidate in _bits(placed):
        board[candidate % 81] = candidate // 81 + 1
    return board


def _tally(alive: int, family: _Family) -> tuple[int, int, int]:
    """Anchors of the constraints with at least one, two and three alive candidates."""
    anchors = family.anchors
    once = twice = thrice = 0
    for shift in family.shifts:
        here = alive >> shift & anchors
        thrice |= twice & here
        twice |= once & here
        once |= here
    return once, twice, thrice


def _forced(alive: int) -> int | None:
    """Candidates that alone can meet some constraint; None where one can no longer be met."""
    forced = 0
    for family in _FAMILIES:
        once, twice, _ = _tally(alive, family)
        if once != family.anchors:
            return None
        forced |= (once ^ twice) * family.spread
    return forced & alive


def _settle(alive: int, placed: int) -> tuple[int, int] | None:
    """Place forced candidates (naked and hidden singles) to the end; None at a contradiction."""
    while (forced := _forced(alive)) is not None:
        if forced == placed:
            return alive, placed
        for candidate in _bits(forced & ~placed):
            alive &= _KEEP[candidate]
        placed = forced
    return None


def _tightest(alive: int, random: Random) -> list[int]:
    """The candidates, in random order, of a random open constraint with the fewest of them."""
    pairs, others = [], []
    for family in _FAMILIES:
        _, twice, thrice = _tally(alive, family)
        pairs += [family.spread << anchor for anchor in _bits(twice & ~thrice)]
        if not pairs:
            others += [family.spread << anchor for anchor in _bits(thrice)]
    choices = [alive & constraint for constraint in pairs or others]
    tightest = min(choices, key=lambda choice: (choice.bit_count(), random.random()))
    return random.sample(list(_bits(tightest)), tightest.bit_count())


def _search(alive: int, placed: int, random: Random) -> Iterator[int]:
    """All solutions, each as the set of its 81 candidates, in random order."""
    settled = _settle(alive, placed)
    if settled is None:
        return
    alive, placed = settled
    if alive == placed:
        yield placed
        return
    for candidate in _tightest(alive, random):
        yield from _search(alive & _KEEP[candidate], placed | 1 << candidate, random)


def _random(rng: np.random.Generator) -> Random:
    # Single draws from the standard library cost a tenth of numpy's.
    return Random(int(rng.integers(2**63)))


# --- Boards and puzzles -------------------------------------------------------------------------


def random_board(rng: np.random.Generator) -> NDArray[np.int8]:
    """A random full valid board, (81,) of 1..9."""
    board = np.zeros(81, np.int8)
    for box in UNITS[[18, 22, 26]]:  # the diagonal boxes do not constrain each other
        board[box] = 1 + rng.permutation(9)
    return _unload(next(_search(*_load(board), _random(rng))))


def solutions(board: Integers, limit: int = 2) -> list[NDArray[np.int8]]:
    """The full valid boards, at most `limit`, that agree with a puzzle (81,) of 0..9, 0 empty."""
    found = _search(*_load(board), Random(0))
    return [_unload(placed) for placed in islice(found, limit)]


def dig(board: Integers, rng: np.random.Generator, clues: int = 0) -> NDArray[np.bool_]:
    """Mask (81,) of cells to give so that the full valid board (81,) is the only solution.

    Cells are taken away in random order as long as the solution stays unique, until `clues` are
    left or, before that, none of the given cells can be spared.
    """
    given = np.ones(81, bool)
    random = _random(rng)
    for cell in rng.permutation(81):
        if given.sum() <= clues:
            break
        given[cell] = False
        given[cell] = _has_other(np.where(given, board, 0), cell, int(board[cell]), random)
    return given


def _has_other(puzzle: Integers, cell: int, digit: int, random: Random) -> bool:
    """Whether the puzzle has a solution with another digit in the cell."""
    alive, placed = _load(puzzle)
    others = alive & ~(1 << 81 * (digit - 1) + int(cell))
    return any(True for _ in _search(others, placed, random))


# --- Symmetries and corruption ------------------------------------------------------------------


def _line_orders(n: int, rng: np.random.Generator) -> Integers:
    """(n, 9) random orders of rows (or columns) that keep bands (or stacks) together."""
    bands = rng.random((n, 3, 1)).argsort(1)
    lines = rng.random((n, 3, 3)).argsort(2)
    return (3 * bands + lines).reshape(n, 9)


def shuffle_boards(boards: Integers, rng: np.random.Generator) -> Integers:
    """Apply to each board (n, 81) its own random symmetry of Sudoku; empty cells stay empty.

    Digits are relabelled, bands, stacks, rows in bands and columns in stacks are reordered, and
    half of the boards are transposed.
    """
    n = len(boards)
    rows, columns = _line_orders(n, rng), _line_orders(n, rng)
    cells = 9 * rows[:, :, None] + columns[:, None, :]
    flip = rng.random((n, 1, 1)) < 0.5
    cells = np.where(flip, cells.swapaxes(1, 2), cells).reshape(n, 81)
    labels = np.zeros((n, 10), boards.dtype)
    labels[:, 1:] = 1 + rng.random((n, 9)).argsort(1)
    moved = np.take_along_axis(boards, cells, 1)
    return np.take_along_axis(labels, moved.astype(np.intp), 1)


def corruption(k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Permutation (81,) of cells by `k` random swaps; `board[permutation]` is the corrupted board.

    Each swap exchanges two cells that differ in row and in column.  It may exchange equal digits
    or undo an earlier swap, so at most 2 k cells are wrong.
    """
    permutation = np.arange(81)
    for _ in range(k):
        rows, columns = (rng.choice(9, 2, replace=False) for _ in range(2))
        pair = 9 * rows + columns
        permutation[pair] = permutation[pair[::-1]]
    return permutation


# --- Judging boards -----------------------------------------------------------------------------


def violations(boards: Integers) -> NDArray[np.int64]:
    """(n,) sum over units and digits of |count - 1| for boards (n, 81); 0 iff the board is valid.

    Whatever is not one of the digits 1..9 counts as missing.
    """
    is_digit = boards[:, :, None] == np.arange(1, 10)
    counts = is_digit[:, UNITS].sum(2)
    excess: NDArray[np.int64] = np.abs(counts - 1).sum((1, 2))
    return excess


def conflicts(boards: Integers) -> NDArray[np.bool_]:
    """(n, 81) cells whose digit (1..9) occurs again in their row, column or box."""
    equal = boards[:, :, None] == boards[:, None, :]
    clash: NDArray[np.bool_] = (equal & PEERS).any(2)
    return clash & (boards >= 1) & (boards <= 9)
