"""What amlua writes as GGUF, read by llama.cpp, against transformers.

    python gguf_check.py --venv DIR [--work DIR] [--model HF_DIR] [FAMILY ...]

DIR becomes a Python with torch, transformers, peft, gguf and llama-cpp-python unless it is one. AMLUA names the
program (build/amlua). For a tiny random model of each family that llama.cpp knows (all by default), and for the
model in HF_DIR:

  F32     llama.cpp's logits equal transformers' within 1e-3 of the largest (sums in another order, and f16 tables
          of activation functions); greedy tokens, those of prompts too, are the same; read back by amlua, all tensors are equal
  F16,    the same tokens as transformers with the weights so rounded, unless it chose between two nearly alike
  BF16
  Q8_0,   logits within 5 % (root mean square over that of the logits, of the middle position) of transformers' with
  Q4_0,   the file's weights, as amlua reads them back: llama.cpp rounds activations to 8 bits, too. A model with
  Q4_K,   experts chooses all of them here: the rounding of activations cannot send a position to other experts then,
  MXFP4   and all else about the experts counts as before. Which of them are chosen is what F32 proves. MXFP4: the
          experts of GPT-OSS, written by the gguf package as llama.cpp's converter lays them out
  LoRA    the adapter on the F32 file gives the logits of the model that PEFT merged, within 1e-3

Prints a row for each; exit status 1 when one fails.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import traceback
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
AMLUA = os.environ.get("AMLUA", os.path.join(HERE, "..", "..", "build", "amlua"))
CONVERT = os.path.join(HERE, "..", "..", "recipes", "convert.lua")
PACKAGES = ["torch", "transformers", "peft", "safetensors", "tokenizers", "gguf", "llama-cpp-python"]

BASE = dict(vocab_size=384, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, bos_token_id=0, eos_token_id=1, pad_token_id=None)
NO_KV = {k: v for k, v in BASE.items() if k != "num_key_value_heads"}
FALCON = {k: v for k, v in NO_KV.items() if k != "intermediate_size"} | dict(ffn_hidden_size=1024)
EXPERTS = dict(BASE, num_experts_per_tok=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=8192)

# name -> architecture, its configuration: as far as GGUF can say it
FAMILIES = {
    "llama": ("LlamaForCausalLM", dict(BASE, head_dim=32)),
    "llama_tied": ("LlamaForCausalLM", dict(BASE, tie_word_embeddings=True, attention_bias=True)),
    "llama3": ("LlamaForCausalLM", dict(BASE, rope_parameters=LLAMA3)),
    "llama_linear": ("LlamaForCausalLM", dict(BASE, rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=4.0))),
    "llama_yarn": ("LlamaForCausalLM", dict(BASE, rope_parameters=dict(
        rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=128))),
    "smollm3": ("SmolLM3ForCausalLM", dict(BASE, num_hidden_layers=4)),
    "mistral": ("MistralForCausalLM", dict(BASE, sliding_window=None)),
    "ministral3": ("Ministral3ForCausalLM", dict(BASE, rope_parameters=dict(
        rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=128, beta_fast=32.0,
        beta_slow=1.0, mscale_all_dim=1.0, mscale=1.0, llama_4_scaling_beta=0.1))),
    "qwen2": ("Qwen2ForCausalLM", dict(BASE)),
    "qwen3": ("Qwen3ForCausalLM", dict(BASE, head_dim=32, tie_word_embeddings=True)),
    "gemma": ("GemmaForCausalLM", dict(BASE, head_dim=64, pad_token_id=2)),
    "gemma2": ("Gemma2ForCausalLM", dict(BASE, head_dim=64, sliding_window=16, query_pre_attn_scalar=64,
                                         attn_logit_softcapping=3.0, final_logit_softcapping=4.0, pad_token_id=2)),
    "gemma3": ("Gemma3ForCausalLM", dict(
        BASE, num_hidden_layers=7, head_dim=64, sliding_window=16, query_pre_attn_scalar=64, pad_token_id=2,
        rope_parameters={"full_attention": dict(rope_type="default", rope_theta=5000.0),
                         "sliding_attention": dict(rope_type="default", rope_theta=100.0)})),
    "phi3": ("Phi3ForCausalLM", dict(BASE, num_key_value_heads=4, sliding_window=None, pad_token_id=2,
                                     original_max_position_embeddings=512)),
    "phi3_longrope": ("Phi3ForCausalLM", dict(
        BASE, sliding_window=None, pad_token_id=2, original_max_position_embeddings=256,
        rope_parameters=dict(rope_type="longrope", rope_theta=1e4, partial_rotary_factor=0.75,
                             short_factor=[1 + i / 40 for i in range(24)], long_factor=[1 + i / 10 for i in range(24)],
                             original_max_position_embeddings=256))),
    "olmo2": ("Olmo2ForCausalLM", dict(BASE)),
    "granite": ("GraniteForCausalLM", dict(BASE, embedding_multiplier=3.0, logits_scaling=2.5, residual_multiplier=0.7,
                                           attention_multiplier=0.1, tie_word_embeddings=True)),
    "glm4": ("Glm4ForCausalLM", dict(BASE, head_dim=64, rope_parameters=dict(
        rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5))),
    "starcoder2": ("Starcoder2ForCausalLM", dict(BASE, sliding_window=None)),
    "gpt2": ("GPT2LMHeadModel", dict(vocab_size=384, n_positions=512, n_embd=256, n_layer=2, n_head=4, bos_token_id=0,
                                     eos_token_id=1)),
    "gpt_neox": ("GPTNeoXForCausalLM", dict(NO_KV, rope_parameters=dict(
        rope_type="default", rope_theta=1e4, partial_rotary_factor=0.25))),
    "gpt_neox_serial": ("GPTNeoXForCausalLM", dict(NO_KV, use_parallel_residual=False)),
    "falcon": ("FalconForCausalLM", dict(FALCON)),
    "falcon_new": ("FalconForCausalLM", dict(FALCON, new_decoder_architecture=True, num_kv_heads=2)),
    "olmo": ("OlmoForCausalLM", dict(BASE, clip_qkv=1.5)),
    "phi": ("PhiForCausalLM", dict(BASE, rope_parameters=dict(
        rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5))),
    "nemotron": ("NemotronForCausalLM", dict(BASE, rope_parameters=dict(
        rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5))),
    "mixtral": ("MixtralForCausalLM", dict(EXPERTS, num_local_experts=4, sliding_window=None)),
    "qwen2_moe": ("Qwen2MoeForCausalLM", dict(EXPERTS, num_experts=4, moe_intermediate_size=256,
                                              shared_expert_intermediate_size=256)),
    "qwen3_moe": ("Qwen3MoeForCausalLM", dict(EXPERTS, num_experts=4, moe_intermediate_size=256, head_dim=32,
                                              norm_topk_prob=True)),
    "olmoe": ("OlmoeForCausalLM", dict(EXPERTS, num_key_value_heads=4, num_experts=4)),
    "granitemoe": ("GraniteMoeForCausalLM", dict(
        EXPERTS, num_local_experts=4, embedding_multiplier=3.0, logits_scaling=2.5, residual_multiplier=0.7,
        attention_multiplier=0.1, tie_word_embeddings=True)),
    "gpt_oss": ("GptOssForCausalLM", dict(
        EXPERTS, num_local_experts=4, head_dim=64, sliding_window=128, rope_parameters=dict(
            rope_type="yarn", rope_theta=1e4, factor=4.0, beta_fast=32.0, beta_slow=1.0, truncate=True,
            original_max_position_embeddings=128))),
}

TEXTS = ["The lighthouse keeper wrote in her log: at 5:40 the wind turned north-east,",
         "and 12 boats came back to the harbour. Why did they return?  \n\nBecause", "1234567 don't"]
NEW = 24
# A model of random weights repeats itself; only a lead that rounding cannot turn must be kept.
LEAD = {"f32": 1e-3, "f16": 1e-2, "bf16": 5e-2}


def python_of(venv):
    """This process in the venv, which is made first where it is not there."""
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    if os.path.realpath(sys.prefix) != os.path.realpath(venv):
        os.execv(python, [python, *sys.argv])


# ---- models ---------------------------------------------------------------------------------------


def save_tokenizer(folder):
    """Byte-level BPE of 384 tokens, cut as GPT-2's."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(
        vocab_size=384, special_tokens=["<s>", "</s>", "<pad>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tok, bos_token="<s>", eos_token="</s>",
                                         pad_token="<pad>").save_pretrained(folder)


