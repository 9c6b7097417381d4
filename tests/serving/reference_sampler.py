"""The sampler once more, in NumPy, float64 and one row at a time, written from the definitions."""

import numpy as np

from serving.request import SamplingParams


def adjusted(
    logits: np.ndarray,
    params: SamplingParams,
    *,
    prompt: tuple[int, ...] = (),
    generated: tuple[int, ...] = (),
    stops: frozenset[int] = frozenset(),
) -> np.ndarray:
    result = logits.astype(np.float64)
    for token in set(prompt) | set(generated):
        penalty = params.repetition_penalty
        result[token] = result[token] / penalty if result[token] > 0 else result[token] * penalty
    for token in set(generated):
        result[token] -= params.presence_penalty
        result[token] -= params.frequency_penalty * generated.count(token)
    for token, bias in params.logit_bias.items():
        result[token] += bias
    if len(generated) < params.min_tokens:
        result[list(stops)] = -np.inf
    return result


def probabilities(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """float64[V]: what is drawn from, at a temperature above 0."""
    p = softmax(logits.astype(np.float64) / params.temperature)
    if params.top_k:
        p = np.where(p >= np.sort(p)[::-1][min(params.top_k, len(p)) - 1], p, 0)
        p /= p.sum()
    if params.top_p < 1:
        order = np.argsort(-p, kind="stable")
        mass_before = np.cumsum(p[order]) - p[order]
        kept = order[(mass_before < params.top_p) | (np.arange(len(p)) == 0)]
        p = np.where(p >= p[kept].min(), p, 0)
        p /= p.sum()
    p = np.where(p >= params.min_p * p.max(), p, 0)
    return p / p.sum()


def softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def log_softmax(values: np.ndarray) -> np.ndarray:
    shifted = values.astype(np.float64) - values.max()
    return shifted - np.log(np.exp(shifted).sum())
