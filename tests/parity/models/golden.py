"""Goldens of every family: a tiny random checkpoint and what transformers computes of it.

    python golden.py [CASE ...]

Writes golden/CASE/{config.json,generation_config.json,model.safetensors} as transformers'
save_pretrained does; hub.json, the same configuration as older files on the hub spell it, which is read back
to the same logits; and golden.safetensors: input_ids, attention_mask, position_ids, labels [2,21] (the
second row padded on the right); logits [2,21,48]; losses [3], before each of three steps of torch's
AdamW (lr 1e-3, weight decay 0.1); grad.NAME of the first, step.NAME, the parameters after the third, both
under the names of model.safetensors; greedy [8 + 12], a prompt and what follows it (22 + 12 for LongRoPE, beyond whose
original length it begins); score.weight [3,hidden] and classes [2,3], a classifier's head on the same body and
its logits, where transformers has one. Its metadata has the
versions and the seed.

A seed is passed over where rounding would decide: an expert or a greedy token without a clear lead.
"""
import os

import families
import oracle
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT, NEW = 8, 12
# Leads below these are left to no rounding: of a router's logit, and of a token's as a part of the largest.
ROUTER, TOKEN = 2e-3, 2e-3


def attempt(name, folder, seed):
    """The golden of one seed, or why it is none."""
    architecture, fields = families.CASES[name]
    gen = torch.Generator().manual_seed(seed)
    model = families.make(architecture, fields, folder, gen)
    inputs = families.inputs_of(model.config.vocab_size, gen)
    prompt = torch.randint(3, model.config.vocab_size, (families.LENGTHS[0] + 1 if "longrope" in name else PROMPT,),
                           generator=gen).tolist()
    with families.router_margins(model) as margins:
        ids, margin, same = families.greedy(model, prompt, NEW)
        golden = {**inputs, **families.losses_and_steps(model, inputs), "greedy": torch.tensor(ids)}
    if not same:
        return None, "transformers' greedy tokens differ with its cache"
    if margin < TOKEN or min(margins, default=1.0) < ROUTER:
        return None, f"leads of {margin:.1e} and {min(margins, default=1.0):.1e}"
    families.write_hub_config(folder, "hub.json")
    oracle.same_from_hub_spelling(folder, golden["logits"], inputs)
    golden.update(families.classify(folder, inputs, gen))
    return golden, f"lead {margin:.1e}, router {min(margins, default=1.0):.1e}"


if __name__ == "__main__":
    oracle.main(os.path.join(HERE, "golden"), families.CASES, attempt)
