import asyncio
import contextlib

import numpy as np
import pytest

from safety.scoring_thread import ScoringThread, UnscoredError, checked_scores
from tests.lexicon_scorer import LexiconScorer

WORDS = {"bad": {"toxicity": 0.9}}


@contextlib.contextmanager
def running(scorer, **settings):
    thread = ScoringThread(lambda: scorer, **settings)
    try:
        yield thread
    finally:
        scorer.may_go.set()
        thread.close()


async def answer_of(thread, text):
    (answer,) = await thread.submit([text])
    return answer


def test_texts_that_wait_are_scored_together_and_equal_ones_once():
    async def run(thread):
        scorer.may_go.clear()
        first = thread.submit(["first"])
        while thread.waiting:  # the scorer holds it
            await asyncio.sleep(0)
        rest = [thread.submit(texts) for texts in (["bad a", "b"], ["bad a"], ["c"])]
        assert thread.waiting == 4
        scorer.may_go.set()
        return [[scores[0] for scores in await each] for each in (first, *rest)]

    scorer = LexiconScorer(WORDS)
    with running(scorer) as thread:
        first, *rest = asyncio.run(run(thread))
    assert first == pytest.approx([0.01])
    assert rest == [pytest.approx([0.9, 0.01]), pytest.approx([0.9]), pytest.approx([0.01])]
    assert scorer.batches == [["first"], ["bad a", "b", "c"]]


def test_batches_are_bounded_however_many_texts_come_together():
    async def run(thread):
        scorer.may_go.clear()
        first = thread.submit(["first"])
        while thread.waiting:
            await asyncio.sleep(0)
        rest = [thread.submit(list(texts)) for texts in ("ab", "cd", "efghi", "")]
        scorer.may_go.set()
        return [len(await each) for each in (first, *rest)]

    scorer = LexiconScorer()
    with running(scorer, max_batch=3) as thread:
        assert asyncio.run(run(thread)) == [1, 2, 2, 5, 0]
    assert ["".join(batch) for batch in scorer.batches] == ["first", "ab", "cd", "efg", "hi"]


def test_texts_that_nobody_waits_for_are_not_scored():
    async def run(thread):
        scorer.may_go.clear()
        first = thread.submit(["first"])
        while thread.waiting:
            await asyncio.sleep(0)
        thread.submit(["a", "b"]).cancel()
        last = thread.submit(["c"])
        scorer.may_go.set()
        await asyncio.gather(first, last)

    scorer = LexiconScorer()
    with running(scorer) as thread:
        asyncio.run(run(thread))
    assert scorer.batches == [["first"], ["c"]]


@pytest.mark.parametrize("texts", [[["a", "poison", "bad"]], [["a"], ["poison"], ["bad"]]])
def test_one_bad_text_costs_its_neighbours_nothing(caplog, texts):
    async def run(thread):
        answers = await asyncio.gather(*map(thread.submit, texts))
        return [each for some in answers for each in some]

    scorer = LexiconScorer(WORDS)
    scorer.fail_on = "poison"
    with running(scorer) as thread:
        first, second, third = asyncio.run(run(thread))
    assert isinstance(second, UnscoredError)
    assert (first[0], third[0]) == pytest.approx((0.01, 0.9))
    assert "failed" in caplog.text


def test_a_scorer_that_lags_too_far_refuses():
    async def run(thread):
        scorer.may_go.clear()
        first = thread.submit(["a"])
        while thread.waiting:
            await asyncio.sleep(0)
        waiting = [thread.submit(texts) for texts in (["1", "2"], ["3"])]
        assert "lags 3 texts behind; at most 3 may wait" in str(await answer_of(thread, "more"))
        scorer.may_go.set()
        await asyncio.gather(first, *waiting)
        assert not isinstance(await answer_of(thread, "later"), UnscoredError)

    scorer = LexiconScorer()
    with running(scorer, max_waiting=3) as thread:
        asyncio.run(run(thread))


def test_what_waits_when_it_is_closed_is_told():
    async def run(thread):
        scorer.may_go.clear()
        first = thread.submit(["a"])
        while thread.waiting:
            await asyncio.sleep(0)
        second = thread.submit(["b", "c"])
        closing = asyncio.create_task(asyncio.to_thread(thread.close))
        assert [str(each) for each in await second] == ["the scorer has ended"] * 2
        scorer.may_go.set()
        await closing
        await first
        assert "ended" in str(await answer_of(thread, "c"))

    scorer = LexiconScorer()
    with running(scorer) as thread:
        asyncio.run(run(thread))


@pytest.mark.parametrize(
    "scores", [np.full((1, 3), np.nan), np.full((1, 3), 1.5), np.zeros((1, 2))]
)
def test_scores_are_held_to_their_contract(scores):
    class Wrong(LexiconScorer):
        def score(self, texts):
            return scores.astype(np.float32)

    with pytest.raises(ValueError, match="lexicon gave scores"):
        checked_scores(Wrong(), ["a"])
