-- Training that knows of later quantisation, by recipe: from which step on, resuming, files, refusals, several ranks.
-- Its numbers are compared with torchao's in tests/parity/qat_spec.lua.
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local ranks = require("tests.dist.ranks")

local qat = { qat = { enabled = true, qat_config = { groupsize = 4 } } }

local function curve(changes)
    local dir = helper.folder()
    helper.train_here(helper.config(dir, helper.changes({ step_scheduler = { max_steps = 4 } }, changes)))
    return helper.curve(dir), dir
end

describe("QAT", function()
    teardown(helper.cleanup)

    it("begins with the step that fake_quant_after_n_steps says, and is off without enabled", function()
        local plain = curve {}
        local off = curve { qat = { qat_config = { groupsize = 4 } } }
        local now = curve(qat)
        local later = curve(helper.changes(qat, { qat = { fake_quant_after_n_steps = 2 } }))
        assert.same(plain, off)
        assert.not_equal(plain[1], now[1])
        assert.same({ plain[1], plain[2] }, { later[1], later[2] })
        assert.not_equal(plain[3], later[3])
    end)

    it("is named by a class of torchao's, as in NeMo Automodel's example", function()
        local one = curve(qat)
        local other = curve { qat = { enabled = true, fake_quant_after_n_steps = json.null, quantizer = {
            _target_ = "torchao.quantization.qat.Int8DynActInt4WeightQATQuantizer", groupsize = 4 } } }
        assert.same(one, other)
    end)

    it("validates as it trains", function()
        local validation = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 6, vocab_size = 67 }
        local losses = {}
        for i, after in ipairs { 1, 2 } do -- the first validation is behind step 1
            local _, dir = curve(helper.changes(qat, {
                qat = { fake_quant_after_n_steps = after }, optimizer = { lr = 0 }, validation_dataset = validation,
                step_scheduler = { val_every_steps = 2 },
            }))
            local records = helper.jsonl(dir .. "/validation.jsonl")
            losses[i] = { records[1].val_loss, records[2].val_loss }
        end
        assert.not_equal(losses[1][1], losses[2][1])
        assert.equal(losses[1][2], losses[2][2])
        assert.equal(losses[1][1], losses[1][2])
    end)

    it("goes on with the same bits, and saves plain weights", function()
        local folders = {}
        for _, stops in ipairs { false, true } do
            local dir = helper.folder()
            local cfg = helper.config(dir, helper.changes(qat, {
                qat = { fake_quant_after_n_steps = 2 }, model = { activation_checkpointing = true },
                step_scheduler = { max_steps = 6, ckpt_every_steps = 4 }, checkpoint = { save_consolidated = "final" },
            }))
            if stops then
                local recipe = helper.recipe(cfg)
                recipe.stop_requested = function(self) return self.scheduler.step >= 3 end
                recipe:train()
                helper.close(recipe)
            end
            helper.train_here(cfg)
            folders[#folders + 1] = dir
        end
        assert.equal(6, #helper.curve(folders[1]))
        assert.same(helper.curve(folders[1]), helper.curve(folders[2]))
        assert.is_nil(helper.checkpoint_difference(helper.latest(folders[1]), helper.latest(folders[2])))
        local consolidated = helper.latest(folders[1]) .. "/model/consolidated"
        local names, wanted = {}, {}
        for name in pairs(helper.tensors(consolidated .. "/model-00001-of-00001.safetensors")) do
            names[#names + 1] = name
        end
        for name in pairs(helper.tensors(helper.tiny .. "/model.safetensors")) do
            wanted[#wanted + 1] = name
        end
        table.sort(names)
        table.sort(wanted)
        assert.same(wanted, names)
        assert.is_nil(json.decode(helper.read(consolidated .. "/config.json")).quantization_config)
    end)

    it("computes layers again, and adds micro-batches up, with the same numbers", function()
        local one = curve(helper.changes(qat, { step_scheduler = { local_batch_size = 4 } }))
        local function first(list) return tonumber(list[1]:match("^%d+ %d+ (%S+)")) end
        for _, changes in ipairs { { step_scheduler = { local_batch_size = 1 } },
                                   { model = { activation_checkpointing = true } },
                                   { model = { activation_checkpointing = "selective" } } } do
            assert.is_true(helper.relative(first(one), first(curve(helper.changes(qat, changes)))) < 1e-6)
        end
        assert.same(curve(qat), curve(helper.changes(qat, { model = { activation_checkpointing = true } })))
    end)

    for name, case in pairs {
        ["a peft section"] = { 2, { peft = { target_modules = "*_proj" } }, "qat.enabled: with a peft section" },
        ["tensor parallel"] = { 2, { distributed = { tp_size = 2 } }, "distributed.tp_size" },
        ["two descriptions"] = { 2, { qat = { quantizer = {
            _target_ = "torchao.quantization.qat.Int4WeightOnlyQATQuantizer" } } }, "qat.quantizer: qat_config says" },
        ["groups that divide nothing"] = { 2, { qat = { qat_config = { groupsize = 7 } } }, "groupsize is 7" },
        ["a group that tinygemm has not"] = { 2, { qat = { qat_config = {
            quantizer_type = "int4_weight_only", groupsize = 16 } } }, "can be 32, 64, 128 or 256, not 16" },
        ["a width that tinygemm has not"] = { 2, { qat = { qat_config = {
            quantizer_type = "int4_weight_only", groupsize = 32, inner_k_tiles = 2 } } }, "down_proj has 44 inputs" },
        ["scales of another dtype"] = { 2, { qat = { qat_config = { scales_precision = "float16" } } },
                                        "can be bfloat16 or float32, not float16" },
        ["another quantizer"] = { 2, { qat = { qat_config = { quantizer_type = "int2" } } }, "int4_weight_only" },
    } do
        it("refuses " .. name, function()
            local status, out, errors = helper.train(helper.config(helper.folder(), helper.changes(qat, case[2])))
            assert.is_nil(helper.refusal_problem(case[1], { "qat", case[3] }, status, out, errors))
        end)
    end
end)

ranks.describe("QAT on several ranks", function()
    -- Sums in another order move an input to its neighbour among 256 levels here and there: later losses differ more.
    local FIRST, LATER = 1e-5, 2e-3

    it("learns what one rank learns", function()
        local function train(n, changes)
            return ranks.run(n, helper.config(helper.folder(), helper.changes(qat, {
                qat = { fake_quant_after_n_steps = 2 },
                step_scheduler = { global_batch_size = 8, local_batch_size = 2, max_steps = 8 },
            }, changes or {})))
        end
        local one = train(1)
        for _, section in ipairs { { strategy = "ddp" }, { strategy = "fsdp2" }, { cp_size = 2 }, { pp_size = 2 } } do
            local many = train(2, { distributed = section })
            assert.equal(#one, #many)
            for i, r in ipairs(one) do
                assert.is_true(helper.relative(r.loss, many[i].loss) < (i <= 3 and FIRST or LATER),
                               ("%s, step %d: %.9g, %.9g"):format(json.encode(section), i, r.loss, many[i].loss))
            end
        end
    end)
end)
