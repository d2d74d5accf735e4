"""Goldens of processors: what transformers 5.24 makes of the pictures and of conversations with them.

    python tests/parity/processors/golden.py

Writes ../golden/processors/golden.json, and the tokenizers beside it where they are not there. The pictures are those
of tests/c/data/image. Of each picture's pixel values it keeps the shape and samples, as
levels from 0 to 255 before normalisation; of texts all ids, masks and grids, runs of one id as [id, count].
"""
import json
import os
import tempfile
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore")

import families  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402

transformers.logging.set_verbosity_error()
Image.MAX_IMAGE_PIXELS = None
SAMPLES = 48

# Smaller pictures than on the hub, so that the spec is quick.
IMAGES = {"idefics3": dict(max_image_size=dict(longest_edge=98), size=dict(longest_edge=392)),
          "smolvlm": dict(max_image_size=dict(longest_edge=128), size=dict(longest_edge=384)),
          "qwen2_5_vl": dict(min_pixels=3136, max_pixels=100352)}
# More than one configuration of a family's pictures: name -> family, keys of preprocessor_config.json, options
VARIANTS = {
    "llava_pad": ("llava", dict(image_processor_type="LlavaImageProcessor", do_pad=True, size=dict(height=98, width=98),
                                do_center_crop=False), {}),
    "gemma3_pan_and_scan": ("gemma3", {}, dict(do_pan_and_scan=True, pan_and_scan_min_crop_size=20)),
    "idefics3_whole": ("idefics3", dict(IMAGES["idefics3"], do_image_splitting=False), {}),
    "clip_small": ("clip", dict(do_resize=False, crop_size=dict(height=97, width=132)), {}),
    "clip_plain": ("clip", dict(do_center_crop=False, size=dict(shortest_edge=40, longest_edge=60), do_normalize=False,
                                resample=2), {}),
    "qwen2_vl_three": ("qwen2_5_vl", dict(IMAGES["qwen2_5_vl"], merge_size=3, temporal_patch_size=1, do_rescale=False,
                                          image_mean=[99, 110, 120], image_std=[50, 60, 70]), {}),
}


def opened(path):
    return ImageOps.exif_transpose(Image.open(path))


def positions(n):
    return [(i * 2654435761 + 12345) % n for i in range(SAMPLES)]