def make_model(name, folder):
    import torch
    import transformers
    architecture, fields = FAMILIES[name]
    cls = getattr(transformers, architecture)
    torch.manual_seed(list(FAMILIES).index(name))
    config = cls.config_class(**fields)
    config.architectures = [architecture]
    model = cls(config).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():  # norms and biases of their own, and some spread
            p.copy_(torch.randn_like(p) * (0.1 if p.dim() < 2 else 0.06))
            if key.endswith("weight") and p.dim() < 2 and "gemma" not in name:
                p.add_(1)
    model.save_pretrained(folder)
    save_tokenizer(folder)


def amlua(*args):
    done = subprocess.run([AMLUA, CONVERT, *args], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError("amlua: " + done.stderr.strip())


class Reference:
    """transformers on a directory."""

    def __init__(self, folder, dtype=None):
        import torch
        import transformers
        self.torch = torch
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager").eval()
        if dtype:
            with torch.no_grad():
                for p in self.model.parameters():
                    p.copy_(p.to(getattr(torch, dtype)).float())

    def logits(self, ids):
        with self.torch.no_grad():
            return self.model(self.torch.tensor([ids]), use_cache=False).logits[0].float().numpy()

    def greedy(self, ids, n):
        """Tokens, and the lead of each as a part of the largest logit."""
        ids, leads = list(ids), []
        for _ in range(n):
            last = self.torch.tensor(self.logits(ids)[-1])
            top = last.topk(2)
            ids.append(int(top.indices[0]))
            leads.append(float((top.values[0] - top.values[1]) / last.abs().max()))
        return ids[-n:], leads


class Judge:
    """llama.cpp on a file, all in f32 but its weights."""

    def __init__(self, path, lora=None):
        import llama_cpp
        self.llm = llama_cpp.Llama(model_path=path, lora_path=lora, n_ctx=256, logits_all=True, verbose=False,
                                   type_k=0, type_v=0, flash_attn=False, n_threads=1, n_gpu_layers=0, use_mmap=lora is None)

    def logits(self, ids):
        self.llm.reset()
        self.llm.eval(ids)
        return self.llm.scores[:len(ids)].copy()

    def greedy(self, ids, n):
        self.llm.reset()
        out = []
        self.llm.eval(ids)
        for i in range(n):
            out.append(int(self.llm.scores[len(ids) + i - 1].argmax()))
            self.llm.eval([out[-1]])
        return out

    def close(self):
        self.llm.close()


# ---- comparisons ----------------------------------------------------------------------------------


def worst(a, b):
    return float(abs(a - b).max() / abs(b).max())


def noise(a, b):
    """Of the middle position."""
    return float(np.median(((a - b) ** 2).mean(-1) / (b ** 2).mean(-1)) ** 0.5)


def all_experts(folder, work):
    """The model of `folder`, which chooses all experts: `folder` itself where it has none."""
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    if "num_experts_per_tok" not in config:
        return folder
    config["num_experts_per_tok"] = config.get("num_local_experts") or config["num_experts"]
    to = shutil.copytree(folder, os.path.join(work, "all_experts"))
    with open(os.path.join(to, "config.json"), "w") as f:
        json.dump(config, f)
    return to


def same_tokens(judge, reference, prompts, kind):
    """How many tokens were compared; raises where a clear choice differs."""
    compared = 0
    for ids in prompts:
        expected, leads = reference.greedy(ids, NEW)
        got = judge.greedy(ids, NEW)
        for i, (a, b) in enumerate(zip(got, expected)):
            if a != b:
                if leads[i] > LEAD[kind]:
                    raise AssertionError(f"token {i} is {a}, not {b}, whose lead is {leads[i]:.1e}")
                break
            compared += 1
    return compared


def tensors_equal(a, b, off):
    """The safetensors of two directories; `off`: names whose numbers may differ by a rounding of 1 + x."""
    from safetensors.torch import load_file
    x, y = load_file(os.path.join(a, "model.safetensors")), load_file(os.path.join(b, "model.safetensors"))
    if "output" in off:
        y.pop("lm_head.weight" if "lm_head.weight" in y else "embed_out.weight", None)
        x.pop("lm_head.weight" if "lm_head.weight" in x else "embed_out.weight", None)
    if set(x) != set(y):
        raise AssertionError(f"tensors differ: {sorted(set(x) ^ set(y))[:4]}")
    for key, t in x.items():
        limit = 1.2e-7 * 2 if "norm" in off and key.endswith("norm.weight") else 0
        if t.shape != y[key].shape or (t.float() - y[key].float()).abs().max() > limit:
            raise AssertionError(f"{key} differs")


def check_tokenizer(judge, folder):
    import transformers
    tok = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    for text in TEXTS:
        expected = tok.encode(text)
        got = judge.llm.tokenize(text.encode(), add_bos=True, special=True)
        if got != expected:
            raise AssertionError(f"llama.cpp cuts {text!r} into {got}, not {expected}")


def experts_in_mxfp4(source, path):
    """A GGUF file with the matrices of its experts in MXFP4, all else the same."""
    import gguf
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, reader.get_field("general.architecture").contents())
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            array = field.types[0] == gguf.GGUFValueType.ARRAY
            writer.add_key_value(field.name, field.contents(), field.types[0], field.types[-1] if array else None)
    mxfp4 = gguf.GGMLQuantizationType.MXFP4
    for t in reader.tensors:
        if t.name.endswith("_exps.weight"):
            writer.add_tensor(t.name, gguf.quants.quantize(t.data, mxfp4), raw_dtype=mxfp4)
        else:
            writer.add_tensor(t.name, t.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_kind(folder, path, kind):
    amlua("--input", folder, "--output-file", path, "--type", "f32" if kind == "mxfp4" else kind)
    if kind == "mxfp4":
        os.rename(path, path + ".f32")
        experts_in_mxfp4(path + ".f32", path)
        os.remove(path + ".f32")


def check_model(name, folder, work, prompts, row):
    f32 = os.path.join(work, "f32.gguf")
    amlua("--input", folder, "--output-file", f32, "--type", "f32")
    reference, judge = Reference(folder), Judge(f32)
    check_tokenizer(judge, folder)
    error = max(worst(judge.logits(p), reference.logits(p)) for p in prompts)
    row("f32", error, error < 1e-3)
    row("greedy f32", same_tokens(judge, reference, prompts, "f32"), True)
    judge.close()
    back = os.path.join(work, "back")
    amlua("--input", f32, "--output-dir", back)
    tensors_equal(folder, back, ("norm",) if name[:5] in ("gemma", "nemot") else ())
    for kind in ("f16", "bf16"):
        path = os.path.join(work, kind + ".gguf")
        amlua("--input", folder, "--output-file", path, "--type", kind)
        judge = Judge(path)
        rounded = Reference(folder, {"f16": "float16", "bf16": "bfloat16"}[kind])
        row("greedy " + kind, same_tokens(judge, rounded, prompts, kind), True)
        judge.close()
        os.remove(path)
    every = all_experts(folder, work)
    reference = Reference(every)
    for kind in ("q8_0", "q4_0", "q4_k") + (("mxfp4",) if name == "gpt_oss" else ()):
        path, read = os.path.join(work, kind + ".gguf"), os.path.join(work, kind)
        write_kind(every, path, kind)
        amlua("--input", path, "--output-dir", read, "--torch_dtype", "float32")
        judge, stored = Judge(path), Reference(read)
        error = max(noise(judge.logits(p), stored.logits(p)) for p in prompts)
        far = max(noise(stored.logits(p), reference.logits(p)) for p in prompts)
        row(kind, error, error < 0.05, f"(and {far:.1%} from the model itself)")
        judge.close()
        os.remove(path)
        shutil.rmtree(read)
    check_lora(folder, work, f32, prompts, row)


def check_lora(folder, work, f32, prompts, row):
    import peft
    import torch
    base = Reference(folder)
    linear = sorted({n.rsplit(".", 1)[-1] for n, m in base.model.named_modules()
                     if type(m).__name__.endswith(("Linear", "Conv1D")) and "expert" not in n and "router" not in n
                     and "lm_head" not in n and "embed_out" not in n and not n.endswith(".gate")})
    plain = [base.logits(p) for p in prompts]
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=linear, init_lora_weights=False, use_rslora=True,
                             task_type="CAUSAL_LM")
    torch.manual_seed(0)
    model = peft.get_peft_model(base.model, config)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_" in key:
                p.copy_(torch.randn_like(p) * 0.02)
    adapter, path = os.path.join(work, "adapter"), os.path.join(work, "lora.gguf")
    model.save_pretrained(adapter)
    amlua("--input", adapter, "--base-model", folder, "--output-file", path)
    base.model = model.merge_and_unload()
    judge = Judge(f32, path)
    error = max(worst(judge.logits(p), base.logits(p)) for p in prompts)
    moved = max(worst(a, base.logits(p)) for a, p in zip(plain, prompts))
    row("lora", error, error < 1e-3 and moved > 0.01, f"(on {', '.join(linear)}; it moves them by {moved:.1%})")
    judge.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", required=True)
    parser.add_argument("--work", default="/tmp/gguf_check")
    parser.add_argument("--model")
    parser.add_argument("families", nargs="*")
    args = parser.parse_args()
    python_of(args.venv)
    os.environ["HF_HUB_OFFLINE"] = "1"
    global np
    import numpy as np
    import torch
    import transformers
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    failed = []

    def check(name, make):
        work = os.path.join(args.work, name)
        shutil.rmtree(work, ignore_errors=True)
        os.makedirs(work)

        def row(what, value, good, more=""):
            shown = f"{value:.1e}" if isinstance(value, float) else f"{value} tokens"
            print(f"{name:16} {what:12} {shown:12} {'ok' if good else 'FAILED'} {more}", flush=True)
            if not good:
                failed.append(name)
        try:
            folder = make(work)
            tok = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
            check_model(name, folder, work, [tok.encode(t) for t in TEXTS], row)
        except Exception as e:
            failed.append(name)
            print(f"{name:16} FAILED {type(e).__name__}: {e}", flush=True)
            if not isinstance(e, (AssertionError, RuntimeError)):
                traceback.print_exc()
        shutil.rmtree(work, ignore_errors=True)

    def tiny(name):
        def make(work):
            folder = os.path.join(work, "hf")
            make_model(name, folder)
            return folder
        return make

    for name in args.families or ([] if args.model else FAMILIES):
        check(name, tiny(name))
    if args.model:
        check("model", lambda _: args.model)
    print(json.dumps({"failed": sorted(set(failed))}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
