"""mlx-lm's own functions with packed caches, on SmolLM2, beside what they do with mlx-lm's dense cache."""

import copy

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.generate import BatchGenerator, generate_step, speculative_generate_step, stream_generate
from mlx_lm.models import cache as mlx_lm_cache
from oracle_cache import OracleCache

import turboquant_cpp.mlx as tq

PROMPTS = (
    "What is the capital of France?",
    "Count from one to ten, in words, separated by commas.",
    "Name three colors.",
    "The quick brown fox jumps over the lazy dog. Write the sentence again.",
)


def chat_tokens(tokenizer, text):
    return tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)


def greedy(model, prompt, n, cache=None, **options):
    steps = generate_step(mx.array(prompt), model, max_tokens=n, prompt_cache=cache, **options)
    return [int(token) for token, _ in steps]


def dense_cache(model):
    return [mlx_lm_cache.KVCache() for _ in model.layers]


@pytest.mark.parametrize("preset", ["k4v4", "fast"])
def test_tokens_are_libturboquants(smollm2, preset):
    model, tokenizer = smollm2
    prompt = chat_tokens(tokenizer, PROMPTS[1])
    alone = greedy(model, prompt, 32, [OracleCache(preset) for _ in model.layers])
    tq.enable(model, preset)
    assert greedy(model, prompt, 32) == alone


def test_generate_like_the_dense_cache(smollm2):
    model, tokenizer = smollm2
    for preset, prompt in zip(("lossless", "fast"), PROMPTS[1:]):
        wanted = greedy(model, chat_tokens(tokenizer, prompt), 20, dense_cache(model))
        tq.enable(model, preset)
        assert greedy(model, chat_tokens(tokenizer, prompt), 20) == wanted, preset


def test_the_programs_way(smollm2):
    model, tokenizer = smollm2
    tq.enable(model, "fast")
    text = "".join(r.text for r in stream_generate(model, tokenizer, chat_tokens(tokenizer, PROMPTS[0]), max_tokens=12))
    assert text == "The capital of France is Paris."


def test_chunks_of_a_prompt_do_not_matter(small):
    model, tokenizer = small
    tq.enable(model, "fast")
    prompt = chat_tokens(tokenizer, PROMPTS[3])
    assert greedy(model, prompt, 8, prefill_step_size=7) == greedy(model, prompt, 8)


# ---- prompt caches in files


def prefill(model, tokens, cache):
    for _ in generate_step(mx.array(tokens), model, max_tokens=0, prompt_cache=cache):
        pass
    return cache


def saved(tmp_path, cache, name="prompt.safetensors"):
    mlx_lm_cache.save_prompt_cache(str(tmp_path / name), cache, {"model": "SmolLM2"})
    return str(tmp_path / name)


@pytest.mark.parametrize("preset", ["k4v4", "fast"])
def test_a_restored_cache_keeps_its_history(small, tmp_path, preset):
    model, tokenizer = small
    tq.enable(model, preset)
    prompt = chat_tokens(tokenizer, PROMPTS[1])
    whole = greedy(model, prompt, 16)
    cache = prefill(model, prompt[:-1], mlx_lm_cache.make_prompt_cache(model))
    mlx_lm_cache.trim_prompt_cache(cache, cache[0].offset - (len(prompt) - 1))
    file = saved(tmp_path, cache)
    restored, metadata = mlx_lm_cache.load_prompt_cache(file, return_metadata=True)
    assert metadata["model"] == "SmolLM2" and isinstance(restored[0], tq.TurboQuantKVCache)
    assert restored[0].offset == len(prompt) - 1
    assert greedy(model, prompt[-1:], 16, restored) == whole
    if preset == "k4v4":  # one block of 64 cells
        values = len(model.layers) * 2 * 192 * 64
        assert sum(c.nbytes for c in mlx_lm_cache.load_prompt_cache(file)) == values * 4.1875 / 8


def test_an_empty_cache_is_saved_and_loaded(tmp_path):
    file = saved(tmp_path, [tq.TurboQuantKVCache("k4v4", layer=3)])
    (restored,) = mlx_lm_cache.load_prompt_cache(file)
    assert restored.empty() and restored.settings.preset == "k4v4" and restored.settings.layer == 3


