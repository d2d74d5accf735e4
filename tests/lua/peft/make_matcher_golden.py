"""Which modules NeMo Automodel's ModuleMatcher takes of some models, for some configurations.

    python make_matcher_golden.py

Writes matcher_golden.json: the models' modules in order, as [name, is it linear], and for each
configuration either what it is refused with ("error": the exception's class) or the linear modules that it
takes of each model. nemo_automodel applies LoRA to linear maps only, so others are left out here too.
"""
import json
import logging
import os

from torch import nn

from nemo_automodel.components._peft.module_matcher import ModuleMatcher

logging.disable(logging.WARNING)


def llama(layers, prefix="model", attn=("q_proj", "k_proj", "v_proj", "o_proj")):
    out = [(prefix, 0), (f"{prefix}.embed_tokens", 0), (f"{prefix}.layers", 0)]
    for i in range(layers):
        at = f"{prefix}.layers.{i}"
        out += [(at, 0), (f"{at}.self_attn", 0), *((f"{at}.self_attn.{n}", 1) for n in attn),
                (f"{at}.mlp", 0), *((f"{at}.mlp.{n}", 1) for n in ("gate_proj", "up_proj", "down_proj")),
                (f"{at}.mlp.act_fn", 0), (f"{at}.input_layernorm", 0)]
    return out + [(f"{prefix}.norm", 0)]


def gpt2(layers):
    out = [("transformer", 0), ("transformer.wte", 0)]
    for i in range(layers):
        at = f"transformer.h.{i}"
        out += [(f"{at}.attn.c_attn", 1), (f"{at}.attn.c_proj", 1), (f"{at}.mlp.c_fc", 1),
                (f"{at}.mlp.c_proj", 1)]
    return out + [("lm_head", 1)]


MODELS = {
    "llama": llama(12) + [("lm_head", 1)],
    "phi3": llama(2, attn=("qkv_proj", "o_proj")) + [("lm_head", 1)],
    "gpt2": gpt2(2),
    "seq_cls": llama(2) + [("score", 1)],
    "vlm": [("vision_tower", 0), ("vision_tower.encoder.layers.0.self_attn.q_proj", 1),
            ("vision_tower.encoder.layers.0.mlp.fc1", 1), ("multi_modal_projector.linear_1", 1),
            *llama(2, prefix="language_model.model"), ("language_model.lm_head", 1)],
    "bert": [("encoder.layer.0.attention.self.query", 1), ("encoder.layer.0.attention.self.value", 1),
             ("encoder.layer.0.attention.output.dense", 1), ("pooler.dense", 1)],
}

CONFIGS = [
    {}, {"match_all_linear": True}, {"target_modules": []}, {"exclude_modules": []},
    {"target_modules": "*_proj"}, {"target_modules": ["*_proj"]}, {"target_modules": "*"},
    {"target_modules": ".*"}, {"target_modules": "*q_proj"}, {"target_modules": "*.q_proj"},
    {"target_modules": ["*.q_proj", "*.v_proj"]}, {"target_modules": "*.layers.0.*"},
    {"target_modules": "*.layers.1.*_proj"}, {"target_modules": "model.layers.*.self_attn.q_proj"},
    {"target_modules": ["model.layers.1.mlp.up_proj"]}, {"target_modules": "*layers.1*"},
    {"target_modules": "*layers.?.*"}, {"target_modules": "*.layers.[02].*"},
    {"target_modules": "*.layers.(0|1).self_attn.[qk]_proj"}, {"target_modules": "*(q|v)_proj"},
    {"target_modules": r".*\.(q|k|v)_proj"}, {"target_modules": r"model\.layers\.\d+\.mlp\.up_proj"},
    {"target_modules": r"model\.layers\.1[01]\.self_attn\..*"}, {"target_modules": "model.layers.1..*"},
    {"target_modules": ".*layers.0.+"}, {"target_modules": "^model.*q_proj$"},
    {"target_modules": "model.*|lm_head"}, {"target_modules": "lm_head"}, {"target_modules": "*lm_head"},
    {"target_modules": ["*lm_head", "*.down_proj"]}, {"target_modules": "*MLP*"},
    {"target_modules": "*fc*"}, {"target_modules": ".*c_.*"},
    {"target_modules": "*.query"}, {"target_modules": "*dense"}, {"target_modules": "**proj"},
    {"target_modules": "*self_attn*proj*"}, {"target_modules": "model.layers.{0,1}*q_proj"},
    {"target_modules": "model?layers*o_proj"}, {"target_modules": "model.layers.0"},
    {"target_modules": "score"}, {"target_modules": "*scor?"}, {"target_modules": "*_proj_*"},
    {"target_modules": ""}, {"target_modules": "q_proj"}, {"target_modules": ["q_proj", "*.v_proj"]},
    {"target_modules": "dense"}, {"target_modules": r"*.\w_proj"}, {"target_modules": r"(?!model).*"},
    {"target_modules": "("}, {"target_modules": r"*.layers.[0"}, {"target_modules": r"model\.*"},
    {"target_modules": "+"},
    {"exclude_modules": "*lm_head*"}, {"exclude_modules": ["*vision*", "*lm_head*"]},
    {"exclude_modules": "*.out_proj"}, {"exclude_modules": "lm_head"}, {"exclude_modules": "*"},
    {"exclude_modules": ["*mlp*", "model.layers.0.self_attn.q_proj", "score"]},
    {"exclude_modules": r".*\.[qkvo]_proj"}, {"exclude_modules": "gate_proj"},
    {"target_modules": "*q_proj", "exclude_modules": "*k_proj"},
    {"match_all_linear": True, "target_modules": "*q_proj"},
    {"match_all_linear": True, "exclude_modules": ["*k_proj"]},
    {"match_all_linear": True, "target_modules": [], "exclude_modules": []},
]


def taken(config):
    try:
        matcher = ModuleMatcher(**config, is_causal_lm=True)
        return {model: [name for name, is_linear in modules
                        if is_linear and matcher.match(nn.Linear(1, 1), name)]
                for model, modules in MODELS.items()}
    except Exception as e:  # noqa: BLE001, whatever it is: the golden says that it is refused
        return {"error": type(e).__name__}


def main():
    golden = {"models": {k: [list(m) for m in v] for k, v in MODELS.items()}, "cases": []}
    for config in CONFIGS:
        found = taken(config)
        if "error" not in found:  # places in the model's list, which keeps the file small
            found = {model: [[n for n, _ in MODELS[model]].index(name) for name in names]
                     for model, names in found.items()}
        golden["cases"].append({"config": config, "taken": found})
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "matcher_golden.json")
    with open(path, "w", encoding="ascii") as f:
        f.write('{"models": {\n')
        f.write(",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in golden["models"].items()))
        f.write('},\n"cases": [\n')
        f.write(",\n".join(" " + json.dumps(c) for c in golden["cases"]))
        f.write("\n]}\n")


if __name__ == "__main__":
    main()
