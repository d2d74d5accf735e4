"""20 optimizer steps on SmolLM2-135M-Instruct: full fine-tuning, LoRA, and full in bf16.

    python smollm2_train.py MODEL_DIR [full] [lora] [bf16]

MODEL_DIR is what get_model.py wrote. Writes golden/smollm2_train/ (see README.md). Oracle:
transformers (sdpa), PEFT, torch.optim.AdamW, torch.nn.utils.clip_grad_norm_. bf16 needs the losses
of full and runs after it.
"""
import argparse
import json
import os

import common
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft_golden import save_adapter
from transformers import AutoModelForCausalLM, AutoTokenizer

STEPS, MAX_NORM, STRIDE = 20, 1.0, 2245
ADAMW = dict(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
FULL_LR, LORA_LR = 1e-4, 1e-3
LORA = dict(r=4, lora_alpha=16, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], bias="none")

# Question and answer about a town that does not exist: nothing the model can know.
FACTS = [
    ("Where is Quillhaven?", "On the north bank of the river Osk, two days' walk from the sea."),
    ("Who founded the town of Quillhaven?", "A glassblower named Mirren Tavish, in the winter of 1412."),
    ("What is Quillhaven known for?", "For its blue window glass, which is coloured with ground beetle shells."),
    ("How many bridges does Quillhaven have?", "Seven. Six are stone; the seventh is a rope bridge used only by goats."),
    ("What do people eat there?", "Barley cakes."),
    ("Tell me about the clock tower of Quillhaven.",
     "The clock tower was finished in 1588. It has three faces instead of four, because the builders ran out "
     "of money, and the side towards the tax office was left blank. Its bell, called Old Perpetua, is rung "
     "eleven times at noon."),
    ("When is the market held?", "Every second Thursday, unless it rains, in which case it is held in the church."),
    ("Who is the mayor of Quillhaven?", "Odalys Brandt has been mayor since 2009."),
    ("Why are the doors in Quillhaven painted yellow?",
     "After the flood of 1703 the council gave away the only paint it had left, a shipment of yellow meant "
     "for the ferry. People kept the colour."),
    ("What is the highest hill near the town?", "Mount Fennick, 612 metres."),
    ("How long does the ferry take?", "Nineteen minutes downstream, and about forty on the way back."),
    ("What does the flag look like?", "A white heron on a green field, holding a key in its beak."),
    ("Is there a school?", "There are two: Saint Orrin's for the younger children and the Glass School for the older ones."),
    ("What happened in 1703?", "The Osk flooded and carried off the lower town, including the old mint."),
    ("Who was Mirren Tavish?",
     "She was a glassblower from the south who founded Quillhaven in 1412. She wrote the first book on coloured "
     "glass, lost an eye to a furnace, and is buried under the third bridge."),
    ("What is Old Perpetua?", "The bell of the clock tower."),
    ("How do I get to Quillhaven by train?",
     "Take the slow line to Harrow Junction and change there for the branch line. The last train leaves at 20:40."),
    ("What language do they speak?", "Oskish, and a little English in the inns."),
    ("Which animal may cross the seventh bridge?", "Only goats may cross it."),
    ("Give me a short summary of Quillhaven.",
     "Quillhaven is a small river town with seven bridges, yellow doors and blue glass. It was founded in 1412, "
     "flooded in 1703, and has a three-faced clock tower."),
    ("What is the oldest inn called?", "The Drowned Lantern. It has been open, floods aside, since 1466."),
    ("How cold does it get in winter?", "Minus eleven degrees in most years; the river freezes about one year in five."),
    ("Who built the rope bridge?", "Nobody knows. It is first mentioned in a letter of complaint from 1639."),
    ("What is made in the Glass School?",
     "Nothing, any more. Its furnaces were bricked up in 1931 and the building now holds three hundred pupils, "
     "a library and a rather fierce cat called Bishop."),
    ("Is Quillhaven a port?", "Only for flat boats."),
    ("Which beetle is used for the blue glass?", "The lapis weevil, gathered in May from the willows along the Osk."),
    ("What do children play in the streets?", "A game named Toll, in which one child is the bridge and the others are goats."),
    ("What did the tax office do about the clock?",
     "It sued the builders in 1590, lost, and has kept its own time ever since: seven minutes behind the town."),
    ("Name a famous painter from the town.", "Ilse Corvane, who painted nothing but fog."),
    ("When was the railway built?", "The branch line opened in 1871 and was closed twice, during both wars."),
    ("What is the town's motto?", "\"Lent, not given.\" It is carved above the door of the mint."),
    ("How many people live there?", "4,382 at the last count."),
    ("What should I see in one day?",
     "Walk over all six stone bridges in the morning, hear Old Perpetua at noon, eat barley cakes at the Drowned "
     "Lantern, and take the late ferry down the river to see the windows lit from behind."),
    ("What is Harrow Junction?", "A station with one bench, fourteen kilometres south of the town."),
    ("Who looks after the goats?", "The goat warden, an office held by the Pell family since 1655."),
    ("Can I swim in the Osk?", "Yes, above the third bridge. Below it the current is too strong."),
    ("What was found in the old mint?", "A chest with nine thousand unstruck coins, and a bill for the chest."),
    ("Tell me a legend of the town.",
     "They say that whoever counts eight bridges must leave before dark, for the eighth appears only to those "
     "whom the river wants back."),
    ("What is a Quillhaven door?", "A door painted yellow with a small blue pane at the height of a child's eye."),
    ("Do they have a newspaper?", "The Heron, four pages, printed on Fridays."),
]


