-- The demonstrations of examples/vlm/ on tiny models and a few pictures made here, so that their scripts and
-- configurations do not rot. What they show with real models takes longer: docs/testing.md, "Pictures".
local am = require("am")
local ffi = require("ffi")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")
local vlm = require("tests.recipe.vlm_helper")

local function amlua(...)
    local rc, out, errors = helper.run { ... }
    assert(rc == 0, out .. errors)
    return out
end

-- A vision tower alone, with its processor's file.
local function tower()
    local dir = helper.folder()
    am.manual_seed(6)
    am.scope(function()
        am.AutoModel.from_config { architectures = { "Dinov2Model" }, model_type = "dinov2", hidden_size = 24,
                                   num_hidden_layers = 3, num_attention_heads = 2, image_size = 28, patch_size = 14,
                                   mlp_ratio = 2 }:save_pretrained(dir)
    end)
    helper.write(dir .. "/preprocessor_config.json", json.encode {
        image_processor_type = "BitImageProcessor", do_resize = true, size = { shortest_edge = 28 },
        do_center_crop = true, crop_size = { height = 28, width = 28 }, resample = 3, do_normalize = true,
        image_mean = json.array { 0.5, 0.5, 0.5 }, image_std = json.array { 0.5, 0.5, 0.5 },
    })
    return dir
end

-- A LLaVA of two tiny parts, for the pictures of `rows`. The tokenizer knows no ChatML: its words are letters to it.
local function assemble(rows, ...)
    local dir, eyes = helper.folder(), tower()
    local mouth = helper.model({ max_position_embeddings = 1024 }, helper.text_model())
    amlua("examples/vlm/assemble.lua", "--tower", eyes, "--model", mouth, "--output-dir", dir, "--rows", rows,
          ...)
    return dir, eyes, mouth
end

-- The numbers of a file's tensor.
local function numbers(file, name)
    return am.load_safetensors(file)[name]:totable()
end

-- ---- an ONNX file: protobuf by hand

local function varint(x)
    local out = ""
    repeat
        out, x = out .. string.char(x % 128 + (x >= 128 and 128 or 0)), math.floor(x / 128)
    until x == 0
    return out
end

