"""The vision-language models that amlua has to equal transformers in: a small configuration of each, its inputs, and
what transformers makes of them. golden.py and random_vlms.py run this; the tests do not.

Not here: which numbers are compared and how closely (vlm_spec.lua, random_vlms.py).
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "models"))

import families as text  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from families import rope  # noqa: E402

EPS = 0.01  # large enough for a mistake to show
IMAGE = 45  # the id of the token that stands for an image's features
TEXT = dict(vocab_size=48, hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
            rms_norm_eps=EPS)
VISION = dict(hidden_size=12, intermediate_size=18, num_hidden_layers=2, num_attention_heads=2, patch_size=4,
              layer_norm_eps=EPS)
LLAMA = dict(TEXT, model_type="llama", rope_parameters=rope(theta=500.0))
# Arguments of forward, of which each model takes some.
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "labels", "pixel_values", "pixel_attention_mask")
# Images of the rows of a batch; the second one's is text alone.
COUNTS = (2, 0, 1)


def gemma3(**more):
    # blocks of four tokens and a window of three: not all of an image is seen in layers with a window
    return dict(
        text_config=dict(TEXT, model_type="gemma3_text", num_hidden_layers=3, head_dim=8, sliding_window=3,
                         query_pre_attn_scalar=10, sliding_window_pattern=2, rope_parameters={
                             "full_attention": rope("linear", 5000.0, factor=4.0),
                             "sliding_attention": rope(theta=100.0)}),
        vision_config=dict(VISION, model_type="siglip_vision_model", image_size=16, vision_use_head=False),
        mm_tokens_per_image=4, image_token_index=IMAGE, boi_token_index=44, eoi_token_index=46, **more)


def idefics3(text=None, vision=None, **more):
    return dict(text_config=dict(LLAMA, **(text or {})), vision_config={**VISION, "image_size": 16, **(vision or {})},
                image_token_id=IMAGE, **more)


# name -> architecture, configuration, and of inputs: side of the images, tokens of one, token_type_ids, a mask of
# pixels (images are padded to one size), images in a dim of their own
CASES = {
    "gemma3": ("Gemma3ForConditionalGeneration", gemma3(), dict(side=16, tokens=4, types=True)),
    "idefics3": ("Idefics3ForConditionalGeneration", idefics3(scale_factor=2), dict(
        side=16, tokens=4, nested=True)),
    # positions of images that are smaller than the tower's: 4 x 4 patches at most among 7 x 7 places
    "idefics3_masked": ("Idefics3ForConditionalGeneration", idefics3(
        scale_factor=2, vision=dict(image_size=30), tie_word_embeddings=True), dict(
            side=16, tokens=4, nested=True, mask=True)),
    "smolvlm": ("SmolVLMForConditionalGeneration", idefics3(
        scale_factor=4, vision=dict(image_size=32, patch_size=4)), dict(side=32, tokens=4, nested=True)),
}


def config_of(architecture, fields):
    return getattr(transformers, architecture).config_class(**fields, architectures=[architecture], dtype="float32")


def random_weights(model, gen):
    """Refill a model so that no number is trivially 1 or 0, and attention is far from uniform in both halves."""
    language = model.model.language_model if hasattr(model.model, "language_model") else model.model.text_model
    text.random_weights(language, gen)
    gemma = language.config.model_type.startswith("gemma")
    modules, inside = dict(model.named_modules()), {id(p) for p in language.parameters()}
    with torch.no_grad():
        for name, p in model.named_parameters():
            if id(p) in inside:
                continue
            noise = torch.randn(p.shape, generator=gen)
            owner = type(modules[name.rpartition(".")[0]]).__name__
            if "RMSNorm" in owner:
                p.copy_(0.2 * noise + (0 if gemma else 1))
            elif "Norm" in owner:
                p.copy_(0.2 * noise + (0 if name.endswith("bias") else 1))
            elif name.endswith("bias"):
                p.copy_(0.3 * noise)
            elif owner == "Embedding" or p.dim() == 1 or name.endswith(("_token", "class_embedding", "probe",
                                                                        "position_embeddings")):
                p.copy_(0.5 * noise)
            elif name.endswith("mm_input_projection_weight"):
                p.copy_(noise * p.shape[0] ** -0.5)
            else:
                gain = 2.0 if "lm_head" in name else 1.5 if "q_proj" in name or "k_proj" in name else 1.0
                p.copy_(noise * gain * p[0].numel() ** -0.5)
    return model


def make(architecture, fields, folder, gen):
    """A random checkpoint as transformers' save_pretrained writes it, opened again by transformers."""
    model = getattr(transformers, architecture)(config_of(architecture, fields))
    random_weights(model, gen).save_pretrained(folder)
    return text.opened(folder)


# ---- inputs -------------------------------------------------------------------------------------


