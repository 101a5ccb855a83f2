from dask.delayed import delayed

from dask_dedup.runtime.executor import compute_tasks, ignore_result


def double(x):
    return 2 * x


def test_compute_tasks_keeps_the_order_and_reports_each_result():
    received = []
    tasks = [delayed(double)(x) for x in (3, 1, 2)]
    assert compute_tasks(tasks, received.append) == [6, 2, 4]
    assert received == [6, 2, 4]


def test_compute_tasks_of_nothing_is_nothing():
    assert compute_tasks([], ignore_result) == []