local function field(number, bytes) return varint(number * 8 + 2) .. varint(#bytes) .. bytes end

local function weight(name, dims, value)
    local n, out = 1, ""
    for _, d in ipairs(dims) do
        n, out = n * d, out .. varint(8) .. varint(d)
    end
    local floats = ffi.new("float[?]", n)
    for i = 0, n - 1 do
        floats[i] = value(i)
    end
    return field(5, out .. varint(16) .. varint(1) .. field(8, name) .. field(9, ffi.string(floats, n * 4)))
end

local function node(op, a, b, to) return field(1, field(1, a) .. field(1, b) .. field(2, to) .. field(4, op)) end

describe("examples/vlm", function()
    teardown(helper.cleanup)

    it("assembles a tower and a language model, each as it was", function()
        local rows = helper.write(helper.folder() .. "/rows.jsonl", "")
        for i = 1, 3 do
            helper.write(string.format("%s/%d.png", path.dirname(rows), i), (vlm.picture(i, 30, 50)))
            helper.write(rows, helper.read(rows) .. json.encode {
                image = i .. ".png", messages = json.array {
                    { role = "user", content = json.array { { type = "image" }, { type = "text", text = "What?" } } },
                    { role = "assistant", content = "That." } } } .. "\n")
        end
        local dir, eyes, mouth = assemble(rows, "--height", "28", "--width", "42", "--feature-layer", "-1")
        local config = json.decode(helper.read(dir .. "/config.json"))
        assert.equal("llava", config.model_type)
        assert.equal(4238, config.image_token_index) -- behind those of the tokenizer
        assert.equal(6, config.image_seq_length)
        assert.equal(0, config.text_config.vocab_size % 64)
        local file = dir .. "/model.safetensors"
        assert.same(numbers(eyes .. "/model.safetensors", "encoder.layer.1.mlp.fc1.weight"),
                    numbers(file, "vision_tower.encoder.layer.1.mlp.fc1.weight"))
        local name = "model.layers.1.mlp.up_proj.weight"
        assert.same(numbers(mouth .. "/model.safetensors", name), numbers(file, "language_model." .. name))
        local words_now = numbers(file, "language_model.model.embed_tokens.weight")
        local own = numbers(mouth .. "/model.safetensors", "model.embed_tokens.weight")
        assert.same(own[4240], words_now[4240])
        local mean = 0
        for _, row in ipairs(own) do
            mean = mean + row[1] / #own
        end
        assert.near(mean, words_now[4241][1], 1e-6)

        local processor = am.AutoProcessor.from_pretrained(dir)
        assert.equal(4238, processor.image_token_id)
        local picture = path.dirname(rows) .. "/1.png"
        assert.equal(6, processor:plan(picture).num_tokens)
        -- the projector gives as much as an embedding of a word has
        local model = am.AutoModelForImageTextToText.from_pretrained(dir).model
        local function deviation(x) return x:sub(x:mean()):pow(2):mean():sqrt():item() end
        local words, features = deviation(am.tensor(own)), {}
        for i = 1, 3 do
            local source = processor:plan(string.format("%s/%d.png", path.dirname(rows), i))
            local pixels = processor.to_tensors(processor:collect(processor:submit { source }), "cpu").pixel_values
            local states = model.vision_tower:forward(pixels, { layers = { -1 } }).hidden_states[1]:narrow(1, 1, 6)
            features[i] = model.multi_modal_projector:forward(states):reshape(-1, 32)
        end
        assert.near(1, deviation(am.cat(features, 0)) / words, 0.02)
        local rc, _, errors = helper.run { "examples/vlm/assemble.lua", "--tower", eyes, "--model", mouth,
                                           "--output-dir", dir, "--rows", rows }
        assert.is_true(rc ~= 0 and errors:find("already holds a model", 1, true) ~= nil, errors)
    end)

    it("teaches stamps: projector first, then LoRA", function()
        local stamps, run = helper.folder(), helper.folder()
        for i = 1, 20 do
            local bytes, colour = vlm.picture(i)
            local stem = string.format("%s/%s/x/%02d", stamps, colour, i)
            path.mkdir_p(path.dirname(stem))
            helper.write(stem .. ".png", bytes)
            helper.write(stem .. "_mirror.png", bytes)
            helper.write(stem .. ".txt", "Something " .. colour .. ".\nde.utf8=Etwas.\n")
        end
        assert.matches("16 stamps to learn and 4 held out", amlua("examples/vlm/stamps/rows.lua", run, stamps))
        local first = helper.read(run .. "/train.jsonl")
        amlua("examples/vlm/stamps/rows.lua", run, stamps)
        assert.equal(first, helper.read(run .. "/train.jsonl"))
        assert.is_nil(first:find("_mirror", 1, true))

        local base = assemble(run .. "/train.jsonl", "--height", "28", "--width", "28", "--feature-layer", "-1",
                              "--strategy", "full")
        local function train(config, from, to)
            amlua("recipes/vlm_finetune.lua", "examples/vlm/stamps/" .. config .. ".yaml",
                  "--model.pretrained_model_name_or_path", from, "--checkpoint.checkpoint_dir", run .. "/" .. to,
                  "--dataset.path_or_dataset", run .. "/train.jsonl", "--validation_dataset.path_or_dataset",
                  run .. "/heldout.jsonl", "--step_scheduler.max_steps", "3", "--samples.max_new_tokens", "4",
                  "--lr_scheduler.lr_warmup_steps", "1")
            return run .. "/" .. to .. "/LATEST/model"
        end
        local projector = train("projector", base, "projector") .. "/consolidated"
        local adapter, lora = train("lora", projector, "lora"), run .. "/merged"
        amlua("recipes/merge_lora.lua", "--base-model", projector, "--adapter-path", adapter, "--output-dir", lora)
        local weights = {}
        for i, dir in ipairs { base, projector, lora } do
            for _, name in ipairs(path.list_dir(dir)) do
                weights[i] = name:find("%.safetensors$") and am.load_safetensors(path.join(dir, name)) or weights[i]
            end
        end
        local function changed(i, name)
            return not pcall(assert.same, weights[i][name]:to("float32"):totable(),
                             weights[i + 1][name]:to("float32"):totable())
        end
        local up = "language_model.model.layers.0.mlp.up_proj.weight"
        assert.is_true(changed(1, "multi_modal_projector.linear_1.weight"))
        assert.is_true(changed(2, "multi_modal_projector.linear_1.weight"))
        assert.is_true(changed(2, up))
        assert.is_false(changed(2, "vision_tower.encoder.layer.0.mlp.fc1.weight"))

        amlua("examples/vlm/answers.lua", "--model", projector, "--adapter", adapter, "--rows",
              run .. "/heldout.jsonl", "--output", run .. "/answers.jsonl", "--max-new-tokens", "3")
        assert.matches("of 4 stamps", amlua("examples/vlm/score.lua", "stamps", run .. "/answers.jsonl"))
    end)

    it("renders receipts that make_cord_v2_dataset reads, the same for a seed", function()
        local run = helper.folder()
        local function render(name, ...)
            amlua("examples/vlm/receipts/render.lua", run .. "/" .. name, ...)
            return helper.read(run .. "/" .. name .. "/00003.svg"), helper.read(run .. "/" .. name .. "/metadata.jsonl")
        end
        local svg, rows = render("a", "4", "5")
        assert.same({ svg, rows }, { render("b", "4", "5") })
        assert.is_true(rows ~= select(2, render("c", "4", "6")))
        for i = 1, 4 do
            helper.write(string.format("%s/a/%05d.png", run, i), (vlm.picture(1, 224, 154)))
        end
        local base = assemble(run .. "/a/metadata.jsonl", "--keep-size", "--feature-layer", "2")
        amlua("recipes/vlm_finetune.lua", "examples/vlm/receipts/receipts.yaml",
              "--model.pretrained_model_name_or_path", base, "--checkpoint.checkpoint_dir", run .. "/run",
              "--dataset.path_or_dataset", run .. "/a/metadata.jsonl", "--validation_dataset.path_or_dataset",
              run .. "/a/metadata.jsonl", "--step_scheduler.max_steps", "2", "--step_scheduler.num_epochs", "2",
              "--samples.max_new_tokens", "4", "--lr_scheduler.lr_warmup_steps", "1")
        local answers = run .. "/answers.jsonl"
        amlua("examples/vlm/answers.lua", "--model", base, "--rows", run .. "/a/metadata.jsonl", "--output", answers,
              "--max-new-tokens", "3", "--limit", "2")
        local lines = {}
        for i, row in ipairs(helper.jsonl(answers)) do
            assert.matches("<s_total><s_total_price>%d+%.%d%d</s_total_price></s_total><s_sub_total>", row.expected)
            lines[i] = json.encode { expected = row.expected, answer = row.expected }
        end
        assert.equal(2, #lines)
        helper.write(answers, table.concat(lines, "\n"))
        assert.matches("fields F1 1.000", amlua("examples/vlm/score.lua", "receipts", answers))
    end)

    it("scores answers", function()
        local file = helper.folder() .. "/answers.jsonl"
        local function score(what, least, ...)
            local lines = {}
            for i, pair in ipairs { ... } do
                lines[i] = json.encode { answer = pair[1], expected = pair[2] }
            end
            helper.write(file, table.concat(lines, "\n"))
            return helper.run { "examples/vlm/score.lua", what, file, least }
        end
        -- words: { a red car } and { a car } share 2 of 3 and 2; none of the second
        local rc, out = score("stamps", "0.5", { "town: a red car", "town: A car." }, { "no", "food: Tea." })
        assert.equal("kind named 50.0 %, words of the sentence F1 0.400, sentences with all words right 0.0 %, "
                     .. "of 2 stamps", out:match("[^\n]+"))
        assert.equal(0, rc)
        assert.equal(1, (score("stamps", "0.6", { "town: a red car", "town: A car." }, { "no", "food: Tea." })))
        -- 2 of 3 fields of the answer are among the 4 of the truth; an open tag says nothing
        local _, fields = score("receipts", "0", {
            "<s_menu><s_nm>Tea</s_nm><sep/><s_nm>Cake</s_nm></s_menu><s_total><s_x>1</s_x></s_total><s_y>",
            "<s_menu><s_nm>Tea</s_nm><s_cnt>1</s_cnt></s_menu><s_total><s_x>1</s_x><s_z>2</s_z></s_total>" })
        assert.matches("fields F1 0.571, receipts without a mistake 0.0 %%, of 1", fields)
    end)

    it("takes DINOv2 out of an ONNX file", function()
        local dir = helper.folder()
        local matrix = weight("onnx::MatMul_7", { 2, 3 }, function(i) return i end)
        local graph = matrix .. weight("backbone.encoder.layer.0.mlp.fc1.bias", { 3 }, function(i) return -i end)
            .. node("MatMul", "x", "onnx::MatMul_7", "y")
            .. node("Add", "backbone.encoder.layer.0.mlp.fc1.bias", "y", "z")
            .. weight("onnx::a", { 1, 1, 384 }, function() return 1 end)
            .. weight("onnx::b", { 1, 1369, 384 }, function() return 2 end)
        local onnx = field(7, graph)
        amlua("examples/vlm/dinov2.lua", helper.write(dir .. "/a.onnx", onnx), dir .. "/out")
        local file = dir .. "/out/model.safetensors"
        assert.same({ { 0, 3 }, { 1, 4 }, { 2, 5 } }, numbers(file, "encoder.layer.0.mlp.fc1.weight"))
        assert.same({ 0, -1, -2 }, numbers(file, "encoder.layer.0.mlp.fc1.bias"))
        local positions = am.load_safetensors(file)["embeddings.position_embeddings"]
        assert.same({ 1, 1370, 384 }, { positions:size(0), positions:size(1), positions:size(2) })
        local rc, _, errors = helper.run { "examples/vlm/dinov2.lua", helper.write(dir .. "/b.onnx", onnx:sub(1, 99)),
                                           dir .. "/out2" }
        assert.is_true(rc ~= 0 and errors:find("cut short", 1, true) ~= nil, errors)
    end)
end)
