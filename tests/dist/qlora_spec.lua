-- Weights in few bits on ranks that share rows or layers: they learn what one rank learns. Where ranks would share
-- matrices they are refused before the model is loaded. Skipped, and counted, where there is no mpirun or no
-- amlua_mpi.so.
local helper = require("tests.recipe.helper")
local ranks = require("tests.dist.ranks")

local lora = { peft = { target_modules = "*_proj", dim = 4 },
               step_scheduler = { max_steps = 6, val_every_steps = 6 } }
-- Products in float32, so that a sum in another order is that and no more.
local KINDS = { ["4"] = { load_in_4bit = true, bnb_4bit_compute_dtype = "float32" },
                ["8"] = { load_in_8bit = true } }
local SHARED = { { strategy = "ddp" }, { pp_size = 2 }, { strategy = "ddp", cp_size = 2 } }

local CUT = { fsdp2 = { strategy = "fsdp2" }, megatron_fsdp = { strategy = "megatron_fsdp" },
              tp_size = { strategy = "ddp", tp_size = 2 } }

ranks.describe("weights in few bits", function()
    for bits, kind in pairs(KINDS) do
        it("are trained beside as on one rank: " .. bits .. " bits", function()
            local changes = helper.changes(lora, { quantization = kind })
            local one = ranks.train(1, changes, { "--checkpoint.enabled", "false" })
            for _, distributed in ipairs(SHARED) do
                local two = ranks.train(2, ranks.with(distributed, changes), { "--checkpoint.enabled", "false" })
                ranks.compare(one, two)
            end
        end)
    end

    for name, distributed in pairs(CUT) do
        it("are not cut: " .. name, function()
            local dir = helper.model() -- its weights can't be read
            helper.write(dir .. "/model.safetensors", "")
            for asked, changes in pairs {
                ["quantization.load_in_8bit"] = { quantization = { load_in_8bit = true } },
                ["model.quantization_config.load_in_4bit"] = {
                    model = { quantization_config = { load_in_4bit = true } },
                },
            } do
                local cfg = helper.config(helper.folder(), helper.changes(lora, changes, {
                    model = { pretrained_model_name_or_path = dir }, distributed = distributed,
                }))
                local status, out, errors = helper.run({ helper.finetune, helper.yaml(helper.folder(), cfg) },
                                                       { before = ranks.mpirun(2) })
                assert.equal(2, status, out .. errors)
                local said = ("distributed: %s cuts matrices, and %s keeps them in few bits: take strategy: ddp")
                    :format(name, asked)
                assert.truthy(errors:find(said, 1, true), errors)
            end
        end)
    end
end)
