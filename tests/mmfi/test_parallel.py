import operator

import pytest

from examples.mmfi.parallel import ordered_map


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    assert list(ordered_map(operator.neg, range(9), workers)) == [-item for item in range(9)]


def test_an_error_in_a_process_reaches_the_caller():
    with pytest.raises(TypeError, match="bad operand"):
        list(ordered_map(operator.neg, [1, "text", 2], 2))


def test_results_are_not_computed_far_ahead():
    taken = []
    items = (taken.append(item) or item for item in range(100))
    results = ordered_map(operator.neg, items, 2)
    assert next(results) == 0
    assert len(taken) <= 6
    results.close()


def test_too_few_workers_are_refused():
    with pytest.raises(ValueError, match=r"`workers` should be 1 or more. Got `0`"):
        list(ordered_map(operator.neg, [1], 0))
