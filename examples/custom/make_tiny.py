"""A tiny random StableLM and what transformers computes of it, for recipes/compare.lua and the tests.

    python make_tiny.py FOLDER
"""
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, StableLmConfig

folder = sys.argv[1]
torch.manual_seed(1)
config = StableLmConfig(vocab_size=96, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256, use_qkv_bias=True,
                        rope_parameters={"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
                        bos_token_id=95, eos_token_id=95)
model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
for name, p in model.named_parameters():  # all of them: a bias of 0 or a norm of 1 hides a mistake
    p.data.normal_(float("norm.weight" in name), 0.3)
model.save_pretrained(folder)
ids = torch.randint(0, 95, (2, 12))
out = model(ids, labels=ids, output_hidden_states=True)
out.loss.backward()
save_file({"input_ids": ids, "labels": ids.clone(), "logits": out.logits.detach(), "loss": out.loss.detach().view(1),
           **{f"hidden.{i}": h.detach().contiguous() for i, h in enumerate(out.hidden_states)},
           **{f"grad.{k}": p.grad for k, p in model.named_parameters()}}, f"{folder}/golden.safetensors")

# What a real checkpoint brings: a tokenizer. Here a token a character, and the end.
vocab = {c.replace(" ", "Ġ"): i for i, c in enumerate(map(chr, range(32, 127)))}
tokenizer = Tokenizer(models.BPE(vocab, []))
tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
