"""Loss and gradients of TRL's DPOTrainer on two tiny Llamas, for dpo_spec.lua.

    python tests/parity/dpo_golden.py

The policy is golden/tiny_llama/gqa, the reference golden/tiny_llama/mha. Writes golden/dpo.safetensors: the
batch that TRL made (chosen rows, then rejected ones), the loss and every gradient of the policy.
"""
import os
import tempfile

import torch
from datasets import Dataset
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

golden = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(67)}, unk_token="w3"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w2", pad_token="w0", bos_token="w1")

draw = torch.Generator().manual_seed(5)


def text(n):
    return " ".join(f"w{i}" for i in torch.randint(4, 67, (n,), generator=draw).tolist())


rows = [{"prompt": text(p) + " ", "chosen": text(c), "rejected": text(r)} for p, c, r in [(4, 5, 3), (7, 2, 6), (1, 8, 8)]]
with tempfile.TemporaryDirectory() as folder:
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(os.path.join(golden, "tiny_llama/gqa"), dtype=torch.float32),
        ref_model=AutoModelForCausalLM.from_pretrained(os.path.join(golden, "tiny_llama/mha"), dtype=torch.float32),
        args=DPOConfig(
            output_dir=folder,
            beta=0.3,
            per_device_train_batch_size=3,
            bf16=False,
            use_cpu=True,
            report_to=[],
            gradient_checkpointing=False,
            disable_dropout=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    loss = trainer._compute_loss(trainer.model, batch, False)
    loss.backward()
    out = {key: batch[key].int().contiguous() for key in ("input_ids", "attention_mask", "completion_mask")}
    out["loss"] = loss.detach().reshape(1)
    for name, p in trainer.accelerator.unwrap_model(trainer.model).named_parameters():
        out["grad." + name] = p.grad.contiguous()
    save_file(out, os.path.join(golden, "dpo.safetensors"))
    print("loss", loss.item())
