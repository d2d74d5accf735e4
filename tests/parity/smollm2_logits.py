"""SmolLM2-135M-Instruct's logits on English text, sampled, and three greedy answers.

    python smollm2_logits.py MODEL_DIR

MODEL_DIR is what get_model.py wrote. Writes golden/smollm2_logits.safetensors (see README.md) and
golden/smollm2_greedy.json. The text is this file's OPENING, then the repository's LICENSE.
"""
import argparse
import os

import common
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

LENGTHS = (33, 512, 2048)
POSITIONS, COLUMNS = 64, 384
OPENING = """The ferry left the harbour a little after six, while the lamps along the pier were still lit. \
Anna stood at the rail and counted the gulls: eleven, then twelve, then none. "You'll be cold," said the \
old man beside her, and he was right; by the time they passed the lighthouse (built in 1887, they say) \
her hands had gone white. She didn't mind. In her bag were three letters, a knife, 40 francs and a map \
on which someone had drawn a single red line from the coast to the mountains.

"""
PROMPTS = ["What is the capital of France?", "Write a haiku about the sea.",
           "List three uses of a hammer, one line each."]


def sample(model, ids, positions, columns):
    """Logits at positions × columns, logsumexp and argmax of every position, max |logit|."""
    hidden = model.model(input_ids=ids[None], use_cache=False).last_hidden_state[0]
    lse, top, largest, picked = [], [], 0.0, {}
    for start in range(0, len(ids), 128):
        logits = model.lm_head(hidden[start:start + 128])
        lse.append(logits.logsumexp(-1))
        top.append(logits.argmax(-1))
        largest = max(largest, logits.abs().max().item())
        for p in positions.tolist():
            if start <= p < start + len(logits):
                picked[p] = logits[p - start].clone()
    top = torch.cat(top)
    if columns is None:
        columns = torch.unique(top[positions])
        gen = torch.Generator().manual_seed(5)
        order = torch.randperm(model.config.vocab_size, generator=gen)
        taken = set(columns.tolist())
        more = [c for c in order.tolist() if c not in taken][:COLUMNS - len(columns)]
        columns = torch.tensor(sorted(columns.tolist() + more))
    logits = torch.stack([picked[p][columns] for p in positions.tolist()])
    return dict(logits=logits, logsumexp=torch.cat(lse), argmax=top, largest=largest, columns=columns)


def logits_golden(model, ids):
    golden = {}
    for length in LENGTHS:
        positions = torch.linspace(0, length - 1, min(POSITIONS, length)).round().long()
        row = ids[:length]
        with torch.no_grad():
            f32 = sample(model, row, positions, None)
            with common.float64_llama(model):
                f64 = sample(model, row, positions, f32["columns"])
        error = (f32["logits"].double() - f64["logits"]).abs()
        prefix = f"t{length}."
        golden.update({
            prefix + "input_ids": row, prefix + "positions": positions,
            prefix + "columns": f32["columns"], prefix + "logits": f32["logits"],
            prefix + "logits64": f64["logits"], prefix + "logsumexp": f32["logsumexp"],
            prefix + "logsumexp64": f64["logsumexp"], prefix + "argmax": f64["argmax"],
            prefix + "largest": torch.tensor([f32["largest"]]),
            prefix + "error_mean": error.mean().reshape(1),
        })
        print(f"T={length}: |logits| {f32['largest']:.3f}, f32 error of it: mean "
              f"{error.mean().item() / f32['largest']:.2e} max {error.max().item() / f32['largest']:.2e}, "
              f"argmax equal in f64: {bool((f32['argmax'] == f64['argmax']).all())}")
    common.write_tensors(common.golden_path("smollm2_logits.safetensors"), golden)


def greedy_golden(model, tokenizer):
    """64 tokens at most each, up to and with <|im_end|>; margin = smallest lead of the chosen
    token over the next one."""
    answers = []
    for prompt in PROMPTS:
        messages = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False,
                             output_logits=True, return_dict_in_generate=True)
        new = out.sequences[0, ids.shape[1]:]
        best = torch.stack(out.logits)[:, 0].topk(2).values
        answers.append({"messages": messages, "rendered": text, "input_ids": ids[0].tolist(),
                        "output_ids": new.tolist(), "text": tokenizer.decode(new, skip_special_tokens=True),
                        "margin": round((best[:, 0] - best[:, 1]).min().item(), 5)})
        print(prompt, "->", repr(answers[-1]["text"]), answers[-1]["margin"])
    common.write_json(common.golden_path("smollm2_greedy.json"), answers)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_dir")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model_dir)
    model = AutoModelForCausalLM.from_pretrained(args.model_dir, dtype=torch.float32).eval()
    with open(os.path.join(common.HERE, "..", "..", "LICENSE"), encoding="utf-8") as f:
        text = OPENING + f.read()
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids[0]
    greedy_golden(model, tokenizer)
    logits_golden(model, ids)


if __name__ == "__main__":
    main()
