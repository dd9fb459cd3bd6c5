"""The rules of Sudoku, checked against a naive reading of them."""

import numpy as np
import pytest

from redraft.tasks.boards import (
    PEERS,
    UNITS,
    conflicts,
    corruption,
    dig,
    random_board,
    shuffle_boards,
    solutions,
    violations,
)

SEVENTEEN = (
    "000000010400000000020000000000050407008000300001090000300400200050100000000806000",
    "000000000000003085001020000000507000004000100090000000500000073002010000000040009",
)


def same_unit(i, j):
    rows, columns = (i // 9, j // 9), (i % 9, j % 9)
    boxes = [(r // 3, c // 3) for r, c in zip(rows, columns, strict=True)]
    return rows[0] == rows[1] or columns[0] == columns[1] or boxes[0] == boxes[1]


SEEN = [[j for j in range(81) if j != i and same_unit(i, j)] for i in range(81)]


def is_valid(board):
    grid = np.asarray(board).reshape(9, 9)
    lines = [*grid, *grid.T]
    boxes = [grid[r : r + 3, c : c + 3].ravel() for r in (0, 3, 6) for c in (0, 3, 6)]
    return all(sorted(unit.tolist()) == list(range(1, 10)) for unit in lines + boxes)


def naive_solutions(board, limit=2):
    """Depth-first search over sets of digits; shares nothing with the solver under test."""
    digits = set(range(1, 10))
    free = {i: digits - {board[j] for j in SEEN[i]} for i in range(81) if not board[i]}
    if not free:
        return [list(board)]
    cell = min(free, key=lambda i: len(free[i]))
    found = []
    for digit in sorted(free[cell]):
        found += naive_solutions([*board[:cell], digit, *board[cell + 1 :]], limit - len(found))
        if len(found) >= limit:
            break
    return found


def parse(text):
    return np.array([int(c) for c in text])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def boards():
    rng = np.random.default_rng(1)
    return np.array([random_board(rng) for _ in range(60)])


def test_units_and_peers_follow_the_rules():
    expected = [[j in SEEN[i] for j in range(81)] for i in range(81)]
    assert PEERS.shape == (81, 81)
    assert PEERS.dtype == bool
    assert np.array_equal(PEERS, expected)
    assert UNITS.shape == (27, 9)
    assert len({tuple(sorted(unit)) for unit in UNITS.tolist()}) == 27
    assert all(same_unit(i, j) for unit in UNITS for i in unit for j in unit)
    assert (UNITS[:9] // 9 == np.arange(9)[:, None]).all()
    assert (UNITS[9:18] % 9 == np.arange(9)[:, None]).all()


def test_random_boards_are_valid_distinct_and_reproducible(boards):
    assert boards.dtype == np.int8
    assert all(is_valid(board) for board in boards)
    assert len(np.unique(boards, axis=0)) == len(boards)
    again = np.random.default_rng(1)
    assert all(np.array_equal(board, random_board(again)) for board in boards)


def test_random_boards_show_every_digit_in_every_cell(rng):
    many = np.array([random_board(rng) for _ in range(300)])
    counts = (many[:, :, None] == np.arange(1, 10)).sum(0)
    # Binomial(300, 1/9): mean 33.3, standard deviation 5.4.
    assert counts.min() > 33.3 - 5 * 5.4
    assert counts.max() < 33.3 + 5 * 5.4


def test_shuffles_preserve_validity_and_differ(boards, rng):
    copies = np.repeat(boards[:2], 200, axis=0)
    shuffled = shuffle_boards(copies, rng)
    assert shuffled.dtype == copies.dtype
    assert all(is_valid(board) for board in shuffled)
    assert len(np.unique(shuffled, axis=0)) == 400
    assert np.array_equal(copies, np.repeat(boards[:2], 200, axis=0))


def test_shuffles_relabel_and_transpose(rng):
    board = np.arange(81) % 9 + 1  # every row 1..9, so that columns and transposition show
    shuffled = shuffle_boards(np.tile(board, (300, 1)), rng).reshape(300, 9, 9)
    kept = (shuffled == shuffled[:, :1]).all((1, 2))
    turned = (shuffled == shuffled[:, :, :1]).all((1, 2))
    assert (kept ^ turned).all()
    assert 100 < turned.sum() < 200
    assert set(shuffled[:, 0, 0].tolist()) == set(range(1, 10))


def test_shuffles_move_rows_within_and_between_bands(rng):
    board = np.zeros(81, int)
    board[0] = 1
    shuffled = shuffle_boards(np.tile(board, (2000, 1)), rng)
    assert ((shuffled > 0).sum(1) == 1).all()
    assert set(shuffled.argmax(1).tolist()) == set(range(81))
    neighbours = np.zeros(81, int)
    neighbours[[0, 20]] = 1, 2  # two cells of one box stay in one box, apart in row and column
    for one in shuffle_boards(np.tile(neighbours, (100, 1)), rng):
        i, j = np.flatnonzero(one)
        assert (i // 27, i % 9 // 3) == (j // 27, j % 9 // 3)
        assert i // 9 != j // 9
        assert i % 9 != j % 9


def test_shuffled_puzzles_keep_their_number_of_solutions(rng):
    for puzzle in shuffle_boards(np.tile(parse(SEVENTEEN[0]), (5, 1)), rng):
        assert (puzzle > 0).sum() == 17
        assert len(solutions(puzzle)) == 1


@pytest.mark.parametrize("text", SEVENTEEN)
def test_hard_puzzles_have_one_solution(text):
    puzzle = parse(text)
    (solution,) = solutions(puzzle)
    assert is_valid(solution)
    assert np.array_equal(solution[puzzle > 0], puzzle[puzzle > 0])


def test_a_swappable_rectangle_gives_exactly_two_solutions(boards):
    def rectangles(board):
        for i in range(81):
            for j in range(i + 1, i // 9 * 9 + 9):  # same row as i; the other row in its band
                for k in range(i // 9 + 1, i // 27 * 3 + 3):
                    cells = [i, j, 9 * k + i % 9, 9 * k + j % 9]
                    if (board[cells[:2]] == board[cells[2:]][::-1]).all():
                        yield cells

    board, cells = next((board, cells) for board in boards for cells in rectangles(board))
    puzzle = board.copy()
    puzzle[cells] = 0
    swapped = board.copy()
    swapped[cells] = board[cells][[1, 0, 3, 2]]
    found = solutions(puzzle, limit=10)
    assert sorted(s.tolist() for s in found) == sorted([board.tolist(), swapped.tolist()])
    assert len(solutions(puzzle, limit=1)) == 1


def test_solutions_agree_with_a_naive_solver(boards, rng):
    for board in boards[:10]:
        puzzle = np.where(rng.random(81) < 0.42, board, 0)
        found = sorted(s.tolist() for s in solutions(puzzle, limit=20))
        expected = sorted(naive_solutions(puzzle.tolist(), limit=20))
        assert len(found) == len(expected)
        assert found == expected or len(found) == 20


def test_solutions_of_extreme_boards(boards):
    many = solutions(np.zeros(81, int), limit=5)
    assert len({tuple(s.tolist()) for s in many}) == 5
    assert all(is_valid(s) for s in many)
    (only,) = solutions(boards[0])
    assert np.array_equal(only, boards[0])
    clash = np.zeros(81, int)
    clash[[0, 8]] = 5
    assert solutions(clash) == []
    stuck = np.zeros(81, int)
    stuck[:8] = range(1, 9)
    stuck[80] = 9  # the last cell of the first row has no digit left
    assert solutions(stuck) == []


def test_dug_puzzles_are_unique_and_minimal(boards, rng):
    for board in boards[:3]:
        given = dig(board, rng)
        assert given.dtype == bool
        assert 17 <= given.sum() <= 32
        puzzle = np.where(given, board, 0)
        assert naive_solutions(puzzle.tolist()) == [board.tolist()]
        for cell in np.flatnonzero(given):
            spared = puzzle.copy()
            spared[cell] = 0
            assert len(solutions(spared)) == 2


def test_digging_stops_at_the_wanted_number_of_clues(boards):
    for clues in (81, 60, 36):
        given = dig(boards[0], np.random.default_rng(5), clues)
        assert given.sum() == clues
        assert len(solutions(np.where(given, boards[0], 0))) == 1
    first, second = (dig(boards[0], np.random.default_rng(6)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, dig(boards[0], np.random.default_rng(7)))


def test_corruption_is_a_permutation_of_at_most_2k_cells(boards, rng):
    assert np.array_equal(corruption(0, rng), np.arange(81))
    for k in (1, 2, 5, 20):
        for _ in range(20):
            permutation = corruption(k, rng)
            assert sorted(permutation.tolist()) == list(range(81))
            assert (boards[0][permutation] != boards[0]).sum() <= 2 * k
            assert (permutation != np.arange(81)).sum() <= 2 * k


def test_one_corruption_swaps_cells_that_differ_in_row_and_column(rng):
    seen = set()
    for _ in range(500):
        permutation = corruption(1, rng)
        i, j = np.flatnonzero(permutation != np.arange(81))
        assert permutation[i] == j
        assert permutation[j] == i
        assert i // 9 != j // 9
        assert i % 9 != j % 9
        seen |= {i, j}
    assert seen == set(range(81))


def test_violations_of_known_boards(boards):
    assert (violations(boards) == 0).all()
    assert violations(boards).shape == (len(boards),)
    empty = np.zeros(81, int)
    ones = np.ones(81, int)
    gap = np.where(np.arange(81) == 40, 0, boards[0])
    beyond = np.where(np.arange(81) == 40, 12, boards[0])
    row = np.where(np.arange(81) == 40, boards[0][41], boards[0])
    # A gap misses once in three units.  A wrong digit misses and doubles once in each of its
    # three units.  A board of ones has in every unit 8 ones too many and 8 digits missing.
    expected = [27 * 9, 27 * 16, 3, 3, 6]
    assert violations(np.array([empty, ones, gap, beyond, row])).tolist() == expected


def test_violations_are_zero_exactly_on_valid_boards(boards, rng):
    broken = np.array([board[corruption(2, rng)] for board in boards])
    assert [v == 0 for v in violations(broken)] == [is_valid(board) for board in broken]


def test_conflicts_match_a_cell_by_cell_check(boards, rng):
    mixed = np.array([board[corruption(3, rng)] for board in boards[:5]])
    mixed[:, rng.permutation(81)[:10]] = 0
    mixed[:, rng.permutation(81)[:5]] = 11
    expected = [[1 <= b[i] <= 9 and any(b[i] == b[j] for j in SEEN[i]) for i in range(81)] for b in mixed]
    assert np.array_equal(conflicts(mixed), expected)
    assert conflicts(mixed).any()
    assert not conflicts(boards).any()