def row_of(images, tokens, length, gen):
    """Ids of a row of `length` with so many blocks of image tokens, text before, between and after them."""
    gaps = length - images * tokens
    cuts = sorted(torch.randperm(gaps - 1, generator=gen)[:images].add(1).tolist())
    ids, at = [], 0
    words = torch.randint(3, IMAGE - 1, (gaps,), generator=gen).tolist()
    for cut in cuts:
        ids += words[at:cut] + [IMAGE] * tokens
        at = cut
    return ids + words[at:]


def pictures(counts, spec, gen, channels=3):
    """pixel_values of all images, and what goes with them. With `nested` a dim for a row's images, of which those
    that are not there are zeros; with `mask` images of other sizes than the largest, zeros where they end."""
    side, count = spec["side"], sum(counts)
    pixels = torch.randn(count, channels, side, side, generator=gen)
    mask = torch.ones(count, side, side, dtype=torch.int64)
    if spec.get("mask"):
        least = spec.get("patch", 0) + 1  # one patch alone sees itself, and its gradient is nothing but rounding
        for i in range(count):
            height, width = (torch.randint(least, side + 1, (2,), generator=gen).tolist() if i
                             else (side, max(side - 5, least)))
            mask[i, height:], mask[i, :, width:] = 0, 0
        pixels = pixels * mask[:, None]
    if not spec.get("nested"):
        return {"pixel_values": pixels}
    most, at = max(counts), 0
    nested = torch.zeros(len(counts), most, channels, side, side)
    masks = torch.zeros(len(counts), most, side, side, dtype=torch.int64)
    for row, n in enumerate(counts):
        nested[row, :n], masks[row, :n] = pixels[at:at + n], mask[at:at + n]
        at += n
    return {"pixel_values": nested, "pixel_attention_mask": masks}


def inputs_of(spec, gen, counts=COUNTS, lengths=(19, 9, 14), left=False):
    """A batch of rows padded on the right, or the left."""
    longest = max(lengths)
    ids = torch.zeros(len(lengths), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, (images, length) in enumerate(zip(counts, lengths)):
        at = slice(longest - length, longest) if left else slice(0, length)
        ids[row, at] = torch.tensor(row_of(images, spec["tokens"], length, gen))
        mask[row, at] = 1
    labels = ids.clone()
    labels[(mask == 0) | (ids == IMAGE) | (torch.rand(ids.shape, generator=gen) < 0.15)] = -100
    if left:  # what padding says of a row's first token
        labels[:, 1:][mask[:, :-1] == 0] = -100
    out = {"input_ids": ids, "attention_mask": mask, "labels": labels, **pictures(counts, spec, gen)}
    if spec.get("prefix"):  # what comes after the last picture and a word is learnt
        out["token_type_ids"] = torch.zeros_like(ids)
        for row, images in enumerate(counts):
            at = mask[row].nonzero()[:, 0]
            last = (ids[row] == IMAGE).nonzero()[-1, 0] if images else at[0]
            out["token_type_ids"][row, last + 2:at[-1] + 1] = 1
    if spec.get("types"):
        out["token_type_ids"] = (ids == IMAGE).long()
    return out


# ---- what transformers computes -----------------------------------------------------------------


def features(model, inputs):
    """The rows that take the place of image tokens, of all images [n, C]."""
    more = {k: v for k, v in inputs.items() if k.startswith("pixel_") or k.endswith("_thw") or k == "image_sizes"}
    with torch.no_grad():
        out = model.model.get_image_features(**more, return_dict=True).pooler_output
    out = torch.cat(list(out), 0) if isinstance(out, (list, tuple)) else out
    return out.reshape(-1, out.shape[-1])


def greedy(model, inputs, count):
    """(ids of a prompt and its continuation, smallest lead of a chosen token as a part of the largest logit, whether
    transformers' generate with its cache agrees)."""
    ids, margin = inputs["input_ids"], float("inf")
    fixed = {k: v for k, v in inputs.items() if k not in ("input_ids", "attention_mask", "token_type_ids", "labels")}
    types = inputs.get("token_type_ids")
    with torch.no_grad():
        for _ in range(count):
            more = dict(fixed)
            if types is not None:
                more["token_type_ids"] = torch.nn.functional.pad(
                    types, (0, ids.shape[1] - types.shape[1]), value=int(model.config.model_type == "paligemma"))
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **more).logits[0, -1]
            best = logits.topk(2).values
            margin = min(margin, ((best[0] - best[1]) / logits.abs().max()).item())
            if logits.argmax() == IMAGE:  # there is no image for it
                return ids[0].tolist(), 0.0, False
            ids = torch.cat([ids, logits.argmax().reshape(1, 1)], 1)
        model.generation_config.eos_token_id = None
        cached = model.generate(**{k: v for k, v in inputs.items() if k != "labels"}, do_sample=False,
                                max_new_tokens=count, use_cache=True)
    return ids[0].tolist(), margin, cached[0].tolist() == ids[0].tolist()
