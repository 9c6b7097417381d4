"""What a request gains, step by step: tokens, scores, reasons to end, deadlines, refusals."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from model.checkpoint import Pretrained
from serving.core import EngineCore
from serving.errors import ContextLengthError, OverloadedError, RequestError
from tests.serving.conftest import CONTEXT, ENGINE
from tests.serving.stepping import Driver, request, run_alone

PROMPT = tuple(range(40, 65))  # two chunks
MAX_LOGPROB_DIFFERENCE = 1e-5


def token_logprobs(pretrained: Pretrained, token_ids: tuple[int, ...]) -> np.ndarray:
    """float64[T, V], from a whole forward pass without a cache."""
    logits = np.asarray(pretrained.logits(np.asarray([token_ids], np.int32)), np.float64)[0]
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_greedy_tokens_are_the_argmax_of_the_whole_forward_pass(core, pretrained):
    output = run_alone(core, request(prompt=PROMPT, max_tokens=20))
    logprobs = token_logprobs(pretrained, PROMPT + output.token_ids)
    best = logprobs[len(PROMPT) - 1 : -1].argmax(-1)
    assert output.token_ids == tuple(best.tolist())
    assert (output.finish_reason, output.usage.completion_tokens) == ("length", 20)


def test_logprobs_are_those_of_the_whole_forward_pass(core, pretrained):
    output = run_alone(core, request(prompt=PROMPT, max_tokens=8, logprobs=3, prompt_logprobs=2))
    expected = token_logprobs(pretrained, PROMPT + output.token_ids)
    found = (output.prompt_logprobs or ())[1:] + (output.logprobs or ())
    first, *_ = output.prompt_logprobs or ()
    assert (first.token_id, first.logprob, first.top) == (PROMPT[0], None, ())
    for row, token in zip(expected, found, strict=False):
        assert token.logprob == pytest.approx(row[token.token_id], abs=MAX_LOGPROB_DIFFERENCE)
        best = np.sort(row)[::-1][: len(token.top)]
        np.testing.assert_allclose(
            [value for _, value in token.top], best, atol=MAX_LOGPROB_DIFFERENCE
        )
    assert len(found) == len(PROMPT) - 1 + 8


def test_text_is_what_the_tokens_say(core, tokenizer):
    output = run_alone(core, request(max_tokens=30, temperature=1.0, seed=4))
    assert output.text == tokenizer.decode(list(output.token_ids))


def test_echo_puts_the_prompt_first(core, tokenizer):
    prompt = tuple(tokenizer.encode("It was the"))
    asked = dataclasses.replace(request(prompt=prompt, max_tokens=5), echo=True)
    plain = run_alone(core, dataclasses.replace(asked, echo=False))
    assert run_alone(core, asked).text == "It was the" + plain.text


def test_a_stop_token_ends_and_is_not_text(core, tokenizer):
    free = run_alone(core, request(max_tokens=12, temperature=1.0, seed=1))
    stop = free.token_ids[5]
    stopped = run_alone(
        core, request(max_tokens=12, temperature=1.0, seed=1, stop_token_ids=(stop,))
    )
    count = free.token_ids.index(stop) + 1
    assert stopped.token_ids == free.token_ids[:count]
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", stop)
    assert stopped.text == tokenizer.decode(list(free.token_ids[: count - 1]))


def test_the_end_of_document_token_ends_unless_ignored(core):
    eod = core.tokenizer.eos_ids[0]
    bias = {eod: 100.0}
    ended = run_alone(core, request(max_tokens=5, logit_bias=bias, ignore_eos=False))
    assert (ended.token_ids, ended.finish_reason, ended.stop_reason) == ((eod,), "stop", None)
    ignored = run_alone(core, request(max_tokens=5, logit_bias=bias))
    assert (ignored.token_ids, ignored.finish_reason) == ((eod,) * 5, "length")


def test_min_tokens_holds_the_end_back(core):
    eod = core.tokenizer.eos_ids[0]
    output = run_alone(
        core, request(max_tokens=9, min_tokens=4, logit_bias={eod: 100.0}, ignore_eos=False)
    )
    assert eod not in output.token_ids[:4]
    assert output.token_ids[4:] == (eod,)


def test_a_stop_string_ends_before_itself(core):
    free = run_alone(core, request(max_tokens=30, temperature=1.0, seed=2))
    stop = free.text[10:13]
    stopped = run_alone(core, request(max_tokens=30, temperature=1.0, seed=2, stop=(stop,)))
    assert stopped.text == free.text[: free.text.index(stop)]
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", stop)


def test_scoring_alone_generates_nothing(core):
    output = run_alone(core, request(prompt=PROMPT, max_tokens=0, prompt_logprobs=0))
    assert (output.finish_reason, output.token_ids, output.text) == ("length", (), "")
    assert len(output.prompt_logprobs or ()) == len(PROMPT)


def test_nothing_to_compute_ends_at_the_next_step(core):
    output = run_alone(core, request(prompt=(7,), max_tokens=0, prompt_logprobs=0))
    assert (output.finish_reason, len(output.prompt_logprobs or ())) == ("length", 1)
    assert core.stats().running == 0


def test_an_abort_gives_out_what_there_is_and_frees_the_slot_in_one_step(core):
    driver = Driver(core)
    sequence = driver.submit(request(max_tokens=40))
    for _ in range(5):
        driver.step()
    core.abort(sequence)
    driver.step()
    output = driver.output("a")
    # A step gives out what the step before it computed.
    assert (output.finish_reason, len(output.token_ids)) == ("abort", 4)
    assert (core.stats().running, core.stats().aborted_total) == (0, 1)


def test_an_abort_while_waiting_never_runs(core):
    driver = Driver(core)
    for index in range(ENGINE.max_slots):
        driver.submit(request(f"{index}", max_tokens=5))
    waiting = driver.submit(request("waits", max_tokens=5))
    driver.step()
    core.abort(waiting)
    core.abort(waiting)
    driver.run()
    assert driver.output("waits").token_ids == ()
    assert driver.output("0").finish_reason == "length"


def test_a_late_abort_does_not_reach_the_next_request_of_that_id(core):
    driver = Driver(core)
    ended = driver.submit(request(max_tokens=1))
    driver.run()
    driver.deltas.clear()
    driver.submit(request(max_tokens=3))
    core.abort(ended)
    driver.run()
    assert driver.output("a").finish_reason == "length"


def test_a_deadline_ends_a_request_with_what_it_has(core):
    driver = Driver(core)
    driver.submit(dataclasses.replace(request(max_tokens=5), deadline_s=0.0))
    driver.submit(dataclasses.replace(request("b", max_tokens=5), deadline_s=1000.0))
    driver.run()
    late, early = driver.output("a"), driver.output("b")
    assert (late.finish_reason, late.stop_reason) == ("abort", "deadline")
    assert early.finish_reason == "length"


def test_a_deadline_that_passes_in_the_queue_ends_the_request_without_a_step(core):
    driver = Driver(core)
    for index in range(ENGINE.max_slots):
        driver.submit(request(f"{index}", max_tokens=5))
    driver.submit(dataclasses.replace(request("waits", max_tokens=5), deadline_s=0.0))
    driver.step()
    late = driver.output("waits")
    assert (late.finish_reason, late.stop_reason, late.token_ids) == ("abort", "deadline", ())
    assert core.stats().queued == 0
    driver.run()
    assert driver.output("0").finish_reason == "length"


def test_a_slot_is_reused_in_the_step_after_the_last_of_the_request_that_had_it(core):
    driver = Driver(core)
    for index in range(ENGINE.max_slots):
        driver.submit(request(f"{index}", max_tokens=4 + index))
    driver.submit(request("waits", max_tokens=2))
    for _ in range(4):
        driver.step()
    assert core.stats().queued == 1
    driver.step()
    # The fifth step gives out what the fourth computed, and computes for the next already.
    assert driver.deltas["0"][-1].finish_reason
    assert core.stats().queued == 0
    driver.step()
    assert driver.deltas["waits"]


def test_a_stop_token_frees_the_slot_one_step_late_and_the_extra_token_is_dropped(core):
    free = run_alone(core, request(max_tokens=12, temperature=1.0, seed=1))
    stop = free.token_ids[5]
    driver = Driver(core)
    driver.submit(request(max_tokens=12, temperature=1.0, seed=1, stop_token_ids=(stop,)))
    while core.find("a") is not None:
        driver.step()
    assert core.stats().running == 0
    driver.run()
    assert driver.output("a").token_ids[-1] == stop


def test_a_shared_prefix_is_found_and_changes_nothing(core):
    asked = [request(f"{i}", prompt=(*PROMPT, 80 + i), max_tokens=6, seed=i) for i in range(2)]
    alone = [run_alone(core, each) for each in asked]
    before = core.stats().cached_tokens_total
    assert [run_alone(core, each) for each in asked] == alone
    assert core.stats().cached_tokens_total - before == 2 * (len(PROMPT) // 4 * 4)


def test_a_request_that_gives_its_pages_up_ends_with_the_same_tokens(runner, tokenizer):
    settings = {"temperature": 1.0, "frequency_penalty": 0.5, "min_tokens": 9, "logprobs": 1}
    asked = [
        request(f"{i}", prompt=tuple(range(30 + i, 44 + i)), max_tokens=40, seed=i, **settings)
        for i in range(3)
    ]
    alone = [run_alone(EngineCore(runner, tokenizer, ENGINE), each) for each in asked]
    # Pages for one whole context and a little: three requests outgrow them again and again.
    core = EngineCore(runner, tokenizer, dataclasses.replace(ENGINE, kv_pages=20))
    driver = Driver(core)
    for each in asked:
        driver.submit(each)
    driver.run()
    assert core.stats().preemptions_total > 0
    assert [driver.output(each.request_id) for each in asked] == alone


def test_steps_that_overlap_are_not_counted_twice_in_the_throughput(core):
    driver = Driver(core)
    started = time.perf_counter()
    driver.submit(request(max_tokens=40))
    driver.run()
    elapsed = time.perf_counter() - started
    # Clients that are refused wait for the queue at this rate.
    assert core._scheduler.throughput.tokens_per_s >= 42 / elapsed


def test_a_used_id_is_refused_and_the_first_request_goes_on(core):
    driver = Driver(core)
    driver.submit(request(max_tokens=3))
    with pytest.raises(RequestError, match="request_id='a'"):
        driver.submit(request(max_tokens=3))
    driver.run()
    assert driver.output("a").finish_reason == "length"


def test_a_full_queue_refuses_and_says_when_to_come_back(runner, tokenizer):
    config = dataclasses.replace(ENGINE, max_queued_requests=2)
    driver = Driver(EngineCore(runner, tokenizer, config))
    for index in range(config.max_slots + 2):
        driver.submit(request(f"{index}", max_tokens=2))
    with pytest.raises(OverloadedError, match="max_queued_requests") as refused:
        driver.submit(request("last", max_tokens=2))
    assert refused.value.retry_after_s >= 1
    driver.run()
    assert len(driver.deltas) == config.max_slots + 2


@pytest.mark.parametrize(
    ("asked", "param", "words"),
    [
        (request(prompt=(400,)), "prompt_token_ids", ["prompt_token_ids[0]=400", "399"]),
        (request(stop_token_ids=(1, 999)), "stop_token_ids", ["stop_token_ids[1]=999", "399"]),
        (request(logit_bias={500: 1.0}), "logit_bias", ["500", "399"]),
        (request(prompt=(5,) * 65, max_tokens=0), "prompt_token_ids", ["65", f"{CONTEXT}"]),
        (request(max_tokens=62), "max_tokens", ["max_tokens=62", f"{CONTEXT}", "3"]),
    ],
)
def test_what_the_model_cannot_run_is_refused_by_name(core, asked, param, words):
    with pytest.raises(RequestError) as refused:
        core.prepare(asked)
    assert refused.value.param == param
    for word in words:
        assert word in str(refused.value)


def test_the_whole_context_can_be_used(core):
    output = run_alone(core, request(prompt=(9,) * 3, max_tokens=CONTEXT - 3))
    assert len(output.token_ids) == CONTEXT - 3
    with pytest.raises(ContextLengthError):
        core.prepare(request(prompt=(9,) * 4, max_tokens=CONTEXT - 3))