def test_a_saved_cache_that_does_not_fit_names_the_field(small, tmp_path):
    cache = tq.TurboQuantKVCache("k4v4")
    cache.update_and_fetch(mx.ones((1, 2, 70, 64)), mx.ones((1, 2, 70, 64)))
    for field, value in (
        ("format", 99),
        ("library_format", 99),
        ("keys_fingerprint", "0123456789abcdef"),
        ("values_fingerprint", "0123456789abcdef"),
        ("keys' bytes a record", None),
    ):
        state = cache.state
        if field == "format":
            state["format"] = value
        elif value is None:
            state["packed"]["keys"] = state["packed"]["keys"][:, :, :64]
        else:
            state["packed"][field] = value
        with pytest.raises(tq.PromptCacheMismatch) as caught:
            tq.TurboQuantKVCache.from_state(state)
        assert caught.value.field == field
    with pytest.raises(tq.PromptCacheMismatch, match="n_head_kv is 3; expected 2"):  # another model's
        small[0](mx.array([[1]]), cache=[cache] * 4)


# ---- taking tokens back


def test_trim_and_go_on(small):
    model, tokenizer = small
    tq.enable(model, "k4v4")
    prompt = chat_tokens(tokenizer, PROMPTS[0])
    whole = greedy(model, prompt, 8)
    cache = prefill(model, prompt[:-1] + chat_tokens(tokenizer, PROMPTS[1]), mlx_lm_cache.make_prompt_cache(model))
    too_many = cache[0].offset - (len(prompt) - 1)
    assert mlx_lm_cache.can_trim_prompt_cache(cache) and mlx_lm_cache.trim_prompt_cache(cache, too_many) == too_many
    assert greedy(model, prompt[-1:], 8, cache) == whole


def test_speculative_decoding(small):
    model, tokenizer = small
    tq.enable(model, "fast")
    prompt = mx.array(chat_tokens(tokenizer, PROMPTS[1]))
    plain = greedy(model, prompt, 16)
    main, draft = tq.make_prompt_cache(model, "fast"), tq.make_prompt_cache(model, "k2v2")  # drafts are often wrong
    steps = speculative_generate_step(prompt, model, model, num_draft_tokens=3, max_tokens=16, prompt_cache=main + draft)
    tokens = [(int(token), from_draft) for token, _, from_draft in steps]
    assert [token for token, _ in tokens] == plain
    assert any(from_draft for _, from_draft in tokens)


def test_lru_prompt_cache(small):
    model, tokenizer = small
    tq.enable(model, "k4v4")
    lru = mlx_lm_cache.LRUPromptCache(max_size=4)
    base = chat_tokens(tokenizer, PROMPTS[2])
    cache = prefill(model, base, mlx_lm_cache.make_prompt_cache(model))
    mlx_lm_cache.trim_prompt_cache(cache, cache[0].offset - len(base))
    lru.insert_cache("m", base, cache)
    assert lru.nbytes == sum(c.nbytes for c in cache)
    wanted = greedy(model, base + base[:4], 8)
    for _ in range(2):  # the second time the stored one must still be what it was
        found, rest = lru.fetch_nearest_cache("m", base + base[:4])
        assert rest == base[:4] and found[0].offset == len(base)
        assert greedy(model, rest, 8, found) == wanted
    found, rest = lru.fetch_nearest_cache("m", base[:-3] + [7, 8])  # a longer one is trimmed
    assert rest == [7, 8] and found[0].offset == len(base) - 3


def test_copies_go_their_own_ways():
    """Copies share memory until both have written; the first to append does so in place."""
    first = tq.TurboQuantKVCache("k4v4")
    rng = np.random.default_rng(0)
    new = [mx.array(rng.standard_normal((1, 2, n, 64)).astype(np.float32)) for n in (100, 3, 3)]
    first.update_and_fetch(new[0], new[0])
    mx.eval(first.packed.arrays)
    second = copy.deepcopy(first)
    alone = tq.TurboQuantKVCache("k4v4")
    for rows in (new[0], new[2]):
        alone.update_and_fetch(rows, rows)
    first.update_and_fetch(new[1], new[1])
    second.update_and_fetch(new[2], new[2])
    dense = [c.packed.dense("keys", 103, mx.float32) for c in (first, second, alone)]
    assert mx.array_equal(dense[1], dense[2]) and not mx.array_equal(dense[0], dense[1])
    assert mx.array_equal(dense[0][:, :, :100], dense[1][:, :, :100])


