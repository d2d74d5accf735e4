"""Random configurations of Gemma 3, Idefics3, SmolVLM, LLaVA and PaliGemma and random pictures, amlua against live
transformers.

    AMLUA=build/amlua python random_vlms.py [--family NAME ...] [--count 20] [--seed 1] [--keep DIR]

As models/random_configs.py, whose rules and float64 it takes: draws towers, projectors, language models and batches
(rows with none to three pictures, padded on the right or the left, pictures smaller than their frames), and compares
features, logits, losses, gradients, three steps of AdamW, greedy tokens, and what transformers opens of what amlua saved.
"""
import sys

import vlm_families as families  # first: it sets transformers offline, and the path to the next
import random_configs as rules
import torch

ACTIVATIONS = ["gelu_pytorch_tanh", "gelu", "silu", "quick_gelu"]


def draw_text(r, **more):
    dim, kv, group = 2 * r.choice([2, 3, 4]), r.choice([1, 2]), r.choice([1, 2])
    return dict(vocab_size=r.randint(48, 60), hidden_size=kv * group * dim, intermediate_size=r.randint(5, 30),
                num_hidden_layers=r.randint(1, 4), num_attention_heads=kv * group, num_key_value_heads=kv, head_dim=dim,
                max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0,
                rms_norm_eps=r.choice([1e-6, 1e-2]), **more), dim


def draw_vision(r, **more):
    heads = r.choice([1, 2, 3])
    return dict(hidden_size=heads * r.choice([4, 6, 8]), intermediate_size=r.randint(4, 24), num_attention_heads=heads,
                num_hidden_layers=r.randint(1, 3), hidden_act=r.choice(ACTIVATIONS),
                layer_norm_eps=r.choice([1e-6, 1e-2]), **more)


def gemma3(r):
    text, dim = draw_text(r, model_type="gemma3_text", sliding_window=r.randint(2, 8), query_pre_attn_scalar=r.choice(
        [4, 10]), sliding_window_pattern=r.randint(1, 3), hidden_activation=r.choice(["gelu_pytorch_tanh", "silu"]))
    text["rope_parameters"] = {"full_attention": families.rope("linear", 5000.0, factor=round(r.uniform(1, 9), 2)),
                               "sliding_attention": families.rope(theta=100.0)}
    if rules.coin(r, 0.3):
        text["layer_types"] = rules.layer_types(r, text["num_hidden_layers"])
    (side, square), patch = r.choice([(1, 2), (1, 3), (2, 1), (2, 2), (3, 1), (3, 2)]), r.choice([2, 3, 4])
    size = side * square * patch + r.randint(0, patch - 1)
    vision = draw_vision(r, model_type="siglip_vision_model", image_size=size, patch_size=patch,
                         vision_use_head=False)
    return "Gemma3ForConditionalGeneration", dict(
        text_config=text, vision_config=vision, mm_tokens_per_image=side ** 2, image_token_index=families.IMAGE,
        boi_token_index=44, eoi_token_index=46, tie_word_embeddings=rules.coin(r, 0.7)), dict(
            side=size, tokens=side ** 2, types=True)


