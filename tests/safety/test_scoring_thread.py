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


def test_texts_that_wait_are_scored_together_and_equal_ones_once():
    async def run(thread):
        scorer.may_go.clear()
        first = thread.submit("first")
        while thread.waiting:  # the scorer holds it
            await asyncio.sleep(0)
        rest = [thread.submit(text) for text in ("bad a", "b", "bad a", "c")]
        scorer.may_go.set()
        return [(await each)[0] for each in (first, *rest)]

    scorer = LexiconScorer(WORDS)
    with running(scorer) as thread:
        scores = asyncio.run(run(thread))
    assert np.allclose(scores, [0.01, 0.9, 0.01, 0.9, 0.01])
    assert scorer.batches == [["first"], ["bad a", "b", "c"]]


def test_one_bad_text_costs_its_neighbours_nothing(caplog):
    async def run(thread):
        return await asyncio.gather(
            *(thread.submit(text) for text in ("a", "poison", "bad")), return_exceptions=True
        )

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
        first = thread.submit("a")
        while thread.waiting:
            await asyncio.sleep(0)
        waiting = [thread.submit(str(i)) for i in range(3)]
        with pytest.raises(UnscoredError, match="lags 3 texts behind"):
            await thread.submit("one more")
        scorer.may_go.set()
        await asyncio.gather(first, *waiting)

    scorer = LexiconScorer()
    with running(scorer, max_waiting=3) as thread:
        asyncio.run(run(thread))


def test_what_waits_when_it_is_closed_is_told():
    async def run(thread):
        scorer.may_go.clear()
        first = thread.submit("a")
        while thread.waiting:
            await asyncio.sleep(0)
        second = thread.submit("b")
        closing = asyncio.create_task(asyncio.to_thread(thread.close))
        with pytest.raises(UnscoredError, match="ended"):
            await second
        scorer.may_go.set()
        await closing
        await first
        with pytest.raises(UnscoredError, match="ended"):
            await thread.submit("c")

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
