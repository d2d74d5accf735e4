"""Folders of processors as they are on the hub, each with a small tokenizer that has the real special tokens.

The chat templates in templates/ are TRL 1.16's (Apache-2.0); LLaVA's is the hub's. A name with _training is the same
template with {% generation %} blocks, so that transformers tells what the assistant wrote.
"""
import json
import os
import shutil

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]

CORPUS = ["Describe the image in detail. What is on the image? A cow sitting on a bench. USER: ASSISTANT: User: Assistant:",
          "Here is the original image and here are some crops to help you see better. You are a helpful assistant. user "
          "model system caption en detect cat ; the total is 12.50, paid in cash: 3 x Latte 4,500. Compare the two "
          "pictures. They differ in colour, size and form. Read the receipt as JSON: {\"menu\": [{\"nm\": \"TEA\"}]}"] * 3


def byte_level(special, bos=None):
    """A byte-level BPE of some 400 tokens."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                                   r"|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=256 + 120 + len(special), special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if bos:
        tok.post_processor = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1",
                                                           special_tokens=[(bos, tok.token_to_id(bos))])
    return tok


def metaspace(special, bos=None, prefix=True):
    """A BPE with byte fallback as SentencePiece's are (Llama, Gemma)."""
    tok = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    steps = [normalizers.Prepend("▁")] if prefix else []
    tok.normalizer = normalizers.Sequence(steps + [normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = special + [f"<0x{b:02X}>" for b in range(256)]
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=len(special) + 200, special_tokens=special,
                                                        show_progress=False))
    state = json.loads(tok.to_str())  # bytes are tokens of the model, not added ones
    state["added_tokens"] = [t for t in state["added_tokens"] if not t["content"].startswith("<0x")]
    tok = Tokenizer.from_str(json.dumps(state))
    if bos:
        tok.post_processor = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1",
                                                           special_tokens=[(bos, tok.token_to_id(bos))])
    return tok


ROW_COL = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]

# name -> image processor's configuration, processor's (or None), tokenizer, tokenizer_config
FAMILIES = {
    "clip": dict(image=dict(crop_size=224, do_center_crop=True, do_normalize=True, do_resize=True, resample=3, size=224,
                            feature_extractor_type="CLIPFeatureExtractor", image_mean=CLIP_MEAN, image_std=CLIP_STD)),
    "siglip": dict(image=dict(do_normalize=True, do_rescale=True, do_resize=True, image_mean=HALF, image_std=HALF,
                              resample=3, rescale_factor=0.00392156862745098, size=dict(height=56, width=56),
                              image_processor_type="SiglipImageProcessor")),
    "dinov2": dict(image=dict(crop_size=dict(height=224, width=224), do_center_crop=True, do_convert_rgb=True,
                              do_normalize=True, do_rescale=True, do_resize=True,
                              image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225], resample=3,
                              rescale_factor=0.00392156862745098, size=dict(shortest_edge=256),
                              image_processor_type="BitImageProcessor")),
    "llava": dict(
        image=dict(crop_size=dict(height=336, width=336), do_center_crop=True, do_convert_rgb=True, do_normalize=True,
                   do_rescale=True, do_resize=True, image_mean=CLIP_MEAN, image_std=CLIP_STD, resample=3,
                   rescale_factor=0.00392156862745098, size=dict(shortest_edge=336),
                   image_processor_type="CLIPImageProcessor", processor_class="LlavaProcessor"),
        processor=dict(image_token="<image>", num_additional_image_tokens=1, patch_size=14,
                       processor_class="LlavaProcessor", vision_feature_select_strategy="default"),
        tokenizer=lambda: metaspace(["<unk>", "<s>", "</s>", "<image>", "<pad>"], "<s>"),
        tokens=dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>", padding_side="left",
                    processor_class="LlavaProcessor"),
        marker="<image>"),
    "gemma3": dict(
        image=dict(do_convert_rgb=None, do_normalize=True, do_pan_and_scan=None, do_rescale=True, do_resize=True,
                   image_mean=HALF, image_std=HALF, image_processor_type="Gemma3ImageProcessor", image_seq_length=16,
                   pan_and_scan_max_num_crops=None, pan_and_scan_min_crop_size=None,
                   pan_and_scan_min_ratio_to_activate=None, processor_class="Gemma3Processor", resample=2,
                   rescale_factor=0.00392156862745098, size=dict(height=112, width=112)),
        processor=dict(image_seq_length=16, processor_class="Gemma3Processor"),
        tokenizer=lambda: metaspace(["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>",
                                     "<start_of_image>", "<end_of_image>", "<image_soft_token>", "\n\n"],
                                    "<bos>", prefix=False),
        tokens=dict(bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>", padding_side="left",
                    boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>",
                    extra_special_tokens=dict(boi_token="<start_of_image>", eoi_token="<end_of_image>",
                                              image_token="<image_soft_token>")),
        marker="<start_of_image>", legacy_template=True),
    "qwen2_5_vl": dict(
        image=dict(min_pixels=3136, max_pixels=12845056, patch_size=14, temporal_patch_size=2, merge_size=2,
                   image_mean=CLIP_MEAN, image_std=CLIP_STD, image_processor_type="Qwen2VLImageProcessor",
                   processor_class="Qwen2_5_VLProcessor"),
        tokenizer=lambda: byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>",
                                      "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]),
        tokens=dict(bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"),
        marker="<|vision_start|><|image_pad|><|vision_end|>", legacy_template=True),
    "idefics3": dict(
        image=dict(do_convert_rgb=True, do_image_splitting=True, do_normalize=True, do_pad=True, do_rescale=True,
                   do_resize=True, image_mean=HALF, image_std=HALF, image_processor_type="Idefics3ImageProcessor",
                   max_image_size=dict(longest_edge=364), processor_class="Idefics3Processor", resample=1,
                   rescale_factor=0.00392156862745098, size=dict(longest_edge=1456)),
        processor=dict(image_seq_len=9, processor_class="Idefics3Processor"),
        tokenizer=lambda: byte_level(["<|begin_of_text|>", "<|end_of_text|>", "<fake_token_around_image>", "<image>",
                                      "<end_of_utterance>", "<|pad|>", *ROW_COL, "<global-img>"], "<|begin_of_text|>"),
        tokens=dict(bos_token="<|begin_of_text|>", eos_token="<end_of_utterance>", pad_token="<|pad|>",
                    padding_side="left"),
        marker="<image>"),
    "smolvlm": dict(
        image=dict(do_convert_rgb=True, do_image_splitting=True, do_normalize=True, do_pad=True, do_rescale=True,
                   do_resize=True, image_mean=HALF, image_std=HALF, image_processor_type="SmolVLMImageProcessor",
                   max_image_size=dict(longest_edge=512), processor_class="SmolVLMProcessor", resample=1,
                   rescale_factor=0.00392156862745098, size=dict(longest_edge=2048),
                   video_sampling=dict(fps=1, max_frames=64, video_size=dict(longest_edge=512))),
        processor=dict(image_seq_len=16, processor_class="SmolVLMProcessor"),
        tokenizer=lambda: byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>",
                                      "<image>", "<end_of_utterance>", "<global-img>", *ROW_COL]),
        tokens=dict(bos_token="<|im_start|>", eos_token="<end_of_utterance>", pad_token="<|im_end|>",
                    padding_side="left", fake_image_token="<fake_token_around_image>", image_token="<image>",
                    global_image_token="<global-img>", end_of_utterance_token="<end_of_utterance>"),
        marker="<image>"),
    "paligemma": dict(
        image=dict(do_convert_rgb=None, do_normalize=True, do_rescale=True, do_resize=True, image_mean=HALF,
                   image_std=HALF, image_processor_type="SiglipImageProcessor", image_seq_length=16,
                   processor_class="PaliGemmaProcessor", resample=3, rescale_factor=0.00392156862745098,
                   size=dict(height=56, width=56)),
        tokenizer=lambda: metaspace(["<pad>", "<eos>", "<bos>", "<unk>", "<image>"], prefix=False),
        tokens=dict(bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>", padding_side="right",
                    extra_special_tokens=dict(image_token="<image>")),
        marker="<image>"),
}
TOWERS = ("clip", "siglip", "dinov2")


