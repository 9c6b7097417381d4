from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from api.batch.work import Attempt, Work
from api.grpc.talipot.v1 import generation_pb2 as pb


def items(count):
    return (pb.GenerateBatchRequest(id=str(number)) for number in range(count))


def test_requests_come_in_order_and_are_read_as_they_are_taken():
    source = items(3)
    work = Work(source)
    assert work.take(0.0).item.id == "0"
    assert next(source).id == "1"
    assert work.take(0.0).item.id == "2"
    assert work.take(0.0) is None
    assert work.under_way == 2


def test_one_put_back_comes_again_at_its_time_and_keeps_its_count():
    work = Work(items(1))
    work.take(0.0).refusals = 2
    work.put_back("0", 5.0)
    assert work.take(4.9) == 5.0
    assert work.take(5.0).refusals == 2


def test_new_ones_are_not_held_up_by_one_that_waits():
    work = Work(items(2))
    work.take(0.0)
    work.put_back("0", 5.0)
    assert work.take(0.0).item.id == "1"


@given(st.lists(st.sampled_from(["take", "finish", "put back", "lose"]), max_size=60))
def test_whatever_happens_each_is_finished_once(actions):
    work, finished, now = Work(items(8)), Counter(), 0.0

    def act(action):
        names = list(work._under_way)
        if action == "take":
            work.take(now)
        elif action == "lose":
            work.put_all_back(now)
        elif names and action == "put back":
            work.put_back(names[0], now + 1)
        elif names:
            work.finish(names[0])
            finished[names[0]] += 1

    for action in actions:
        now += 0.5
        act(action)
    now += 10
    while isinstance(work.take(now), Attempt):
        pass
    while work.under_way:
        act("finish")
    assert finished == Counter(str(number) for number in range(8))
