from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.tiny import MODEL_NAME

BODY = {"model": MODEL_NAME, "prompt": "It was", "max_tokens": 5, "ignore_eos": True}


def read(http):
    response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_requests_latencies_and_tokens_are_counted(http):
    before = read(http)
    for body in (BODY, {**BODY, "stream": True}, {**BODY, "n": 2}):
        assert http.post("/v1/completions", json=body).status_code == 200
    http.post("/v1/completions", json={**BODY, "max_tokens": 10_000})
    after = read(http)

    def gained(*key):
        return after[key] - before[key]

    assert gained("talipot_requests_total", "length") == 4
    assert gained("talipot_requests_total", "invalid") == 1
    assert gained("talipot_generated_tokens_total") == 20
    assert gained("talipot_prompt_tokens_total") > 0
    assert gained("talipot_time_to_first_token_seconds_count") == 4
    assert gained("talipot_time_per_output_token_seconds_count") == 4
    assert gained("talipot_time_per_output_token_seconds_sum") > 0


def test_the_engines_state_is_shown(http):
    found = read(http)
    assert found["talipot_requests_running",] == 0
    assert found["talipot_queue_depth",] == 0
    assert found["talipot_kv_tokens_used",] == 0
    assert found["talipot_kv_tokens_capacity",] > 0
    assert found["talipot_compilations_total",] > 0
    assert found["talipot_recompilations_after_ready_total",] == 0
    assert found["talipot_drafted_tokens_total",] >= found["talipot_accepted_tokens_total",] >= 0


def test_prompt_tokens_found_in_the_cache_are_counted(http):
    body = {**BODY, "prompt": list(range(100, 200))}
    http.post("/v1/completions", json=body)
    before = read(http)
    http.post("/v1/completions", json=body)
    after = read(http)
    gained = {key[0]: after[key] - before[key] for key in after if len(key) == 1}
    # By pages where this machine rounds all chunks alike, else by whole chunks.
    assert gained["talipot_prefix_cache_hit_tokens_total"] in (96, 64)
    assert gained["talipot_prefill_tokens_total"] == 99
    assert after["talipot_kv_tokens_findable",] >= 64
