"""Training steps of transformers + PEFT + torch's AdamW on rows of ids from an .npy file, timed.

Prints one JSON object: seconds of each step, peak resident bytes, losses. The settings are the ones a
careful user of eager PyTorch has: sdpa attention, no gradient checkpointing unless asked for, AdamW fused.

usage: torch_step.py MODEL_DIR IDS.npy --dtype float32|bfloat16 [--lora] [--compile] [--rows N] [--threads N]
"""

import argparse
import json
import resource
import time

import numpy
import torch
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
parser.add_argument("ids", help="int64 [rows, length + 1]")
parser.add_argument("--dtype", default="float32")
parser.add_argument("--lora", action="store_true")
parser.add_argument("--compile", action="store_true")
parser.add_argument("--recompute", action="store_true")
parser.add_argument("--rows", type=int, default=4)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()

torch.set_num_threads(args.threads)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype), attn_implementation="sdpa")
if args.lora:
    from peft import LoraConfig, get_peft_model

    # adapters in the model's dtype, as amlua has them; PEFT would keep them in f32
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
                           autocast_adapter_dtype=False)
if args.recompute:
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
model.train()
run = torch.compile(model) if args.compile else model
parameters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

ids = torch.from_numpy(numpy.load(args.ids)).long()
seconds, losses = [], []
for first in range(0, len(ids) - args.rows + 1, args.rows):
    batch = ids[first:first + args.rows]
    start = time.monotonic()
    out = run(input_ids=batch[:, :-1], use_cache=False)
    loss = torch.nn.functional.cross_entropy(out.logits.float().flatten(0, 1), batch[:, 1:].flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(loss.item())
    seconds.append(time.monotonic() - start)

print(json.dumps({
    "seconds": seconds,
    "losses": losses,
    "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "torch": torch.__version__,
}))