# ---- several sequences


def test_batch_generator_with_ragged_prompts(small):
    model, tokenizer = small
    tq.enable(model, "fast")
    prompts = [chat_tokens(tokenizer, p) for p in PROMPTS]
    alone = [greedy(model, p, 12) for p in prompts]
    batch = BatchGenerator(model, max_tokens=12, completion_batch_size=4, prefill_batch_size=3, prefill_step_size=16)
    uids = batch.insert(prompts)
    tokens, caches = {uid: [] for uid in uids}, {}
    while any(uid not in caches for uid in uids):
        _, responses = batch.next()
        for r in responses:
            tokens[r.uid].append(int(r.token))
            if r.finish_reason:
                caches[r.uid] = r.prompt_cache
    assert [tokens[uid] for uid in uids] == alone
    for uid, prompt in zip(uids, prompts):  # what is extracted from the batch goes on by itself
        assert isinstance(caches[uid][0], tq.TurboQuantKVCache)
        assert len(prompt) <= caches[uid][0].offset <= len(prompt) + 12


def test_batches_are_cut_and_joined():
    def filled(n, seed):
        cache = tq.TurboQuantKVCache("fast")
        rows = mx.array(np.random.default_rng(seed).standard_normal((1, 2, n, 64)).astype(np.float32))
        cache.update_and_fetch(rows, rows)
        return cache

    def dense(cache):
        return cache.packed.dense("keys", cache.size(), mx.float32)

    singles = [filled(n, n) for n in (5, 130, 64)] + [tq.TurboQuantKVCache("fast")]
    batch = singles[0].merge(singles)
    assert batch.offset.tolist() == [5, 130, 64, 0] and batch.size() == 130
    batch.filter([1, 2])
    batch.extend(tq.BatchTurboQuantKVCache.merge([filled(300, 300)]))
    assert batch.offset.tolist() == [130, 64, 300]
    for i, n in enumerate((130, 64, 300)):
        assert mx.array_equal(dense(batch.extract(i)), dense(filled(n, n)))
    restored = tq.BatchTurboQuantKVCache.from_state(batch.state)
    assert restored.offset.tolist() == [130, 64, 300] and mx.array_equal(dense(restored), dense(batch))
    with pytest.raises(ValueError, match="caches of presets fast and k4v4 cannot be in one batch"):
        batch.extend(tq.BatchTurboQuantKVCache.merge([tq.TurboQuantKVCache("k4v4")]))


def test_left_padding():
    """Who pads at the left has padding in cells, which the mask hides and extract() drops."""
    rng = np.random.default_rng(0)
    rows = mx.array(rng.standard_normal((2, 2, 10, 64)).astype(np.float32))
    batch = tq.BatchTurboQuantKVCache([0, 0], tq.cache.Settings("k8v8"))
    batch.prepare(left_padding=[4, 0])
    mask = batch.make_mask(10)
    assert batch.offset.tolist() == [-4, 0]
    packed = batch.update_and_fetch(rows, rows)
    out = mx.fast.scaled_dot_product_attention(rows, *packed, scale=0.125, mask=mask)
    assert batch.offset.tolist() == [6, 10]
    single = tq.TurboQuantKVCache("k8v8")
    one = single.update_and_fetch(rows[:1, :, 4:], rows[:1, :, 4:])
    alone = mx.fast.scaled_dot_product_attention(rows[:1, :, 4:], *one, scale=0.125, mask="causal")
    np.testing.assert_allclose(np.array(out[:1, :, 4:]), np.array(alone), atol=0.02)
    assert batch.extract(0).offset == 6 and batch.extract(1).offset == 10


def test_two_presets_side_by_side(small):
    model, tokenizer = small
    tq.enable(model, "fast")
    prompt = chat_tokens(tokenizer, PROMPTS[2])
    wanted = {p: greedy(model, prompt, 6, tq.make_prompt_cache(model, p)) for p in ("k8v8", "k4v4")}
    steps = {
        p: generate_step(mx.array(prompt), model, max_tokens=6, prompt_cache=tq.make_prompt_cache(model, p)) for p in wanted
    }
    together = {p: [] for p in wanted}
    for _ in range(6):
        for p, step in steps.items():
            together[p].append(int(next(step)[0]))
    assert together == wanted
