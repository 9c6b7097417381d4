import pytest

from api.service import CompletionCall, derived_seed, total_usage
from serving.errors import RequestError
from serving.request import SamplingParams, Usage


def test_the_first_candidate_has_the_callers_seed_and_the_others_differ():
    seeds = [derived_seed(7, candidate) for candidate in range(100)]
    assert seeds[0] == 7
    assert len(set(seeds)) == 100
    assert seeds == [derived_seed(7, candidate) for candidate in range(100)]
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_of_the_same_64_bits_are_the_same_seed():
    assert derived_seed(-1, 3) == derived_seed(2**64 - 1, 3)


def test_a_prompt_is_counted_once_for_all_its_candidates():
    usages = [Usage(prompt_tokens=p, completion_tokens=2) for p in (3, 3, 5, 5)]
    assert total_usage(usages, 2) == Usage(prompt_tokens=8, completion_tokens=8)


def test_best_of_is_at_least_n():
    with pytest.raises(RequestError, match="best_of=2 must be at least n=3"):
        CompletionCall(model="m", prompts=("x",), params=SamplingParams(), n=3, best_of=2)
