"""Tiny configurations of Qwen2-VL and Qwen2.5-VL, batches with pictures of different sizes, and what transformers makes
of them. qwen_golden.py and random_qwen.py run this; the tests do not.

Not here: which numbers are compared and how closely (qwen_spec.lua).
"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "models"))

import families  # noqa: E402, sets transformers offline and quiet
import torch  # noqa: E402
import transformers  # noqa: E402

IMAGE, VIDEO, START, END = 45, 44, 43, 42
TEXT = dict(vocab_size=48, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None,
            rms_norm_eps=0.01, rope_parameters=dict(rope_type="default", rope_theta=100.0, mrope_section=[1, 2, 1]))
VISION = dict(depth=2, num_heads=2, in_channels=3, patch_size=2, spatial_merge_size=2, temporal_patch_size=2)
QWEN2 = dict(VISION, embed_dim=16, hidden_size=16, mlp_ratio=2)
QWEN2_5 = dict(VISION, depth=3, hidden_size=16, intermediate_size=12, out_hidden_size=16, window_size=8,
               fullatt_block_indexes=[1])
MROPE = dict(TEXT["rope_parameters"])

# name -> architecture, fields of the text, of the vision tower, of the whole, left padding
CASES = {
    "qwen2_vl": ("Qwen2VLForConditionalGeneration", TEXT, QWEN2, {}, False),
    "qwen2_vl_tied": ("Qwen2VLForConditionalGeneration", dict(
        TEXT, use_sliding_window=True, sliding_window=7, max_window_layers=1, rope_parameters=dict(
            MROPE, rope_type="yarn", factor=4.0, original_max_position_embeddings=16)),
        dict(QWEN2, spatial_merge_size=1, hidden_act="gelu", temporal_patch_size=1),
        dict(tie_word_embeddings=True), True),
    "qwen2_5_vl": ("Qwen2_5_VLForConditionalGeneration", TEXT, QWEN2_5, {}, False),
    # windows of three units, which divide none of the pictures, and three units to a side of one
    "qwen2_5_vl_tied": ("Qwen2_5_VLForConditionalGeneration", dict(TEXT, num_key_value_heads=2), dict(
        QWEN2_5, spatial_merge_size=3, window_size=12, fullatt_block_indexes=[2], num_heads=1),
        dict(tie_word_embeddings=True), True),
}
# A batch's pictures as rows of {frames, height, width}, in tokens: one token, a long thin one, one of several windows.
ROWS = [[(1, 1, 1), (1, 3, 2)], [], [(1, 1, 7)], [(1, 5, 4)]]


def config_of(architecture, text, vision, whole):
    cls = getattr(transformers, architecture).config_class
    return cls(text_config=dict(text), vision_config=dict(vision), image_token_id=IMAGE, video_token_id=VIDEO,
               vision_start_token_id=START, vision_end_token_id=END, architectures=[architecture], dtype="float32",
               **whole)


def random_weights(model, gen):
    """Refill a model so that no number is trivially 1 or 0, and attention is far from uniform."""
    modules = dict(model.named_modules())
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=gen)
            kind = type(modules[name.rpartition(".")[0]]).__name__
            if "Norm" in kind:
                p.copy_(0.2 * noise + (0 if name.endswith("bias") else 1))
            elif name.endswith("bias"):
                p.copy_(0.3 * noise)
            elif kind == "Embedding":
                p.copy_(noise * (0.6 if model.config.tie_word_embeddings else 1.0))
            else:
                gain = 2.0 if "lm_head" in name else 1.5 if any(k in name for k in ("qkv", "q_proj", "k_proj")) else 1.0
                p.copy_(noise * gain * p[0].numel() ** -0.5)
    return model


def make(case, folder, gen):
    """A random checkpoint as transformers' save_pretrained writes it, opened again by transformers."""
    architecture, text, vision, whole = case[:4]
    model = getattr(transformers, architecture)(config_of(architecture, text, vision, whole))
    random_weights(model, gen).save_pretrained(folder)
    return families.opened(folder)