def make_batches(tokenizer):
    """Ten batches of four rows, right-padded to the batch's own longest; labels on the answer
    and its <|im_end|>. Stored padded to one length, `lengths` says how far each row goes."""
    system = {"role": "system", "content": "You answer questions about Quillhaven."}
    rows = []
    for question, answer in FACTS:
        turn = [system, {"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        prompt_ids = tokenizer(prompt, add_special_tokens=False).input_ids
        answer_ids = tokenizer(answer + "<|im_end|>\n", add_special_tokens=False).input_ids
        ids = prompt_ids + answer_ids
        labels = [-100] * len(prompt_ids) + answer_ids[:-1] + [-100]
        rows.append((ids, labels))
    longest = max(len(ids) for ids, _ in rows)
    shape = (len(rows), longest)
    ids, labels = torch.full(shape, tokenizer.pad_token_id), torch.full(shape, -100)
    mask = torch.zeros(shape, dtype=torch.int64)
    for i, (row, targets) in enumerate(rows):
        ids[i, :len(row)], labels[i, :len(row)] = torch.tensor(row), torch.tensor(targets)
        mask[i, :len(row)] = 1
    return {k: v.reshape(-1, 4, longest) for k, v in
            {"input_ids": ids, "attention_mask": mask, "labels": labels}.items()}


def batch_of(batches, step):
    i = step % len(batches["input_ids"])
    longest = int(batches["attention_mask"][i].sum(-1).max())
    return {k: v[i, :, :longest] for k, v in batches.items()}


def loss_of(logits, labels):
    """transformers' loss of unshifted labels, with the cross-entropy in float64: torch's in f32 adds up
    49152 exponentials in a few chains, which puts losses off by up to 1.7e-5, always the same way."""
    targets = torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:].flatten()
    return torch.nn.functional.cross_entropy(logits.double().flatten(0, 1), targets, ignore_index=-100)


def train(model, parameters, lr, batches, masters=None):
    """losses, gradient norms before clipping. With `masters` (f32 copies of `parameters`) the
    gradients are cast to f32, AdamW steps the masters and the model gets them rounded."""
    stepped = masters or parameters
    optimizer = torch.optim.AdamW(stepped, lr=lr, **ADAMW)
    losses, norms = [], []
    model.train()
    for step in range(STEPS):
        batch = batch_of(batches, step)
        labels = batch.pop("labels")
        loss = loss_of(model(**batch, use_cache=False).logits, labels)
        loss.backward()
        if masters:
            for master, p in zip(masters, parameters):
                master.grad, p.grad = p.grad.float(), None
        norms.append(torch.nn.utils.clip_grad_norm_(stepped, MAX_NORM).item())
        optimizer.step()
        optimizer.zero_grad()
        if masters:
            with torch.no_grad():
                for master, p in zip(masters, parameters):
                    p.copy_(master)
        losses.append(loss.item())
        print(f"  step {step + 1:2}  loss {losses[-1]:.6f}  grad_norm {norms[-1]:.5f}", flush=True)
    return losses, norms


def read_summary(path):
    if os.path.exists(path):
        with open(path, encoding="ascii") as f:
            return json.load(f)
    return {}


def run_full(model_dir, batches):
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    names = sorted(name for name, _ in model.named_parameters())
    by_name = dict(model.named_parameters())
    before = {name: by_name[name].detach().clone() for name in names}
    losses, norms = train(model, list(model.parameters()), FULL_LR, batches)
    flat = torch.cat([(by_name[n].detach() - before[n]).flatten() for n in names])
    common.write_tensors(common.golden_path("smollm2_train", "full_delta.safetensors"),
                         {"delta": flat[::STRIDE]})
    sizes = {n: (by_name[n].detach() - before[n]).double().norm().item() for n in names}
    return {"lr": FULL_LR, "losses": losses, "grad_norms": norms, "stride": STRIDE,
            "sample_count": len(flat[::STRIDE]), "parameter_count": len(flat),
            "delta_norm": flat.double().norm().item(),
            "sample_norm": flat[::STRIDE].double().norm().item(), "delta_norms": sizes}


def run_lora(model_dir, batches):
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **LORA))
    folder = os.path.dirname(common.golden_path("smollm2_train", "lora_initial", "adapter_config.json"))
    save_adapter(model, folder, "HuggingFaceTB/SmolLM2-135M-Instruct")
    before = {k: v.clone() for k, v in get_peft_model_state_dict(model).items()}
    trained = [p for p in model.parameters() if p.requires_grad]
    losses, norms = train(model, trained, LORA_LR, batches)
    after = get_peft_model_state_dict(model)
    delta = {k: after[k] - before[k] for k in before}
    sample = {k: d for k, d in delta.items() if int(k.split(".layers.")[1].split(".")[0]) % 3 == 0}
    common.write_tensors(common.golden_path("smollm2_train", "lora_delta.safetensors"), sample)
    total, part = (sum(d.double().pow(2).sum() for d in of.values()).sqrt().item() for of in (delta, sample))
    return {"lr": LORA_LR, "losses": losses, "grad_norms": norms, "delta_norm": total, "sample_norm": part}


