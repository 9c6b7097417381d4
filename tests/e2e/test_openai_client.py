"""The official client, unmodified."""

import asyncio

import openai
import pytest

from tests.e2e.tiny import MODEL_NAME


def complete(client, prompt="It was the best of", **fields):
    return client.completions.create(model=MODEL_NAME, prompt=prompt, **fields)


def test_a_completion_has_openais_shape(client):
    answer = complete(client, max_tokens=5, temperature=0, extra_body={"ignore_eos": True})
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    assert answer.model == MODEL_NAME
    (choice,) = answer.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert answer.usage.completion_tokens == 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5
    assert answer._request_id


def test_streaming_gives_the_same_text(client):
    fields = {"max_tokens": 24, "seed": 7, "extra_body": {"ignore_eos": True}}
    whole = complete(client, **fields)
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}, **fields))
    assert "".join(c.choices[0].text for c in chunks[:-1]) == whole.choices[0].text
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_n_choices_differ_and_repeat_with_a_seed(client):
    fields = {"n": 3, "seed": 5, "max_tokens": 12, "extra_body": {"ignore_eos": True}}
    first, second = complete(client, **fields), complete(client, **fields)
    texts = [choice.text for choice in first.choices]
    assert len(set(texts)) == 3
    assert texts == [choice.text for choice in second.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    alone = complete(client, **{**fields, "n": 1})
    assert alone.choices[0].text == texts[0]


def test_prompts_come_as_texts_or_tokens_alone_or_in_lists(client, http):
    texts = ["It was", "the age of wisdom"]
    tokens = [http.post("/tokenize", json={"prompt": t}).json()["tokens"] for t in texts]
    fields = {"max_tokens": 6, "temperature": 0, "extra_body": {"ignore_eos": True}}
    alone = [complete(client, text, **fields).choices[0].text for text in texts]
    assert [c.text for c in complete(client, texts, **fields).choices] == alone
    assert [c.text for c in complete(client, tokens, **fields).choices] == alone
    assert complete(client, tokens[0], **fields).choices[0].text == alone[0]


def test_streams_of_several_choices_carry_their_index(client):
    fields = {"max_tokens": 8, "n": 2, "seed": 1, "extra_body": {"ignore_eos": True}}
    whole = complete(client, ["It was", "wisdom"], **fields)
    texts = dict.fromkeys(range(4), "")
    for chunk in complete(client, ["It was", "wisdom"], stream=True, **fields):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert list(texts.values()) == [choice.text for choice in whole.choices]


def test_echo_and_logprobs(client, http):
    prompt = "It was the best of times"
    tokens = http.post("/tokenize", json={"prompt": prompt}).json()["tokens"]
    answer = complete(
        client, prompt, max_tokens=4, temperature=0, echo=True, logprobs=2,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    (choice,) = answer.choices
    found = choice.logprobs
    assert choice.text.startswith(prompt)
    assert len(found.tokens) == len(tokens) + 4
    assert "".join(found.tokens[: len(tokens)]) == prompt
    assert found.token_logprobs[0] is None
    assert found.top_logprobs[0] is None
    assert all(value <= 0 for value in found.token_logprobs[1:])
    for offset, text in zip(found.text_offset, found.tokens, strict=True):
        if not text.startswith("bytes:"):
            assert choice.text[offset : offset + len(text)] == text
    # Greedy: each generated token is the likeliest.
    for text, value, top in list(
        zip(found.tokens, found.token_logprobs, found.top_logprobs, strict=True)
    )[-4:]:
        assert value == max(top.values()) == top[text]


def test_streamed_logprobs_are_those_of_the_whole(client):
    fields = {"max_tokens": 10, "seed": 3, "logprobs": 1, "echo": True}
    found = complete(client, **fields).choices[0].logprobs
    parts = [chunk.choices[0].logprobs for chunk in complete(client, stream=True, **fields)]
    for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        joined = [item for part in parts if part is not None for item in getattr(part, field)]
        assert joined == getattr(found, field)


def test_echo_without_tokens_scores_the_prompt(client):
    answer = complete(client, max_tokens=0, echo=True, logprobs=1)
    assert answer.choices[0].text == "It was the best of"
    assert answer.usage.completion_tokens == 0
    assert answer.choices[0].finish_reason == "length"


def test_a_stop_text_ends_the_completion(client):
    whole = complete(client, max_tokens=30, temperature=0, extra_body={"ignore_eos": True})
    text = whole.choices[0].text
    stop = text[len(text) // 2 : len(text) // 2 + 2]
    for stream in (False, True):
        answer = complete(
            client, max_tokens=30, temperature=0, stop=[stop], stream=stream,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
        assert "".join(choice.text for choice in choices) == text[: text.index(stop)]
        assert choices[-1].finish_reason == "stop"
        assert choices[-1].stop_reason == stop


def test_best_of_returns_the_likeliest(client):
    fields = {"max_tokens": 6, "seed": 11, "extra_body": {"ignore_eos": True}}
    every = complete(client, n=4, logprobs=0, **fields)
    best = complete(client, n=1, best_of=4, **fields)
    mean = {c.text: sum(c.logprobs.token_logprobs) / 6 for c in every.choices}
    assert best.choices[0].text == max(mean, key=mean.__getitem__)
    assert best.choices[0].logprobs is None
    assert best.usage.completion_tokens == 24


def test_an_empty_prompt_begins_a_document(client):
    answer = complete(client, "", max_tokens=3, extra_body={"ignore_eos": True})
    assert answer.usage.prompt_tokens == 1


def test_models_are_listed_and_described(client):
    assert [model.id for model in client.models.list()] == [MODEL_NAME]
    assert client.models.retrieve(MODEL_NAME).owned_by == "talipot"
    with pytest.raises(openai.NotFoundError, match="other"):
        client.models.retrieve("other")


def test_errors_are_openais(client):
    with pytest.raises(openai.BadRequestError) as refused:
        complete(client, temperature=-1)
    assert refused.value.param == "temperature"
    assert "-1" in refused.value.body["message"]
    with pytest.raises(openai.NotFoundError) as unknown:
        client.completions.create(model="other", prompt="x")
    assert unknown.value.code == "model_not_found"


def test_concurrent_requests_answer_as_if_alone(server, client):
    fields = {"max_tokens": 12, "extra_body": {"ignore_eos": True}}
    alone = [complete(client, f"It was {i}", seed=i, **fields).choices[0].text for i in range(12)]

    async def together():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as found:
            answers = await asyncio.gather(
                *(
                    found.completions.create(
                        model=MODEL_NAME, prompt=f"It was {i}", seed=i, **fields
                    )
                    for i in range(12)
                )
            )
        return [answer.choices[0].text for answer in answers]

    assert asyncio.run(together()) == alone
