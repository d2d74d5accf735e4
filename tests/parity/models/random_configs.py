"""Random configurations of every family, amlua against live transformers.

    AMLUA=build/amlua python random_configs.py [--family NAME ...] [--count 20] [--seed 1] [--keep DIR]

Draws valid configurations (heads, windows, layer types, ties, biases, rotary scaling, experts, ...), makes a
tiny random checkpoint of each with transformers, lets amlua compute all of them (random_configs.lua, a process a
family), and compares by models_spec.lua's rules: logits, losses, gradients, three steps of AdamW, greedy tokens with
and without a cache, and that transformers opens what amlua saved with equal tensors. Where the numbers differ by more than is
allowed, transformers computes them in float64 (float64.py): amlua passes if it is no further from these than twice
what transformers' own f32 is, or than they move when weights move by half a unit of f32's last place. Prints a row for each configuration, "ok64" where float64 decided; exit status 1 when any
differs. With --keep, DIR/FAMILY_N/ stays, with drawn.json in it.
"""
import argparse
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile

import families
import float64
import torch
from families import rope
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
torch.set_num_threads(1)
PROJECT = os.path.abspath(os.path.join(HERE, "..", "..", ".."))
# Those of models_spec.lua, which says why.
LOGITS, GRADIENT, FLOOR, STEP, NOISE = 1e-5, 1e-4, 1e-3, 1e-4, 2e-3
# A gradient that is zero but for torch's own rounding (one key in the window, a bias of keys that are not rotated)
# is rounding here too: both are below this part of the model's largest.
NOTHING = 1e-6
MOVED = 8  # times that weights are moved in float64
ZERO = 1e-12  # a gradient that is smaller in float64, as a part of the model's largest, is zero
ROUTER, TOKEN = 1e-4, 1e-4  # leads that rounding cannot turn
NEW = 8
ACTIVATIONS = ["silu", "gelu", "gelu_pytorch_tanh", "gelu_new", "relu"]

# ---- drawing ------------------------------------------------------------------------------------


def log_uniform(r, low, high):
    return math.exp(r.uniform(math.log(low), math.log(high)))


