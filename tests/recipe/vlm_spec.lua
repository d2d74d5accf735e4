-- recipes/vlm_finetune.lua on a tiny LLaVA and pictures of plain colours: it learns what they show, splits and packs
-- batches alike, resumes bit for bit, leaves frozen parts as they are, and saves what opens again.
local am = require("am")
local ffi = require("ffi")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")
local vlm = require("tests.recipe.vlm_helper")

local model, rows

local function config(changes, on)
    local dir = helper.folder()
    return vlm.config(dir, model, on or rows, changes), dir
end

local function recipe_of(cfg)
    return helper.recipe(cfg, vlm.recipe)
end

local function trained(cfg)
    local recipe = recipe_of(cfg)
    recipe:train()
    return recipe
end

-- { name = numbers } of a model's parameters.
local function numbers(of)
    local out = {}
    for name, t in of:named_parameters() do
        out[name] = { t:to("float32"):to_buffer() }
    end
    return out
end

-- Of parameters before and after, names of those that changed.
local function changed(before, after)
    local list = {}
    for name, a in pairs(before) do
        local b = after[name]
        if ffi.string(a[1], 4 * a[2]) ~= ffi.string(b[1], 4 * b[2]) then
            list[#list + 1] = name
        end
    end
    return list
end

-- Loss, gradients' norm and updated weights of one step over all rows.
local function one_step(changes, on)
    local recipe = recipe_of(config(helper.changes({
        dataloader = { shuffle = false }, optimizer = { lr = 1e-3 },
        step_scheduler = { global_batch_size = 16, max_steps = 1 },
    }, changes), on))
    local before, metrics = numbers(recipe.model), recipe:step()
    local after = numbers(recipe.model)
    helper.close(recipe)
    return metrics, before, after
end

-- Norm of the difference of two updates, as a fraction of the first.
local function update_difference(a0, a1, b0, b1)
    local off, norm = 0, 0
    for name in pairs(a0) do
        for k = 0, a0[name][2] - 1 do
            local a, b = a1[name][1][k] - a0[name][1][k], b1[name][1][k] - b0[name][1][k]
            off, norm = off + (a - b) ^ 2, norm + a ^ 2
        end
    end
    return math.sqrt(off / norm)
end

-- Sums are of the same float32 numbers in another order.
local function check_alike(changes_a, changes_b, on)
    local a, a0, a1 = one_step(changes_a, on)
    local b, b0, b1 = one_step(changes_b, on)
    assert.equal(a.num_label_tokens, b.num_label_tokens)
    assert.is_true(helper.relative(a.loss, b.loss) <= 1e-5, a.loss .. " and " .. b.loss)
    assert.is_true(helper.relative(a.grad_norm, b.grad_norm) <= 1e-5, a.grad_norm .. " and " .. b.grad_norm)
    local off = update_difference(a0, a1, b0, b1)
    assert.is_true(off <= 1e-4, "the update differs by " .. off)
end

setup(function()
    model, rows = vlm.model("llava"), vlm.rows(16, { text_rows = true })
end)
teardown(helper.cleanup)

describe("vlm_finetune", function()
    it("learns what pictures show, and says it to --image", function()
        local pictures = vlm.rows(16)
        local cfg, dir = config({ step_scheduler = { max_steps = 90, global_batch_size = 8, local_batch_size = 8 },
                                  checkpoint = { save_consolidated = "final" }, optimizer = { lr = 1e-2 } }, pictures)
        local recipe = trained(cfg)
        helper.close(recipe)
        local curve = helper.jsonl(dir .. "/training.jsonl")
        assert.is_true(curve[1].loss > 7 and curve[#curve].loss < 0.3, curve[1].loss .. " to " .. curve[#curve].loss)
        local consolidated = helper.latest(dir) .. "/model/consolidated"
        for i = 1, 4 do
            local _, colour = vlm.picture(i)
            local status, out, errors = helper.run { "recipes/generate.lua", "--checkpoint-path", dir, "--image",
                                                     pictures .. "/" .. i .. ".png", "--prompt", "What colour?" }
            assert.equal(0, status, errors)
            assert.is_truthy(out:find(colour, 1, true), colour .. " is called: " .. out)
        end
        local processor = am.AutoProcessor.from_pretrained(consolidated)
        assert.equal(vlm.IMAGE, processor.image_token_id)
    end)

    for _, kind in ipairs { "full", "lora" } do
        it("splits a batch of 16 as 16x1, 8x2 and 1x16 alike: " .. kind, function()
            local peft = kind == "lora" and { peft = { target_modules = "*_proj", dim = 4 } } or {}
            for _, size in ipairs { 8, 1 } do
                check_alike(helper.changes(peft, { step_scheduler = { local_batch_size = 16 } }),
                            helper.changes(peft, { step_scheduler = { local_batch_size = size } }))
            end
        end)
    end

    it("trains on packs as on padded rows", function()
        check_alike({ step_scheduler = { local_batch_size = 16 } },
                    { step_scheduler = { local_batch_size = 2 }, packed_sequence = { pack_size = 128 } })
    end)

    it("resumes as if it had not been stopped, in every bit", function()
        local changes = {
            step_scheduler = { max_steps = 6, ckpt_every_steps = 2 }, freeze_config = { freeze_vision_tower = false },
            validation_dataset = { _target_ = "am.datasets.vlm.ImageFolder", path_or_dataset = vlm.rows(4) },
            samples = { validation_rows = 2, max_new_tokens = 4 },
        }
        local cfg, whole = config(changes)
        helper.close(trained(cfg))
        local curve, last = helper.curve(whole), helper.latest(whole)
        for _, name in ipairs { "epoch_0_step_1", "epoch_0_step_3" } do
            changes.checkpoint = { restore_from = path.join(whole, name) }
            local parts, dir = config(changes)
            helper.close(trained(parts))
            assert.same({ unpack(curve, tonumber(name:match("%d+$")) + 2) }, helper.curve(dir))
            assert.is_nil(helper.checkpoint_difference(last, helper.latest(dir)))
        end
    end)

    it("touches no memory that is not the host's", function() -- which of the device fence faults
        local latest, few = {}, vlm.rows(2)
        for _, device in ipairs { "ref", "fence" } do
            local cfg, dir = config {
                device = device, step_scheduler = { max_steps = 2 },
                samples = { validation_rows = 1, max_new_tokens = 3 },
                freeze_config = { freeze_vision_tower = false },
                validation_dataset = { _target_ = "am.datasets.vlm.ImageFolder", path_or_dataset = few },
            }
            helper.close(trained(cfg))
            latest[device] = helper.latest(dir)
        end
        assert.is_nil(helper.checkpoint_difference(latest.ref, latest.fence))
    end)

    it("changes nothing that freeze_config names, to the bit", function()
        local function moved(freeze)
            local recipe = recipe_of(config { freeze_config = freeze, step_scheduler = { max_steps = 2 } })
            local before = numbers(recipe.model)
            recipe:train()
            local names = changed(before, numbers(recipe.model))
            helper.close(recipe)
            local found = {}
            for _, name in ipairs(names) do
                local part = name:find("embed", 1, true) and "embeddings" or name:match("vision_tower")
                    or name:match("multi_modal_projector") or name:match("language_model") or name:match("lm_head")
                found[part] = (found[part] or 0) + 1
            end
            local parts = {}
            for part in pairs(found) do
                parts[#parts + 1] = part
            end
            table.sort(parts)
            return table.concat(parts, " ")
        end
        assert.equal("language_model lm_head multi_modal_projector", moved(nil))
        assert.equal("lm_head multi_modal_projector", moved { freeze_language_model = true })
        assert.equal("embeddings language_model lm_head multi_modal_projector vision_tower",
                     moved { freeze_embeddings = false, freeze_vision_tower = false })
    end)

    it("adapts the vision tower or leaves it out, as peft says", function()
        for _, case in ipairs { { { exclude_modules = json.array { "*vision*", "*lm_head*" } }, false },
                                { { target_modules = "*_proj" }, true } } do
            local cfg, dir = config { peft = case[1], step_scheduler = { max_steps = 2 } }
            local recipe = recipe_of(cfg)
            local before = numbers(recipe.model)
            recipe:train()
            local names = changed(before, numbers(recipe.model))
            helper.close(recipe)
            local in_tower, in_text = false, false
            for _, name in ipairs(names) do
                assert.is_truthy(name:find("lora_", 1, true), name .. " changed")
                in_tower = in_tower or name:find("vision_tower", 1, true) ~= nil
                in_text = in_text or name:find("language_model", 1, true) ~= nil
            end
            assert.is_true(in_text)
            assert.equal(case[2], in_tower)
            local saved = helper.latest(dir) .. "/model"
            local key = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight"
            assert.is_truthy(helper.tensors(saved .. "/adapter_model.safetensors")[key])
            local status, _, errors = helper.run { "recipes/generate.lua", "--checkpoint-path", dir, "--image",
                rows .. "/1.png", "--prompt", "What colour?", "--max_new_tokens", "2" }
            assert.equal(0, status, errors)
        end
    end)

    it("takes the memory that it says, pictures included, within a fifth", function()
        local width = { hidden_size = 256, intermediate_size = 768, num_hidden_layers = 4 }
        local large = vlm.model("llava", helper.changes(width, { max_position_embeddings = 1024 }),
                                helper.changes(width, { image_size = 224, patch_size = 16, num_attention_heads = 4 }))
        for _, frozen in ipairs { true, false } do
            local cfg = vlm.config(helper.folder(), large, rows, {
                freeze_config = { freeze_vision_tower = frozen }, report = { enabled = false },
                step_scheduler = { global_batch_size = 8, local_batch_size = 8, max_steps = 4 } })
            local status, out, errors = helper.run { "tests/recipe/peak_memory.lua", helper.yaml(helper.folder(), cfg),
                                                     "vlm_finetune" }
            assert.equal(0, status, errors)
            local said, measured = out:match("(%d+) (%d+)")
            assert.is_true(math.abs(said / measured - 1) <= 0.2, said .. " said, " .. measured .. " measured")
        end
    end)

    it("saves a whole model that opens again with the same numbers", function()
        local cfg, dir = config { checkpoint = { save_consolidated = true }, step_scheduler = { max_steps = 2 } }
        local recipe = trained(cfg)
        local again = am.AutoModelForImageTextToText.from_pretrained(helper.latest(dir) .. "/model/consolidated")
        assert.same({}, changed(numbers(recipe.model), numbers(again)))
        assert.is_true(path.is_file(helper.latest(dir) .. "/model/consolidated/preprocessor_config.json"))
        again:close()
        helper.close(recipe)
    end)
end)

describe("vlm_finetune refuses", function()
    -- A run's configuration on one row of captions.jsonl.
    local function on_row(fields, changes)
        local dir = vlm.rows(1)
        helper.write(dir .. "/captions.jsonl", json.encode(fields) .. "\n")
        return (config(changes, dir)), dir
    end

    local function refused(cfg, ...)
        local status, out, errors = helper.run { vlm.recipe, helper.yaml(helper.folder(), cfg) }
        assert.is_nil(helper.refusal_problem(status, { ... }, status, out, errors))
        assert.is_true(status == 1 or status == 2, tostring(status))
    end

    it("a picture that is missing, broken or too large, by row and file", function()
        local cfg, dir = on_row { file_name = "none.png", text = "x" }
        refused(cfg, "captions.jsonl row 1", dir .. "/none.png")
        cfg, dir = on_row { file_name = "1.png", text = "x" }
        helper.write(dir .. "/1.png", helper.read(dir .. "/1.png"):sub(1, 60)) -- the header is whole
        refused(cfg, "captions.jsonl row 1", dir .. "/1.png", "on_bad_image: skip")
    end)

    it("more markers than images, and the reverse", function()
        local function said(content)
            return json.array { { role = "user", content = content }, { role = "assistant", content = "x" } }
        end
        refused(on_row { file_name = "1.png", messages = said("<image><image> two?") }, "captions.jsonl row 1",
                "more places for images than images")
        refused(on_row { file_name = "1.png", messages = said("none?") }, "captions.jsonl row 1",
                "1 images beside the conversation, but 0 places")
    end)

    it("sound, which it does not hear", function()
        refused(on_row { file_name = "1.png", messages = json.array {
            { role = "user", content = json.array { { type = "audio", audio = "a.wav" } } },
            { role = "assistant", content = "x" } } }, "captions.jsonl row 1", "audio")
    end)

    it("a processor that does not fit the model", function()
        local other = helper.copy(model, helper.folder() .. "/other")
        helper.write(other .. "/processor_config.json", json.encode {
            processor_class = "LlavaProcessor", patch_size = 8, vision_feature_select_strategy = "default",
            num_additional_image_tokens = 1, image_token = "<image>" })
        refused(on_row({ file_name = "1.png", text = "x" }, { processor = { pretrained_model_name_or_path = other } }),
                "processor", "patch_size is 8 here and 4 in the model")
    end)

    it("a model without a processor, and rows that it cannot hold", function()
        local bare = helper.copy(model, helper.folder() .. "/bare")
        os.remove(bare .. "/preprocessor_config.json")
        refused(on_row({ file_name = "1.png", text = "x" }, { model = { pretrained_model_name_or_path = bare } }),
                "no preprocessor_config.json", "(in processor, ")
        refused(on_row { file_name = "1.png", text = ("x "):rep(300) }, "captions.jsonl row 1",
                "cut text with dataset.max_length of at most 256 and truncate: true")
    end)

    it("a model that reads no images, and llm_finetune one that does", function()
        local cfg = config { model = { _target_ = "am.AutoModelForCausalLM.from_pretrained" } }
        refused(cfg, "model", "am.AutoModelForImageTextToText.from_pretrained")
        cfg = config()
        local status, out, errors = helper.run { helper.finetune, helper.yaml(helper.folder(), cfg) }
        assert.is_nil(helper.refusal_problem(2, { "model" }, status, out, errors))
    end)
end)