def write(path, value):
    with open(path, "w", encoding="utf-8") as f:
        f.write(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def tokenizer_config(family):
    return {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1 << 30,
            "clean_up_tokenization_spaces": False, **family["tokens"]}


def make(name, folder, image=None, processor=None, training=True):
    """The folder of a family, with other values under some keys; `training`: which chat template it has."""
    family = FAMILIES[name]
    os.makedirs(folder, exist_ok=True)
    write(f"{folder}/preprocessor_config.json", {**family["image"], **(image or {})})
    if family.get("processor") or processor:
        write(f"{folder}/processor_config.json", {**family.get("processor", {}), **(processor or {})})
    if "tokenizer" not in family:
        return folder
    made = os.path.join(HERE, "..", "golden", "processors", "tokenizers", name + ".json")
    shutil.copy(made, f"{folder}/tokenizer.json")
    write(f"{folder}/tokenizer_config.json", tokenizer_config(family))
    template = f"{HERE}/templates/{name}{'_training' if training else ''}.jinja"
    if os.path.exists(template):
        with open(template, encoding="utf-8") as f:
            source = f.read()
        if family.get("legacy_template"):
            write(f"{folder}/chat_template.json", {"chat_template": source})
        else:
            write(f"{folder}/chat_template.jinja", source)
    return folder


def load(folder, backend):
    """transformers' processor. The backend is the image processor's alone: tokenizers have an attribute of that name."""
    from transformers import AutoImageProcessor, AutoProcessor
    image = AutoImageProcessor.from_pretrained(folder, backend=backend)
    if not os.path.exists(f"{folder}/tokenizer.json"):
        return image
    processor = AutoProcessor.from_pretrained(folder)
    processor.image_processor = image
    return processor


def make_tokenizers():
    folder = os.path.join(HERE, "..", "golden", "processors", "tokenizers")
    os.makedirs(folder, exist_ok=True)
    for name, family in FAMILIES.items():
        if "tokenizer" in family:
            text = family["tokenizer"]().to_str()
            write(f"{folder}/{name}.json", text)


if __name__ == "__main__":
    make_tokenizers()