def scaled_rope(r, dim, plain=0.4, partial=None):
    """Rotary parameters of any kind for heads of which `dim` numbers are rotated."""
    more = {"partial_rotary_factor": partial} if partial else {}
    theta = round(log_uniform(r, 20, 1e6), 1)
    if r.random() < plain or dim < 4:
        return rope(theta=theta, **more)
    kind = r.choice(["linear", "dynamic", "yarn", "llama3", "longrope"])
    factor = round(r.uniform(1.1, 9.0), 2)
    if kind == "llama3":
        more.update(low_freq_factor=1.0, high_freq_factor=r.choice([2.0, 4.0]),
                    original_max_position_embeddings=r.choice([8, 16, 32]))
    elif kind == "yarn":
        more.update(original_max_position_embeddings=r.choice([8, 16, 64]))
        if r.random() < 0.5:
            more.update(beta_fast=r.choice([2.0, 8.0]), beta_slow=r.choice([0.25, 1.0]))
        if r.random() < 0.5:
            more["truncate"] = False
        if r.random() < 0.3:
            more["attention_factor"] = round(r.uniform(0.8, 1.4), 3)
        elif r.random() < 0.3:
            more.update(mscale=0.8, mscale_all_dim=0.6)
    elif kind == "longrope":
        more.update(original_max_position_embeddings=r.choice([4, 16, 64]),
                    short_factor=[round(r.uniform(1, 2), 2) for _ in range(dim // 2)],
                    long_factor=[round(r.uniform(1, 9), 2) for _ in range(dim // 2)])
    return rope(kind, theta, factor=factor, **more)


def coin(r, chance=0.5):
    return r.random() < chance


def layer_types(r, layers):
    return [r.choice(families.MIXED) for _ in range(layers)]


def base(r, own_head_dim, activation="hidden_act"):
    """Fields that all families but GPT-2 have; own_head_dim: head_dim is a field of its own."""
    heads = r.choice([1, 2, 3, 4, 6])
    head_dim = r.choice([2, 4, 6, 8, 10, 16])
    hidden = heads * head_dim
    if own_head_dim:
        hidden = heads * r.choice([4, 5, 8, 11])
    elif hidden < 6:
        head_dim, hidden = 8, heads * 8
    f = dict(vocab_size=r.randint(24, 70), hidden_size=hidden, intermediate_size=r.randint(5, 40),
             num_hidden_layers=r.randint(1, 4), num_attention_heads=heads,
             num_key_value_heads=r.choice([k for k in range(1, heads + 1) if heads % k == 0]),
             max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None,
             tie_word_embeddings=coin(r), rms_norm_eps=round(log_uniform(r, 1e-6, 0.1), 8))
    if own_head_dim:
        f["head_dim"] = head_dim
    f[activation] = r.choice(ACTIVATIONS)
    return f, head_dim


def without(fields, *names):
    return {k: v for k, v in fields.items() if k not in names}


def window(r, chance=0.7):
    return r.choice([2, 3, 5, 6, 9, 17]) if coin(r, chance) else None


def partial_of(r, head_dim):
    return r.choice([p for p in (0.25, 0.5, 0.75, 1.0) if head_dim * p >= 2 and head_dim * p % 2 == 0])


def moe(r, f, key):
    experts = r.randint(2, 8)
    f.update({key: experts}, num_experts_per_tok=r.randint(1, experts), output_router_logits=coin(r),
             router_aux_loss_coef=round(log_uniform(r, 1e-3, 0.3), 4))
    return f


def llama(r):
    f, dim = base(r, True)
    return dict(f, attention_bias=coin(r), mlp_bias=coin(r), rope_parameters=scaled_rope(r, dim))


def smollm3(r):
    f, dim = base(r, False)
    f.update(attention_bias=coin(r), mlp_bias=coin(r), rope_parameters=scaled_rope(r, dim),
             use_sliding_window=coin(r), sliding_window=window(r, 1.0))
    if coin(r):
        f["no_rope_layer_interval"] = r.randint(1, 3)
    else:
        f["no_rope_layers"] = [r.randint(0, 1) for _ in range(f["num_hidden_layers"])]
    return f


def mistral(r):
    f, dim = base(r, True)
    return dict(f, sliding_window=window(r), rope_parameters=scaled_rope(r, dim))


def ministral(r):
    f = mistral(r)
    f["sliding_window"] = window(r, 1.0)
    if coin(r, 0.8):
        f["layer_types"] = layer_types(r, f["num_hidden_layers"])
    return f


def ministral3(r):
    f, _ = base(r, True)
    return dict(f, sliding_window=window(r, 0.3), rope_parameters=rope(
        "yarn", round(log_uniform(r, 100, 1e6), 1), factor=r.choice([2.0, 16.0]), beta_fast=r.choice([0.5, 32.0]),
        beta_slow=r.choice([0.25, 1.0]), mscale=1.0, mscale_all_dim=1.0, original_max_position_embeddings=r.choice(
            [4, 8, 32]), llama_4_scaling_beta=r.choice([0.1, 0.5])))


def windows_by_depth(r, f):
    """Qwen's fields."""
    f.update(use_sliding_window=coin(r, 0.7), sliding_window=window(r, 1.0),
             max_window_layers=r.randint(0, f["num_hidden_layers"]))
    if coin(r, 0.3) and f["use_sliding_window"]:
        f["layer_types"] = layer_types(r, f["num_hidden_layers"])
    return f


def qwen2(r):
    f, dim = base(r, False)
    return windows_by_depth(r, dict(f, rope_parameters=scaled_rope(r, dim)))


def qwen3(r):
    f, dim = base(r, True)
    return windows_by_depth(r, dict(f, attention_bias=coin(r), rope_parameters=scaled_rope(r, dim)))


def gemma(r):
    f, dim = base(r, True)
    if f["hidden_act"] == "gelu":  # read as the tanh approximation
        f["hidden_act"] = "gelu_pytorch_tanh"
    return dict(f, attention_bias=coin(r), pad_token_id=0, rope_parameters=scaled_rope(r, dim))


def gemma2(r):
    f, dim = base(r, True, "hidden_activation")
    f.update(attention_bias=coin(r), pad_token_id=0, sliding_window=window(r, 1.0), rope_parameters=scaled_rope(r, dim),
             query_pre_attn_scalar=r.choice([4, 16, 30]), final_logit_softcapping=r.choice([None, 3.0, 30.0]),
             attn_logit_softcapping=r.choice([None, 2.0, 50.0]))
    if coin(r):
        f["layer_types"] = layer_types(r, f["num_hidden_layers"])
    return f


def gemma3(r):
    f = gemma2(r)
    dim = f["head_dim"]
    f["rope_parameters"] = {"full_attention": scaled_rope(r, dim), "sliding_attention": scaled_rope(r, dim, 1.0)}
    for part in f["rope_parameters"].values():  # not there for layers of two kinds
        if part["rope_type"] in ("longrope", "dynamic"):
            for key in list(part):
                if key not in ("rope_theta", "factor"):
                    del part[key]
            part["rope_type"] = "linear"
    if "layer_types" not in f:
        f["sliding_window_pattern"] = r.randint(2, 4)
    return f


def phi3(r):
    f, dim = base(r, False)
    partial = partial_of(r, dim)
    f.update(sliding_window=window(r), original_max_position_embeddings=r.choice([8, 16, 64]))
    f["rope_parameters"] = rope(theta=round(log_uniform(r, 20, 1e6), 1), partial_rotary_factor=partial)
    if coin(r, 0.6):
        count = int(dim * partial) // 2
        f["rope_parameters"].update(
            rope_type="longrope", original_max_position_embeddings=f["original_max_position_embeddings"],
            short_factor=[round(r.uniform(1, 2), 2) for _ in range(count)],
            long_factor=[round(r.uniform(1, 9), 2) for _ in range(count)])
    return f


def with_eps(f, name):
    f[name] = f.pop("rms_norm_eps")
    return f


def partly_rotated(r, dim):
    partial = partial_of(r, dim)
    return scaled_rope(r, int(dim * partial), partial=partial)


def phi(r):
    f, dim = base(r, False)
    # a LayerNorm of two numbers gives 1 and -1 whatever they are: its gradients are nothing but rounding
    return with_eps(dict(f, qk_layernorm=coin(r) and dim > 2, rope_parameters=partly_rotated(r, dim)), "layer_norm_eps")


def olmo2(r):
    f, dim = base(r, False)
    return dict(f, attention_bias=coin(r), rope_parameters=scaled_rope(r, dim))


def olmo(r):
    f = without(olmo2(r), "rms_norm_eps")
    if coin(r, 0.6):
        f["clip_qkv"] = round(r.uniform(0.3, 3.0), 2)
    return f


def granite(r):
    f, dim = base(r, False)
    return dict(f, attention_bias=coin(r), mlp_bias=coin(r), rope_parameters=scaled_rope(r, dim),
                embedding_multiplier=r.choice([1.0, 4.0]), logits_scaling=r.choice([1.0, 1.7, 8.0]),
                residual_multiplier=r.choice([1.0, 0.3]), attention_multiplier=r.choice([1.0, 0.2]))


def glm(r):
    f, dim = base(r, True)
    return dict(f, attention_bias=coin(r), rope_parameters=partly_rotated(r, dim))


def starcoder2(r):
    f, dim = base(r, False)
    return with_eps(dict(f, use_bias=coin(r), sliding_window=window(r), rope_parameters=scaled_rope(r, dim)),
                    "norm_epsilon")


def gpt2(r):
    heads = r.choice([1, 2, 3, 4])
    f = dict(vocab_size=r.randint(24, 70), n_positions=r.choice([48, 64]), n_embd=heads * r.choice([4, 5, 8]),
             n_layer=r.randint(1, 4), n_head=heads, bos_token_id=1, eos_token_id=2,
             activation_function=r.choice(ACTIVATIONS), layer_norm_epsilon=log_uniform(r, 1e-6, 0.1),
             scale_attn_weights=coin(r, 0.7), scale_attn_by_inverse_layer_idx=coin(r, 0.4),
             reorder_and_upcast_attn=coin(r, 0.2), tie_word_embeddings=coin(r, 0.7))
    if coin(r):
        f["n_inner"] = r.randint(5, 40)
    return f


def gpt_neox(r):
    f, dim = base(r, False)
    return with_eps(without(dict(f, use_parallel_residual=coin(r), attention_bias=coin(r), rope_parameters=partly_rotated(
        r, dim)), "num_key_value_heads"), "layer_norm_eps")


def falcon(r):
    f, dim = base(r, False)
    f = with_eps(f, "layer_norm_epsilon")
    if coin(r, 0.3):  # ALiBi's slopes are rounded from 12 heads on
        heads, dim = r.choice([12, 16]), 2
        f.update(num_attention_heads=heads, hidden_size=heads * dim, num_key_value_heads=r.choice([1, 2, 4]))
    f.update(new_decoder_architecture=coin(r), multi_query=coin(r), parallel_attn=coin(r), bias=coin(r),
             alibi=coin(r, 0.4), activation=f["hidden_act"], rope_parameters=scaled_rope(r, dim))
    if coin(r):
        f["ffn_hidden_size"] = f["intermediate_size"]
    if f["new_decoder_architecture"]:
        f.update(num_kv_heads=f["num_key_value_heads"], parallel_attn=True)
        if coin(r):
            f["num_ln_in_parallel_attn"] = r.choice([1, 2])
    return without(f, "num_key_value_heads", "intermediate_size", "hidden_act")


def nemotron(r):
    f, dim = base(r, True)
    if coin(r, 0.7):
        f["hidden_act"] = "relu2"
    return with_eps(dict(f, attention_bias=coin(r), mlp_bias=coin(r), rope_parameters=partly_rotated(r, dim)), "norm_eps")


def mixtral(r):
    f, dim = base(r, True)
    return moe(r, dict(f, sliding_window=window(r, 0.4), rope_parameters=scaled_rope(r, dim)), "num_local_experts")


def sparse(r, f):
    f.update(moe_intermediate_size=r.randint(4, 24), norm_topk_prob=coin(r), decoder_sparse_step=r.choice([1, 1, 2]))
    if coin(r, 0.4):
        f["mlp_only_layers"] = [r.randrange(f["num_hidden_layers"])]
    if all((i + 1) % f["decoder_sparse_step"] or i in f.get("mlp_only_layers", ()) for i in range(f["num_hidden_layers"])):
        f["output_router_logits"] = False  # no layer has a router
    return f


def qwen2_moe(r):
    f, dim = base(r, False)
    f = sparse(r, moe(r, f, "num_experts"))
    return windows_by_depth(r, dict(f, shared_expert_intermediate_size=r.randint(4, 24), qkv_bias=coin(r),
                                    rope_parameters=scaled_rope(r, dim)))


def qwen3_moe(r):
    f, dim = base(r, True)
    f = sparse(r, moe(r, f, "num_experts"))
    return dict(f, attention_bias=coin(r), use_sliding_window=coin(r), sliding_window=window(r, 1.0),
                rope_parameters=scaled_rope(r, dim))


def olmoe(r):
    f, dim = base(r, False)
    f = moe(r, dict(f, attention_bias=coin(r), norm_topk_prob=coin(r), rope_parameters=scaled_rope(r, dim)), "num_experts")
    if coin(r):
        f["clip_qkv"] = round(r.uniform(0.3, 3.0), 2)
    return f


def granitemoe(r):
    return moe(r, without(granite(r), "mlp_bias"), "num_local_experts")


def gpt_oss(r):
    f, dim = base(r, True)
    f = moe(r, dict(f, attention_bias=coin(r), sliding_window=window(r, 1.0), swiglu_limit=r.choice([0.7, 2.0, 7.0]),
                    rope_parameters=scaled_rope(r, dim, 0.2)), "num_local_experts")
    f["hidden_act"] = "silu"
    if coin(r):
        f["layer_types"] = layer_types(r, f["num_hidden_layers"])
    return f


FAMILIES = {
    "llama": llama, "smollm3": smollm3, "mistral": mistral, "ministral": ministral, "ministral3": ministral3,
    "qwen2": qwen2, "qwen3": qwen3, "gemma": gemma, "gemma2": gemma2, "gemma3": gemma3, "phi3": phi3, "phi": phi,
    "olmo2": olmo2, "olmo": olmo, "granite": granite, "glm4": glm, "glm": glm, "starcoder2": starcoder2, "gpt2": gpt2,
    "gpt_neox": gpt_neox, "falcon": falcon, "nemotron": nemotron, "mixtral": mixtral, "qwen2_moe": qwen2_moe,
    "qwen3_moe": qwen3_moe, "olmoe": olmoe, "granitemoe": granitemoe, "gpt_oss": gpt_oss,
}

# ---- making -------------------------------------------------------------------------------------


def draw(r, name):
    """A configuration and its rows."""
    fields, lengths = FAMILIES[name](r), [r.randint(5, 36) for _ in range(r.randint(1, 3))]
    return {"architecture": families.CASES[name][0], "lengths": lengths, "left": coin(r, 0.3), "fields": fields}


def attempt(r, drawn, folder, gen):
    """A checkpoint of what was drawn, as make_case() takes it; None where rounding decides something."""
    fields = drawn["fields"]
    # rotary scaling that looks at the longest row makes other functions of shorter ones
    stretches = fields.get("rope_parameters", {}).get("rope_type") in ("dynamic", "longrope")
    model = families.make(drawn["architecture"], fields, folder, gen)
    inputs = families.inputs_of(model.config.vocab_size, gen, drawn["lengths"], offset=r.randint(0, 9),
                                left=drawn["left"])
    prompt = torch.randint(3, model.config.vocab_size, (r.randint(3, 20),), generator=gen).tolist()
    with families.router_margins(model) as margins:
        ids, margin, same = families.greedy(model, prompt, NEW)
        want = families.losses_and_steps(model, inputs)
    if margin < TOKEN or min(margins, default=1.0) < ROUTER:
        return None
    return {**inputs, "stretches": torch.tensor([int(stretches)])}, {"input_ids": torch.tensor([prompt])}, \
        {**want, "greedy": torch.tensor(ids), "cache": same}


def make_case(draw, attempt, name, index, seed, folder):
    """One configuration that transformers runs: its checkpoint and what transformers computes, or None when no weights
    of ten keep rounding from deciding something. attempt() gives inputs, a prompt's, and what is wanted."""
    r = random.Random(f"{seed} {name} {index}")
    drawn = draw(r, name)
    os.makedirs(folder)
    with open(os.path.join(folder, "drawn.json"), "w", encoding="utf-8") as f:
        json.dump(drawn, f, indent=1)
    for weights in range(10):
        made = attempt(r, drawn, os.path.join(folder, "model"), torch.Generator().manual_seed(weights))
        if made:
            inputs, prompt, want = made
            tensors = {**inputs, **{"prompt." + k: v for k, v in prompt.items()},
                       "total": torch.tensor([len(want["greedy"])])}
            save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(folder, "inputs.safetensors"))
            return want
    return None


# ---- comparing ----------------------------------------------------------------------------------

def off(have, want, scale=None, keep=None):
    """How far a tensor is from what is wanted, as a part of `scale` (the largest wanted); inf when it cannot
    be compared."""
    if have is None or list(have.shape) != list(want.shape):
        return float("inf")
    d, w = (have.double() - want.double()).abs(), want.double().abs()
    if keep is not None:
        d, w = d[keep], w[keep]
    if d.numel() == 0:
        return 0.0
    worst = d.max().item()
    scale = scale if scale is not None else w.max().item()
    return worst / scale if scale > 0 and math.isfinite(worst) else (0.0 if worst == 0 else float("inf"))


def compare(folder, want, exact=None, moved=()):
    """{what -> how far off, in parts of its tolerance}, and the first tensor that is too far. With `exact` (the
    same in float64) amlua is compared with that, and may be as far from it as twice `want` or any of `moved` is."""
    inputs, have = (load_file(os.path.join(folder, n)) for n in ("inputs.safetensors", "out.safetensors"))
    result, first, true = {}, None, exact or want

    def note(kind, name, value, tolerance):
        nonlocal first
        value = value / tolerance
        result[kind] = max(result.get(kind, 0.0), value)
        if not value <= 1 and first is None:
            first = f"{name or kind} is {value * tolerance:.2g} off, {tolerance:.2g} allowed"

    def near(kind, name, tolerance, scale=None, keep=None):
        theirs = max(off(other[name], true[name], scale, keep) for other in (want, *moved))
        note(kind, name, off(have.get(name), true[name], scale, keep), max(tolerance, 2 * theirs))

    mask = inputs["attention_mask"].bool()
    near("logits", "logits", LOGITS, keep=mask)
    if "features" in want:  # of pictures
        near("features", "features", LOGITS)
    for step, (a, b) in enumerate(zip(have["losses"].tolist(), true["losses"].tolist())):
        note("loss", f"loss {step + 1}", abs(a - b) / abs(b) if math.isfinite(a) else float("inf"), LOGITS)
    grads = {k: v for k, v in want.items() if k.startswith("grad.")}
    initial, decay = load_file(os.path.join(folder, "model", "model.safetensors")), (1 - 1e-3 * 0.1) ** 3
    top = max(v.abs().max().item() for v in grads.values())
    for name in sorted(set(have) | set(want)):
        if name.startswith(("grad.", "step.")) and (name not in have or name not in want):
            note("names", name, float("inf"), 1)
    for name, g in grads.items():
        scale = max(g.abs().max().item(), FLOOR * top)
        if g.abs().max().item() < NOTHING * top:
            scale = NOTHING * top / GRADIENT
        near("gradients", name, GRADIENT, scale)
        step, before = "step." + name[5:], initial[name[5:]]
        decayed = (want[step] - before * decay).abs() <= 1e-6 * before.abs()
        # a tensor of rounding alone (a shift of all keys) is 0 in places by chance
        sure = (g.abs() >= NOISE * scale) | (g == 0) & decayed & (not 0 < g.abs().max() < NOISE * scale)
        if exact and g.any():  # nothing but rounding in f32 makes a gradient of these, and so a step
            zero = true[name].abs() < ZERO * top
            sure &= ~zero if zero.all() else ~zero | (true[name] == 0)
        near("steps", step, STEP, want[step].abs().max().item(), sure)
    ids = want["greedy"].tolist()
    for kind in ("greedy", "greedy_cached"):
        # where transformers' own cache gives other tokens (rotary scaling that depends on the length), only
        # those without one are compared
        if kind == "greedy" or want["cache"]:
            note("greedy", f"{kind}: {have[kind].tolist()} instead of {ids}",
                 0 if have[kind].tolist() == ids else float("inf"), 1)
    note("cache", "greedy tokens differ with a cache", 0 if torch.equal(have["greedy"], have["greedy_cached"])
         else float("inf"), 1)
    note("company", "the bits of a row depend on its company", 0 if have["company"].item() == 1 else float("inf"), 1)
    return result, first


# Arguments of forward, of which each model takes some.
INPUTS = ("input_ids", "attention_mask", "position_ids", "token_type_ids", "labels", "pixel_values",
          "pixel_attention_mask", "image_grid_thw")


def in_float64(numbers, folder, seed=None):
    inputs = load_file(os.path.join(folder, "inputs.safetensors"))
    return float64.computed(numbers, os.path.join(folder, "model"), {k: inputs[k] for k in INPUTS if k in inputs}, seed)


def opens_saved(folder):
    """Why what amlua saved is not what transformers made of it, or None."""
    original = os.path.join(folder, "model")
    model, info = families.auto_of(original).from_pretrained(
        os.path.join(folder, "saved"), dtype="auto", attn_implementation="eager", output_loading_info=True)
    original = families.opened(original)
    for kind, names in info.items():
        if names:
            return f"saved: {kind} {sorted(names)[:3]}"
    a, b = model.state_dict(), original.state_dict()
    for name in sorted(set(a) | set(b)):
        if name not in a or name not in b or a[name].dtype != b[name].dtype or not torch.equal(a[name], b[name]):
            return f"saved: {name} is not equal"
    mine, theirs = (m.config.to_dict() for m in (model, original))
    for key in sorted(set(mine) | set(theirs)):
        # partial_rotary_factor: in rope_parameters it is all the same, beside it the older spelling
        if not key.startswith("_") and key not in ("transformers_version", "sliding_window_pattern",
                                                   "partial_rotary_factor") \
                and mine.get(key) != theirs.get(key):
            return f"saved: config.json's {key} is {mine.get(key)!r}, was {theirs.get(key)!r}"
    return None


def run_family(draw, attempt, numbers, name, count, seed, root):
    wants = {}
    for index in range(count):
        folder = os.path.join(root, f"{name}_{index}")
        want = make_case(draw, attempt, name, index, seed, folder)
        if want is None:
            print(f"{name}_{index}: left out, rounding decides", flush=True)
            shutil.rmtree(folder)
        else:
            wants[folder] = want
    subprocess.run([os.environ.get("AMLUA", "amlua"), os.path.join(HERE, "random_configs.lua"), *wants],
                   cwd=PROJECT, check=True)
    failed = 0
    for folder, want in wants.items():
        result, problem, verdict = {}, None, "ok  "
        error = os.path.join(folder, "error.txt")
        if os.path.exists(error):
            with open(error, encoding="utf-8") as f:
                problem = f.read().strip()
        else:
            result, problem = compare(folder, want)
            if problem:
                exact, *moved = (in_float64(numbers, folder, at) for at in (None, *range(MOVED)))
                result, problem = compare(folder, want, exact, moved)
                verdict = "ok64"
            try:
                problem = problem or opens_saved(folder)
            except Exception as e:  # whatever transformers says of a file that it does not like
                problem = "saved: " + " ".join(str(e).split())
        failed += problem is not None
        row = "  ".join(f"{k} {v:.2g}" for k, v in result.items())
        print(f"{'FAIL' if problem else verdict} {os.path.basename(folder):14} {row}"
              + (f"\n     {problem}" if problem else ""), flush=True)
        if problem:
            with open(os.path.join(folder, "drawn.json"), encoding="utf-8") as f:
                print("     " + json.dumps(json.load(f)), flush=True)
    return len(wants), failed


def main(doc, names, draw, attempt, numbers):
    """Draw, compute and compare cases of families as the command line says; draw() and attempt() are those of
    make_case(), numbers(model, inputs) is what transformers computes of one. The exit status."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--family", nargs="+", choices=list(names), default=list(names))
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep")
    args = parser.parse_args()
    root = args.keep or tempfile.mkdtemp()
    print("numbers are errors in parts of what is allowed")
    totals = [(name, *run_family(draw, attempt, numbers, name, args.count, args.seed, root)) for name in args.family]
    if not args.keep:
        shutil.rmtree(root)
    for name, count, failed in totals:
        print(f"{name:12} {count - failed} of {count}")
    return 1 if any(failed for _, _, failed in totals) else 0


if __name__ == "__main__":
    sys.exit(main(__doc__, FAMILIES, draw, attempt, families.losses_and_steps))
