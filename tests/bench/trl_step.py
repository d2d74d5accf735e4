"""Training steps of TRL's SFTTrainer on rows of ids from an .npy file, timed.

Prints one JSON object: seconds of each step, peak resident bytes, losses. The settings are SFTTrainer's own
where they leave a choice: loss_type "nll", which in TRL 1.16 is the chunked one (no logits of all rows at
once), fused AdamW, norm cut to 1, sdpa attention. Two of its defaults are set here instead: gradient
checkpointing (on there) is on with --recompute only, and bf16 (f32 weights under autocast there) is off:
weights, adapters, gradients and moments are in --dtype, as in torch_step.py. A row's last id is left out,
so that each row is as long as amlua's, with one label fewer.

usage: trl_step.py MODEL_DIR IDS.npy --dtype float32|bfloat16 [--lora] [--recompute] [--rows N] [--threads N]
"""

import argparse
import json
import resource
import tempfile
import time

import datasets
import numpy
import torch
import transformers
import trl

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
parser.add_argument("ids", help="int64 [rows, length + 1]")
parser.add_argument("--dtype", default="float32")
parser.add_argument("--lora", action="store_true")
parser.add_argument("--recompute", action="store_true")
parser.add_argument("--rows", type=int, default=4)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()


class Clock(transformers.TrainerCallback):
    """Seconds of each step, from before its forward until its weights are new."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *_, **__):
        self.start = time.monotonic()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.monotonic() - self.start)


torch.set_num_threads(args.threads)
lora = None
if args.lora:
    from peft import LoraConfig

    lora = LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
clock = Clock()
with tempfile.TemporaryDirectory() as output:
    trainer = trl.SFTTrainer(
        args.model,
        trl.SFTConfig(
            output_dir=output, per_device_train_batch_size=args.rows, num_train_epochs=1, max_length=None,
            learning_rate=1e-4, lr_scheduler_type="constant", train_sampling_strategy="sequential",
            dataloader_drop_last=True, gradient_checkpointing=args.recompute, bf16=False, use_cpu=True,
            model_init_kwargs={"dtype": args.dtype, "attn_implementation": "sdpa"}, logging_steps=1,
            report_to="none", save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
        ),
        train_dataset=datasets.Dataset.from_dict({"input_ids": numpy.load(args.ids)[:, :-1].tolist()}),
        peft_config=lora,
        callbacks=[clock],
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:  # PEFT keeps bf16 adapters in f32, amlua in bf16
            parameter.data = parameter.data.to(getattr(torch, args.dtype))
    trainer.train()

print(json.dumps({
    "seconds": clock.seconds,
    "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "trl": trl.__version__,
}))