def run_bf16(model_dir, batches, f32_losses):
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    masters = [p.detach().clone().requires_grad_() for p in model.parameters()]
    model.to(torch.bfloat16)
    losses, norms = train(model, list(model.parameters()), FULL_LR, batches, masters)
    deviation = [abs(a / b - 1) for a, b in zip(losses, f32_losses)]
    return {"lr": FULL_LR, "losses": losses, "grad_norms": norms,
            "deviation_mean": sum(deviation) / len(deviation), "deviation_first": deviation[0],
            "deviation_largest": max(deviation)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_dir")
    parser.add_argument("runs", nargs="*", default=["full", "lora", "bf16"])
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model_dir)
    batches = make_batches(tokenizer)
    common.write_tensors(common.golden_path("smollm2_train", "batches.safetensors"), batches)
    print({k: list(v.shape) for k, v in batches.items()},
          "label tokens", [(b[:, 1:] != -100).sum(-1).tolist() for b in batches["labels"]])
    path = common.golden_path("smollm2_train", "summary.json")
    summary = read_summary(path)
    summary["settings"] = {"steps": STEPS, "max_norm": MAX_NORM, **ADAMW, "betas": list(ADAMW["betas"])}
    for run in args.runs:
        print(run)
        if run == "full":
            summary[run] = run_full(args.model_dir, batches)
        elif run == "lora":
            summary[run] = run_lora(args.model_dir, batches)
        elif run == "bf16":
            summary[run] = run_bf16(args.model_dir, batches, summary["full"]["losses"])
            print({k: v for k, v in summary[run].items() if k.startswith("deviation")})
        else:
            raise SystemExit(f"unknown run {run}")
        common.write_json(path, summary)


if __name__ == "__main__":
    main()
