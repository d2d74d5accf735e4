-- `--dry-run` of every configuration of examples/vlm/ as a user would start from it: the models that they name lie in
-- a Hugging Face cache made here (config.json and the processor's files as the hub has them, and a small tokenizer), so
-- do some rows of their data. No weights are there, and none are needed.
local config = require("am.config")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")
local vlm = require("tests.recipe.vlm_helper")

local clip = { mean = { 0.48145466, 0.4578275, 0.40821073 }, std = { 0.26862954, 0.26130258, 0.27577711 } }

-- By name on the hub: fields of the files, the tokens of images by id, and millions of parameters.
local models = {
    ["google/gemma-3-4b-it"] = {
        millions = "4300.1", marker = "<start_of_image>", eos = 106,
        tokens = { ["<start_of_image>"] = 255999, ["<end_of_image>"] = 256000, ["<image_soft_token>"] = 262144 },
        config = { architectures = { "Gemma3ForConditionalGeneration" }, model_type = "gemma3",
                   torch_dtype = "bfloat16", boi_token_index = 255999, eoi_token_index = 256000,
                   image_token_index = 262144, mm_tokens_per_image = 256, eos_token_id = { 1, 106 },
                   initializer_range = 0.02,
                   text_config = { model_type = "gemma3_text", hidden_size = 2560, intermediate_size = 10240,
                                   num_hidden_layers = 34, rope_scaling = { factor = 8.0, rope_type = "linear" },
                                   sliding_window = 1024 },
                   vision_config = { model_type = "siglip_vision_model", hidden_size = 1152, image_size = 896,
                                     intermediate_size = 4304, num_attention_heads = 16, num_hidden_layers = 27,
                                     patch_size = 14, vision_use_head = false } },
        image = { image_processor_type = "Gemma3ImageProcessor", do_resize = true, do_normalize = true, resample = 2,
                  do_pan_and_scan = json.null, image_mean = { 0.5, 0.5, 0.5 }, image_std = { 0.5, 0.5, 0.5 },
                  image_seq_length = 256, size = { height = 896, width = 896 } },
        processor = { processor_class = "Gemma3Processor", image_seq_length = 256 },
    },
    ["Qwen/Qwen2.5-VL-3B-Instruct"] = {
        millions = "3754.6", marker = "<|vision_start|><|image_pad|><|vision_end|>", eos = 151645,
        tokens = { ["<|vision_start|>"] = 151652, ["<|vision_end|>"] = 151653, ["<|vision_pad|>"] = 151654,
                   ["<|image_pad|>"] = 151655, ["<|video_pad|>"] = 151656 },
        config = { architectures = { "Qwen2_5_VLForConditionalGeneration" }, model_type = "qwen2_5_vl",
                   torch_dtype = "bfloat16", hidden_size = 2048, intermediate_size = 11008, num_hidden_layers = 36,
                   num_attention_heads = 16, num_key_value_heads = 2, vocab_size = 151936, rms_norm_eps = 1e-6,
                   max_position_embeddings = 128000, rope_theta = 1000000.0, tie_word_embeddings = true,
                   sliding_window = 32768, use_sliding_window = false, max_window_layers = 70, hidden_act = "silu",
                   image_token_id = 151655, video_token_id = 151656, vision_start_token_id = 151652,
                   vision_end_token_id = 151653, vision_token_id = 151654, bos_token_id = 151643,
                   eos_token_id = 151645, rope_scaling = { type = "mrope", mrope_section = { 16, 24, 24 } },
                   vision_config = { depth = 32, hidden_act = "silu", hidden_size = 1280, intermediate_size = 3420,
                                     num_heads = 16, in_chans = 3, out_hidden_size = 2048, patch_size = 14,
                                     spatial_merge_size = 2, spatial_patch_size = 14, window_size = 112,
                                     fullatt_block_indexes = { 7, 15, 23, 31 }, tokens_per_second = 2,
                                     temporal_patch_size = 2 } },
        image = { image_processor_type = "Qwen2VLImageProcessor", min_pixels = 3136, max_pixels = 12845056,
                  patch_size = 14, temporal_patch_size = 2, merge_size = 2, image_mean = clip.mean,
                  image_std = clip.std },
        processor = { processor_class = "Qwen2_5_VLProcessor" },
    },
    ["HuggingFaceTB/SmolVLM-256M-Instruct"] = {
        millions = "256.5", marker = "<image>", eos = 49279,
        tokens = { ["<image>"] = 49190, ["<fake_token_around_image>"] = 49189, ["<global-img>"] = 49152 },
        config = { architectures = { "Idefics3ForConditionalGeneration" }, model_type = "idefics3",
                   torch_dtype = "bfloat16", image_token_id = 49190, scale_factor = 4, tie_word_embeddings = false,
                   vocab_size = 49280,
                   text_config = { model_type = "llama", hidden_size = 576, intermediate_size = 1536,
                                   num_hidden_layers = 30, num_attention_heads = 9, num_key_value_heads = 3,
                                   head_dim = 64, vocab_size = 49280, max_position_embeddings = 8192,
                                   rms_norm_eps = 1e-5, rope_theta = 100000, pad_token_id = 2, eos_token_id = 2 },
                   vision_config = { model_type = "idefics3", hidden_size = 768, image_size = 512, patch_size = 16,
                                     intermediate_size = 3072, num_attention_heads = 12, num_hidden_layers = 12,
                                     size = { longest_edge = 2048 }, max_image_size = { longest_edge = 512 } } },
        image = { image_processor_type = "Idefics3ImageProcessor", do_image_splitting = true, do_resize = true,
                  do_normalize = true, resample = 1, size = { longest_edge = 2048 },
                  max_image_size = { longest_edge = 512 }, image_mean = { 0.5, 0.5, 0.5 },
                  image_std = { 0.5, 0.5, 0.5 } },
        processor = { processor_class = "Idefics3Processor", image_seq_len = 64 },
    },
    ["llava-hf/llava-1.5-7b-hf"] = {
        millions = "7063.4", marker = "<image>", eos = 2, tokens = { ["<image>"] = 32000 },
        config = { architectures = { "LlavaForConditionalGeneration" }, model_type = "llava", torch_dtype = "float16",
                   image_token_index = 32000, ignore_index = -100, pad_token_id = 32001, vocab_size = 32064,
                   projector_hidden_act = "gelu", vision_feature_layer = -2,
                   vision_feature_select_strategy = "default",
                   text_config = { model_type = "llama", max_position_embeddings = 4096, rms_norm_eps = 1e-5,
                                   vocab_size = 32064, torch_dtype = "float16" },
                   vision_config = { model_type = "clip_vision_model", hidden_size = 1024, image_size = 336,
                                     intermediate_size = 4096, num_attention_heads = 16, num_hidden_layers = 24,
                                     patch_size = 14, projection_dim = 768, vocab_size = 32000 } },
        image = { image_processor_type = "CLIPImageProcessor", do_center_crop = true, do_resize = true,
                  do_normalize = true, resample = 3, crop_size = { height = 336, width = 336 },
                  size = { shortest_edge = 336 }, image_mean = clip.mean, image_std = clip.std },
        processor = { processor_class = "LlavaProcessor", patch_size = 14, image_token = "<image>",
                      num_additional_image_tokens = 1, vision_feature_select_strategy = "default" },
    },
}

local rows = {
    ["naver-clova-ix/cord-v2"] = { splits = { "train", "validation" }, row = function(i)
        return { image = i % 4 + 1 .. ".png", ground_truth = json.encode {
            gt_parse = { menu = json.array { { nm = "TEA", price = tostring(i) } }, total = { price = "12" } } } }
    end },
    ["quintend/rdr-items"] = { splits = { "train" }, row = function(i)
        return { image = i % 4 + 1 .. ".png", text = "A plain colour, number " .. i .. "." }
    end },
}

local function new_snapshot(hub, kind, repo)
    local folder, commit = path.join(hub, kind .. "--" .. repo:gsub("/", "--")), ("ab"):rep(20)
    helper.write(folder .. "/refs/main", commit)
    return path.mkdir_p(folder .. "/snapshots/" .. commit)
end

local function write_pictures(dir)
    for i = 1, 4 do
        helper.write(path.join(dir, i .. ".png"), (vlm.picture(i, 600, 400)))
    end
end

-- A cache with all of them, and the folder with local data that runs start in.
local function world()
    local home, dir = helper.folder(), helper.folder()
    for name, m in pairs(models) do
        local folder = new_snapshot(home .. "/hub", "models", name)
        vlm.tokenizer(folder, m.tokens, m.marker)
        for file, fields in pairs { ["config.json"] = m.config, ["preprocessor_config.json"] = m.image,
                                    ["processor_config.json"] = m.processor } do
            helper.write(folder .. "/" .. file, json.encode(fields))
        end
    end
    for name, set in pairs(rows) do
        local folder = new_snapshot(home .. "/hub", "datasets", name)
        write_pictures(folder)
        for _, split in ipairs(set.splits) do
            local lines = {}
            for i = 1, 8 do
                lines[i] = json.encode(set.row(i))
            end
            helper.write(path.join(folder, split .. ".jsonl"), table.concat(lines, "\n") .. "\n")
        end
    end
    vlm.rows(40, { dir = path.mkdir_p(dir .. "/pictures") })
    write_pictures(path.mkdir_p(dir .. "/llava/images"))
    local list = json.array {}
    for i = 1, 12 do
        list[i] = { image = i % 4 + 1 .. ".png", conversations = json.array {
            { from = "human", value = "<image>\nWhat is this?" }, { from = "gpt", value = "A colour." } } }
    end
    helper.write(dir .. "/llava/conversations.json", json.encode(list))
    return home, dir
end

describe("an example of images and text, by --dry-run,", function()
    local home, dir
    setup(function() home, dir = world() end)
    teardown(helper.cleanup)

    for _, name in ipairs(path.list_dir("examples/vlm")) do
        local file = "examples/vlm/" .. name
        local named = name:find("%.yaml$") and config.load(file):get("model.pretrained_model_name_or_path")
        local model = models[named or ""]
        if model then
            it("says what it would do: " .. name, function()
                local status, out, errors = helper.shell(string.format(
                    "cd %s && HF_HUB_OFFLINE=1 HF_HOME=%s %s %s %s --dry-run", helper.quote(dir), helper.quote(home),
                    helper.quote(path.absolute(helper.amlua)), helper.quote(path.absolute("recipes/vlm_finetune.lua")),
                    helper.quote(path.absolute(file))))
                assert.equal(0, status, errors)
                local class, all, trained = out:match("\nmodel .-: ([%w_]+), ([%d.]+) million parameters, ([%d.]+) of")
                assert.equal(model.config.architectures[1], class)
                local adapter = config.load(file):has("peft") and trained or 0
                assert.equal(model.millions, string.format("%.1f", all - adapter))
                for _, wanted in ipairs { "\ndata  ", "\nsteps  ", "of pictures and the vision tower", "\ntime  " } do
                    assert.is_truthy(out:find(wanted, 1, true), wanted .. " is not in\n" .. out:match("\nmodel  .*"))
                end
                assert.is_nil(out:find("not looked at", 1, true), out)
            end)
        end
    end
end)