def idefics3(r, architecture="Idefics3ForConditionalGeneration"):
    text, dim = draw_text(r, model_type="llama")
    text["rope_parameters"] = families.rope(theta=500.0)
    (side, scale), patch, grid = r.choice([(1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]), r.choice([2, 3]), r.randint(1, 30)
    return architecture, dict(
        text_config=text, vision_config=draw_vision(r, image_size=grid * patch + r.randint(0, patch - 1),
                                                    patch_size=patch),
        image_token_id=families.IMAGE, scale_factor=scale, tie_word_embeddings=rules.coin(r)), dict(
            side=side * scale * patch, tokens=side ** 2, nested=True, mask=rules.coin(r), patch=patch)


def smolvlm(r):
    return idefics3(r, "SmolVLMForConditionalGeneration")


def llava(r):
    kind = r.choice(["clip_vision_model", "siglip_vision_model", "dinov2"])
    patch, grid = r.choice([2, 3, 4]), r.randint(2 if kind.startswith("siglip") else 1, 3)  # see vlm_families.pictures
    side, whole = grid * patch + r.randint(0, patch - 1), rules.coin(r, 0.3)
    vision = draw_vision(r, model_type=kind, image_size=side, patch_size=patch)
    if kind == "siglip_vision_model":  # the first patch is none to leave out
        whole = True
        vision["vision_use_head"] = rules.coin(r)
    elif kind == "dinov2":
        del vision["intermediate_size"]
        vision.update(mlp_ratio=r.randint(1, 4), use_swiglu_ffn=rules.coin(r), qkv_bias=rules.coin(r),
                      use_mask_token=rules.coin(r))
        if rules.coin(r):  # positions of other sizes than the pictures'
            vision["image_size"] = r.randint(1, 4) * patch
    layers = vision["num_hidden_layers"]
    text, dim = draw_text(r, model_type=r.choice(["llama", "mistral", "qwen3"]))
    if text["model_type"] == "mistral":
        text["sliding_window"] = r.choice([None, r.randint(2, 8)])
    one = r.choice([i for i in range(-layers - 1, layers + 1) if i])  # 0 alone transformers takes for none
    taken = r.choice([one, [r.randint(-layers - 1, layers) for _ in range(r.randint(1, 3))]])
    return "LlavaForConditionalGeneration", dict(
        text_config=text, vision_config=vision, image_token_index=families.IMAGE, vision_feature_layer=taken,
        vision_feature_select_strategy="full" if whole else "default", projector_hidden_act=r.choice(ACTIVATIONS),
        multimodal_projector_bias=rules.coin(r), tie_word_embeddings=rules.coin(r)), dict(
            side=side, tokens=grid ** 2 + (whole and kind != "siglip_vision_model"))


def paligemma(r):
    text, dim = draw_text(r, model_type=r.choice(["gemma", "gemma2"]))
    if text["model_type"] == "gemma2":
        text.update(sliding_window=r.randint(2, 8), query_pre_attn_scalar=r.choice([4, 10]),
                    attn_logit_softcapping=r.choice([None, 3.0]), final_logit_softcapping=r.choice([None, 5.0]))
    patch, grid = r.choice([2, 3, 4]), r.randint(2, 3)
    vision = draw_vision(r, model_type="siglip_vision_model", image_size=grid * patch + r.randint(0, patch - 1),
                         patch_size=patch, vision_use_head=False)
    return "PaliGemmaForConditionalGeneration", dict(
        text_config=text, vision_config=vision, image_token_index=families.IMAGE,
        projection_dim=text["hidden_size"]), dict(side=vision["image_size"], tokens=grid ** 2, prefix=True)


FAMILIES = {"gemma3": gemma3, "idefics3": idefics3, "smolvlm": smolvlm, "llava": llava, "paligemma": paligemma}


def numbers(model, inputs):
    return {"features": families.features(model, inputs), **families.text.losses_and_steps(model, inputs)}


def draw(r, name):
    architecture, fields, spec = FAMILIES[name](r)
    counts = [r.choice([0, 1, 1, 2, 3]) for _ in range(r.randint(1, 4))]
    counts[0] = max(counts[0], 1)
    lengths = [n * spec["tokens"] + r.randint(n + 2, 12) for n in counts]
    return {"architecture": architecture, "fields": fields, "spec": spec, "counts": counts, "lengths": lengths,
            "left": rules.coin(r, 0.3)}


def attempt(r, drawn, folder, gen):
    spec = drawn["spec"]
    model = families.make(drawn["architecture"], drawn["fields"], folder, gen)
    inputs = families.inputs_of(spec, gen, drawn["counts"], drawn["lengths"], drawn["left"])
    prompt = families.inputs_of(spec, gen, (1,), (spec["tokens"] + r.randint(3, 9),))
    prompt.pop("labels")
    ids, margin, same = families.greedy(model, prompt, rules.NEW)
    learnt = (inputs["labels"][:, 1:] != -100).any()
    if not learnt or margin < rules.TOKEN:
        return None
    return inputs, prompt, {**numbers(model, inputs), "greedy": torch.tensor(ids), "cache": same}


if __name__ == "__main__":
    sys.exit(rules.main(__doc__, FAMILIES, draw, attempt, numbers))
