"""The transformer once more, in float64 NumPy and as plainly as it can be said: an independent check of
goldens and names.

It shares nothing with jaxrl/model but the parameter tree and ModelConfig.
"""

import numpy as np


def logits(model, config, tokens, lora=None, lora_scale=0.0):
    """tokens [B, T] -> logits [B, T, V]; `model` and `lora` as in jaxrl's trees."""
    x = _f64(model["embed"]["kernel"])[tokens]
    adapters = {} if lora is None else lora["layers"]
    for i in range(config.num_layers):
        layer = {
            name: {key: _f64(leaf[i]) for key, leaf in module.items()}
            for name, module in model["layers"].items()
        }
        for name, adapter in adapters.items():
            delta = lora_scale * _f64(adapter["lora_a"][i]) @ _f64(adapter["lora_b"][i])
            layer[name]["kernel"] = layer[name]["kernel"] + delta
        x = x + _attention(layer, config, _norm(x, layer["attn_norm"], config.rms_eps))
        h = _norm(x, layer["mlp_norm"], config.rms_eps)
        gate = _linear(h, layer["gate"])
        x = x + _linear(gate / (1 + np.exp(-gate)) * _linear(h, layer["up"]), layer["down"])
    head = model["embed" if config.tie_embeddings else "head"]["kernel"]
    return _norm(x, {"scale": _f64(model["norm"]["scale"])}, config.rms_eps) @ _f64(head).T


def _attention(layer, config, h):
    B, T, _ = h.shape
    q, k, v = (_linear(h, layer[name]).reshape(B, T, -1, config.head_dim) for name in "qkv")
    if config.qk_norm:
        q, k = _norm(q, layer["q_norm"], config.rms_eps), _norm(k, layer["k_norm"], config.rms_eps)
    q, k = _rotate(q, config), _rotate(k, config)
    out = np.zeros_like(q)
    for n in range(config.num_heads):
        shared = n // (config.num_heads // config.num_kv_heads)
        scores = q[:, :, n] @ k[:, :, shared].transpose(0, 2, 1) / np.sqrt(config.head_dim)  # [B, T, T]
        scores = np.where(np.tril(np.ones((T, T), bool)), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, :, n] = weights / weights.sum(-1, keepdims=True) @ v[:, :, shared]
    return _linear(out.reshape(B, T, -1), layer["o"])


def _rotate(x, config):
    """Features i and i + H/2 are the two coordinates of a point, turned by position * frequency_i."""
    half = config.head_dim // 2
    turned = np.empty_like(x)
    for i in range(half):
        angle = np.arange(x.shape[1])[None, :, None] * _frequency(config, i)
        a, b = x[..., i], x[..., i + half]
        turned[..., i] = a * np.cos(angle) - b * np.sin(angle)
        turned[..., i + half] = b * np.cos(angle) + a * np.sin(angle)
    return turned


def _frequency(config, i):
    frequency, s = config.rope_theta ** (-2 * i / config.head_dim), config.rope_scaling
    if s is None:
        return frequency
    if s.kind == "linear":
        return frequency / s.factor
    wavelength = 2 * np.pi / frequency
    if wavelength < s.original_max_positions / s.high_freq_factor:
        return frequency
    if wavelength > s.original_max_positions / s.low_freq_factor:
        return frequency / s.factor
    smooth = (s.original_max_positions / wavelength - s.low_freq_factor) / (
        s.high_freq_factor - s.low_freq_factor
    )
    return (1 - smooth) * frequency / s.factor + smooth * frequency


def _linear(x, module):
    return x @ module["kernel"] + module.get("bias", 0.0)


def _norm(x, module, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * module["scale"]


def _f64(leaf):
    return np.asarray(leaf).astype(np.float64)
