"""A tiny random classifier on a Llama body, with its golden.

    python tests/parity/tiny_seq_cls.py

Writes golden/tiny_seq_cls/{config.json,model.safetensors,golden.safetensors}: input_ids and attention_mask of
rows of several lengths, labels, logits, the loss and every gradient. Oracle: transformers in f32.
"""
import os

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForSequenceClassification

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "tiny_seq_cls")
torch.manual_seed(17)
config = LlamaConfig(
    hidden_size=32,
    intermediate_size=44,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=67,
    max_position_embeddings=64,
    pad_token_id=0,
    num_labels=3,
)
model = LlamaForSequenceClassification(config).eval()
with torch.no_grad():
    for p in model.parameters():
        p.add_(torch.randn_like(p) * 0.05)
model.save_pretrained(here)

ids = torch.randint(3, 67, (4, 12))
mask = torch.ones_like(ids)
for row, length in enumerate([12, 7, 1, 10]):
    ids[row, length:], mask[row, length:] = 0, 0
labels = torch.tensor([2, 0, 1, 2])
out = model(input_ids=ids, attention_mask=mask, labels=labels)
out.loss.backward()
golden = {"input_ids": ids.int(), "attention_mask": mask.int(), "labels": labels.int(), "logits": out.logits.detach(),
          "loss": out.loss.detach().reshape(1)}
for name, p in model.named_parameters():
    golden["grad." + name] = p.grad.contiguous()
save_file(golden, os.path.join(here, "golden.safetensors"))