def samples(values, processor):
    """The pixel values at the positions, as levels."""
    image = getattr(processor, "image_processor", processor)
    flat = values.double()
    if flat.ndim == 2:  # Qwen's rows: channel, temporal, patch, patch
        channel = (torch.arange(flat.shape[1]) // (flat.shape[1] // 3)).expand(flat.shape)
    else:
        channel = torch.arange(3).view(3, 1, 1).expand(flat.shape)
    if image.do_normalize:
        mean, std = torch.tensor(image.image_mean).double(), torch.tensor(image.image_std).double()
        flat = flat * std[channel] + mean[channel]
    if image.do_rescale:
        flat = flat / image.rescale_factor
    flat = flat.reshape(-1)
    return bytes(int(round(float(flat[i]))) for i in positions(flat.numel())).hex()


def runs(ids):
    out = []
    for i in np.array(ids).reshape(-1).tolist():
        if out and out[-1][0] == i:
            out[-1][1] += 1
        else:
            out.append([i, 1])
    return out


def pictures_of(processor, image, call, converted):
    """Every picture alone."""
    out = {}
    single = getattr(processor, "image_processor", processor)
    extra = dict(return_row_col_info=True) if "Idefics3" in type(single).__name__ or "SmolVLM" in type(single).__name__ \
        else {}
    if call:
        extra.update(dict(processor.images_kwargs, **call))
    elif hasattr(processor, "images_kwargs"):
        extra.update(processor.images_kwargs)
    for path in image:
        name = os.path.basename(path)
        picture = opened(path)
        try:
            got = single(images=[picture.convert("RGB") if converted else picture], return_tensors="pt", **extra)
        except (ValueError, RuntimeError) as e:  # such as Qwen's limit of the aspect
            out[name] = dict(error=str(e))
            continue
        entry = dict(shape=list(got["pixel_values"].shape), samples=samples(got["pixel_values"], processor))
        for key in ("image_grid_thw", "num_crops"):
            if key in got:
                entry[key] = np.array(got[key]).reshape(-1).tolist()
        if "rows" in got:
            entry["rows"], entry["cols"] = int(got["rows"][0][0]), int(got["cols"][0][0])
        out[name] = entry
    return out


QUESTIONS = ["What is on the image?", "Compare the two pictures, café or 日本.", "Read the receipt:\n12.50, paid in cash.",
             "And now?"]
ANSWERS = ["A cow sitting on a bench.", "They differ in colour.\n\nAnd in size.", "{\"menu\": [{\"nm\": \"TEA\"}]}", "Yes!"]


def conversations(names):
    """Messages with the names of pictures in place of images: none, one, two, in several turns, and in the middle."""
    def user(n, *images, first=True):
        parts = [dict(type="image", path=i) for i in images]
        said = dict(type="text", text=QUESTIONS[n])
        return dict(role="user", content=parts + [said] if first else [said] + parts)

    def assistant(n):
        return dict(role="assistant", content=[dict(type="text", text=ANSWERS[n])])
    a, b, c = names
    return [[user(0), assistant(0)],
            [user(0, a), assistant(0)],
            [user(1, a, b), assistant(1), user(3), assistant(3)],
            [user(2, b), assistant(2), user(3, c), assistant(1)],
            [user(0, c, first=False), assistant(3)],
            [user(0), assistant(1), user(1, a, c, b), assistant(2)]]


def with_pictures(messages, folder):
    return [dict(m, content=[dict(type="image", image=opened(os.path.join(folder, p["path"])))
                             if p["type"] == "image" else p for p in m["content"]]) for m in messages]


def texts_of(name, processor, folder, names):
    out = []
    if name == "paligemma":
        for text, own, suffix in [("<image>caption en", names[:1], "A cow."), ("detect cat", names[1:2], "cat ; cat"),
                                  ("<image><image>What?", names[:2], None)]:
            got = processor(text=text, images=[[opened(os.path.join(folder, i)).convert("RGB") for i in own]],
                            suffix=suffix)
            out.append(dict(text=text, images=own, suffix=suffix, input_ids=runs(got["input_ids"]),
                            token_type_ids=runs(got["token_type_ids"]), labels=runs(got["labels"])))
        return out
    for messages in conversations(names):
        got = processor.apply_chat_template(with_pictures(messages, folder), tokenize=True, return_dict=True,
                                            return_tensors=None, return_assistant_tokens_mask=True)
        entry = dict(messages=messages)
        for key in ("input_ids", "assistant_masks", "token_type_ids", "mm_token_type_ids"):
            if key in got:
                entry[key] = runs(got[key][0])
        prompt = processor.apply_chat_template(with_pictures(messages[:-1], folder), tokenize=True, return_dict=True,
                                               return_tensors=None, add_generation_prompt=True)
        entry["prompt_ids"] = runs(prompt["input_ids"][0])
        out.append(entry)
    return out


def crops_of(processor, folder, call, pictures):
    """A text with a picture of several crops and one of none."""
    most = max(pictures, key=lambda n: pictures[n].get("num_crops", [0])[0])
    none = next(n for n in pictures if pictures[n].get("num_crops") == [0])
    text = "Look: <start_of_image>\n<start_of_image> which?"
    got = processor(text=[text], images=[[opened(os.path.join(folder, n)) for n in (most, none)]], **call)
    return dict(text=text, images=[most, none], input_ids=runs(got["input_ids"][0]),
                token_type_ids=runs(got["token_type_ids"][0]))


def main():
    folder = os.path.join(families.HERE, "..", "..", "c", "data", "image")
    if not os.path.exists(os.path.join(families.HERE, "..", "golden", "processors", "tokenizers")):
        families.make_tokenizers()
    paths = sorted(os.path.join(folder, n) for n in os.listdir(folder)
                   if n.rpartition(".")[2] in ("jpg", "png", "webp", "gif") and not n.startswith("expected_"))
    three = ["ycbcr_420.jpg", "rgb.png", "exif_6.jpg"]
    files = {}
    for name, family in families.FAMILIES.items():
        files[name] = {"preprocessor_config.json": family["image"]}
        if "processor" in family:
            files[name]["processor_config.json"] = family["processor"]
        if "tokenizer" in family:
            files[name]["tokenizer_config.json"] = families.tokenizer_config(family)
    families.write(os.path.join(families.HERE, "..", "golden", "processors", "folders.json"), files)
    out = dict(samples=SAMPLES, pictures=[os.path.basename(p) for p in paths], families={}, texts={})
    cases = {name: (name, IMAGES.get(name, {}), {}) for name in families.FAMILIES}
    cases.update(VARIANTS)
    with tempfile.TemporaryDirectory() as scratch:
        for case, (name, image, call) in cases.items():
            made = families.make(name, f"{scratch}/{case}", image)
            entry = dict(family=name, image=image, call=call)
            for backend in ("torchvision", "pil"):
                processor = families.load(made, backend)
                entry[backend] = pictures_of(processor, paths, call, name == "paligemma")
            out["families"][case] = entry
            if case == "gemma3_pan_and_scan":
                out["crops"] = crops_of(families.load(made, "torchvision"), folder, call, entry["torchvision"])
            if case == name and name not in families.TOWERS:
                out["texts"][name] = texts_of(name, families.load(made, "torchvision"), folder, three)
    target = os.path.join(families.HERE, "..", "golden", "processors", "golden.json")
    families.write(target, json.dumps(out, separators=(",", ":"), ensure_ascii=False) + "\n")
    print(f"{os.path.getsize(target)} bytes, {len(paths)} pictures")


if __name__ == "__main__":
    main()
