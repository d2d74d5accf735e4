"""Goldens of models of images and text: a tiny random checkpoint of each and what transformers computes of it.

    python vlm_golden.py [CASE ...]

Writes golden/CASE/{config.json,generation_config.json,model.safetensors} as transformers' save_pretrained does, and
golden.safetensors: input_ids, attention_mask, labels, for PaliGemma token_type_ids [3,T]: a row with two pictures, one
with one, padded on the right, and one of text alone; pixel_values [3,3,H,W]; features, of the three pictures, a row an
image token; logits; losses [3] before each of three steps of torch's AdamW (lr 1e-3, weight decay 0.1), grad.NAME of
the first and step.NAME after the third, by the names of model.safetensors; greedy, a prompt with one picture (the
first) and the 8 ids that follow it. Its metadata has the versions and the seed.

A seed is passed over where rounding would decide about a greedy token.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "models"))

import families  # noqa: E402
import oracle  # noqa: E402
import torch  # noqa: E402
import towers_golden  # noqa: E402
import transformers  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
IMAGE, NEW, TOKEN = 46, 8, 2e-3
VISION = dict(towers_golden.BASE, num_hidden_layers=2, intermediate_size=20, image_size=11, patch_size=4)
TEXT = dict(vocab_size=48, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, rms_norm_eps=0.01, max_position_embeddings=64, pad_token_id=0,
            bos_token_id=1, eos_token_id=2)


def vision(kind, **fields):
    values = {**VISION, **fields, "model_type": kind}
    if kind == "dinov2":
        values.pop("intermediate_size")
        values["mlp_ratio"] = 2
    return values


def text(kind, **fields):
    values = {**TEXT, **fields, "model_type": kind}
    if kind == "qwen2":
        values.pop("head_dim")
    return values


# name -> architecture, fields of its configuration
CASES = {
    "llava": ("LlavaForConditionalGeneration", dict(
        vision_config=vision("clip_vision_model", num_hidden_layers=3), text_config=text("llama"),
        image_token_index=IMAGE)),
    "llava_layers": ("LlavaForConditionalGeneration", dict(
        vision_config=vision("clip_vision_model"), text_config=text("mistral", sliding_window=6),
        image_token_index=IMAGE, vision_feature_layer=[-2, 2], multimodal_projector_bias=False,
        projector_hidden_act="gelu_pytorch_tanh")),
    "llava_siglip": ("LlavaForConditionalGeneration", dict(
        vision_config=vision("siglip_vision_model"), text_config=text("qwen2", tie_word_embeddings=True),
        image_token_index=IMAGE, vision_feature_layer=-1, vision_feature_select_strategy="full")),
    "llava_dinov2": ("LlavaForConditionalGeneration", dict(
        vision_config=vision("dinov2", image_size=16, use_swiglu_ffn=True), text_config=text("llama"),
        image_token_index=IMAGE, vision_feature_layer=-1)),
    # an image token beyond the vocabulary
    "paligemma": ("PaliGemmaForConditionalGeneration", dict(
        vision_config=vision("siglip_vision_model", vision_use_head=False), text_config=text("gemma"),
        image_token_index=48, projection_dim=16)),
    "paligemma2": ("PaliGemmaForConditionalGeneration", dict(
        vision_config=vision("siglip_vision_model", vision_use_head=False), image_token_index=IMAGE, projection_dim=16,
        text_config=text("gemma2", sliding_window=6, query_pre_attn_scalar=10, attn_logit_softcapping=3.0,
                         final_logit_softcapping=4.0, num_hidden_layers=2))),
}


def random_weights(model, gen):
    """Those of text families and of towers, each for its part."""
    families.random_weights(model, gen)
    for name, part in model.model.named_children():
        if name != "language_model":
            towers_golden.random_weights(part, gen)


def rows(image, per_picture, gen, suffixes):
    """input_ids, attention_mask, labels and, with suffixes, token_type_ids of the three rows."""
    def words(n):
        return torch.randint(3, IMAGE, (n,), generator=gen).tolist()
    picture = [image] * per_picture
    made = [words(2) + picture + words(1) + picture + words(7), picture + words(9), words(12)]
    starts = [len(made[0]) - 4, len(made[1]) - 5, 7]  # of the suffix
    longest = max(map(len, made))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in made])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in made])
    labels = torch.where((mask == 0) | (ids == image) | (torch.rand(ids.shape, generator=gen) < 0.15), -100, ids)
    out = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if suffixes:
        kinds = torch.tensor([[0] * start + [1] * (longest - start) for start in starts])
        out["token_type_ids"] = torch.where(mask == 0, 0, kinds)
    return out


def greedy(model, prompt, pixels, suffixes):
    """(ids, smallest lead as a part of the largest logit, whether the cache gives the same)."""
    ids, margin = list(prompt), float("inf")
    def extra(n):
        return {"token_type_ids": torch.tensor([[0] * len(prompt) + [1] * (n - len(prompt))])} if suffixes else {}
    with torch.no_grad():
        for _ in range(NEW):
            logits = model(input_ids=torch.tensor([ids]), pixel_values=pixels, use_cache=False,
                           **extra(len(ids))).logits[0, -1]
            best = logits.topk(2).values
            margin = min(margin, ((best[0] - best[1]) / logits.abs().max()).item())
            ids.append(int(logits.argmax()))
        model.generation_config.eos_token_id = None
        row = torch.tensor([prompt])
        cached = model.generate(input_ids=row, attention_mask=torch.ones_like(row), pixel_values=pixels,
                                do_sample=False, max_new_tokens=NEW, **extra(len(prompt)))[0].tolist()
    return ids, margin, cached == ids


def attempt(name, folder, seed):
    architecture, fields = CASES[name]
    gen = torch.Generator().manual_seed(seed)
    cls = getattr(transformers, architecture)
    config = cls.config_class(**fields, architectures=[architecture], dtype="float32")
    model = cls(config)
    random_weights(model, gen)
    model.save_pretrained(folder)
    model = families.opened(folder)
    side, suffixes = config.vision_config.image_size, architecture.startswith("PaliGemma")
    pixels = torch.randn(3, 3, side, side, generator=gen)
    with torch.no_grad():
        features = model.get_image_features(pixel_values=pixels).pooler_output
    features = torch.stack(list(features))
    inputs = {**rows(config.image_token_id, features.shape[1], gen, suffixes), "pixel_values": pixels}
    ids, margin, same = greedy(model, inputs["input_ids"][1, :features.shape[1] + 4].tolist(), pixels[:1], suffixes)
    if margin < TOKEN or not same:
        return None, f"lead {margin:.1e}, cache {'agrees' if same else 'differs'}"
    golden = {**inputs, "features": features.flatten(0, 1), "greedy": torch.tensor(ids),
              **families.losses_and_steps(model, inputs)}
    return golden, f"lead {margin:.1e}"


if __name__ == "__main__":
    oracle.main(os.path.join(HERE, "golden"), CASES, attempt)