def write_hub_config(folder, name):
    """Write folder/config.json again as folder/NAME, as files on the hub spell it: the text's fields beside the
    whole's, and rope_scaling of type mrope."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        c = json.load(f)
    text = c.pop("text_config")
    rope = text.pop("rope_parameters")
    for key in ("model_type", "layer_types", "dtype"):
        text.pop(key, None)
    text["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] == "default":
        rope["type"] = "mrope"
        del rope["rope_type"]
    text["rope_scaling"] = rope
    c["torch_dtype"] = c.pop("dtype")
    for key in ("rope_parameters", "dtype", "model_type"):
        c["vision_config"].pop(key, None)
    c["transformers_version"] = "4.46.0"
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        f.write(json.dumps(dict(sorted({**text, **c}.items())), indent=2) + "\n")


# ---- inputs -------------------------------------------------------------------------------------


def pictures(grids, vision, gen):
    """pixel_values and image_grid_thw of grids in tokens."""
    merge = vision["spatial_merge_size"]
    thw = [(t, h * merge, w * merge) for t, h, w in grids]
    width = vision["in_channels"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    return {"pixel_values": torch.randn(sum(t * h * w for t, h, w in thw), width, generator=gen),
            "image_grid_thw": torch.tensor(thw).reshape(-1, 3)}


def row_of(grids, gen):
    """Ids: text, and each picture between its two markers."""
    def words(n):
        return torch.randint(3, END, (n,), generator=gen).tolist()
    ids = words(2)
    for t, h, w in grids:
        ids += [START] + [IMAGE] * (t * h * w) + [END] + words(int(torch.randint(1, 4, (1,), generator=gen)))
    return ids + words(5)


def inputs_of(rows, vision, gen, left=False):
    """A batch of rows with their pictures, padded on the right or the left; labels of text only."""
    lists = [row_of(grids, gen) for grids in rows]
    longest = max(map(len, lists))
    ids, mask = torch.zeros(len(rows), longest, dtype=torch.int64), torch.zeros(len(rows), longest, dtype=torch.int64)
    for i, row in enumerate(lists):
        place = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[i, place], mask[i, place] = torch.tensor(row), 1
    labels = ids.clone()
    labels[torch.rand(ids.shape, generator=gen) < 0.15] = -100
    for i in range(len(rows)):
        labels[i, int(mask[i].argmax())] = -100  # would be told by padding
    labels[(mask == 0) | (ids == IMAGE)] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels,
            **pictures([g for grids in rows for g in grids], vision, gen)}


def for_transformers(inputs):
    return {**inputs, "mm_token_type_ids": (inputs["input_ids"] == IMAGE).int()}


def greedy(model, inputs, count):
    """(ids of a row and its continuation, smallest lead of a chosen token over the next best as a part of the largest
    logit, whether a cache changes nothing)."""
    ids, margin = inputs["input_ids"], float("inf")
    more = {k: v for k, v in inputs.items() if k in ("pixel_values", "image_grid_thw")}
    with torch.no_grad():
        for _ in range(count):
            row = for_transformers({"input_ids": ids, **more})
            logits = model(**row, use_cache=False).logits[0, -1]
            best = logits.topk(2).values
            margin = min(margin, ((best[0] - best[1]) / logits.abs().max()).item())
            ids = torch.cat([ids, logits.argmax().reshape(1, 1)], 1)
            if ids[0, -1] in (IMAGE, VIDEO):
                return ids[0].tolist(), 0.0, True  # a picture that is not there
        model.generation_config.eos_token_id = None
        cached = model.generate(**for_transformers({"input_ids": inputs["input_ids"], **more}),
                                attention_mask=torch.ones_like(inputs["input_ids"]), do_sample=False,
                                max_new_tokens=count, use_cache=True)
    return ids[0].tolist(), margin, cached.tolist() == ids.tolist()


def numbers(model, inputs):
    """Features of the pictures, positions, and what families.losses_and_steps has."""
    seen = for_transformers(inputs)
    with torch.no_grad():
        out = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        positions, deltas = model.model.get_rope_index(
            seen["input_ids"], seen["mm_token_type_ids"], image_grid_thw=seen["image_grid_thw"],
            attention_mask=seen["attention_mask"])
    return {"features": torch.cat(list(out.pooler_output)), "last_hidden_state": out.last_hidden_state,
            "rope_index": positions, "rope_deltas": deltas, **families.losses_and_steps(model, seen)}
