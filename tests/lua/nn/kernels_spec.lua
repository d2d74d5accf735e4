-- Switching a live model between fused ops and the compositions that check them: what runs how is said, numbers are
-- the same within rounding, and the switch goes back.

local am = require("am")
local ops = require("am.core.ops")
local path = require("am.utils.path")
local raised = require("tests.support.tiny").raised

local ROOT = "tests/parity/models/golden"
local ids = { 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8 }

-- How often an op's function is called in fn.
local function calls(name, fn)
    local plain, count = ops[name], 0
    ops[name] = function(...)
        count = count + 1
        return plain(...)
    end
    local ok, result = pcall(fn)
    ops[name] = plain
    assert.is_true(ok, tostring(result))
    return count, result
end

describe("a live model's kernels", function()
    for _, case in ipairs(path.list_dir(ROOT)) do
        it("are switched and back: " .. case, function()
            local model = am.AutoModelForCausalLM.from_pretrained(path.join(ROOT, case))
            local function logits() return model:forward({ input_ids = { ids } }).logits end
            local function used(name) return (calls(name, logits)) end
            local before = {}
            for _, name in ipairs { "attention", "glu", "rms_norm", "layer_norm" } do
                before[name] = used(name)
            end
            local fused = logits()
            local how = am.patch_model_with_kernel_optimizations(model, { attn_implementation = "eager",
                                                                          use_liger_kernel = false })
            assert.equal("eager", how.attention)
            for name, count in pairs(before) do
                assert.equal(0, used(name), name)
                if name ~= "attention" then
                    assert.equal(count > 0 and "composed" or nil, how[name], name)
                end
            end
            -- f32 rounds at 6e-8; another order of sums in every norm and attention gives some 1e-6
            local off, largest = (logits() - fused):abs():amax():item(), fused:abs():amax():item()
            assert.is_true(off <= 1e-5 * largest, off / largest .. " of the largest logit")
            am.patch_model_with_kernel_optimizations(model)
            assert.same(fused:totable(), logits():totable())
            model:close()
        end)
    end

    it("may be a library's for flash_attention_2, which is told the samples", function()
        local model = am.AutoModelForCausalLM.from_pretrained(path.join(ROOT, "llama"),
                                                              { attn_implementation = "flash_attention_2" })
        local plain, seen = ops.attention, nil
        local function options(args)
            ops.attention = function(q, k, v, bounds, opts)
                seen = opts
                return plain(q, k, v, bounds, opts)
            end
            local ok, problem = pcall(model.forward, model, args)
            ops.attention = plain
            assert.is_true(ok, tostring(problem))
            return { library = seen.library, samples = seen.samples }
        end
        local packed = { input_ids = { { 3, 1, 4, 1, 5 }, { 9, 2, 6, 5, 3 } },
                         position_ids = { { 0, 1, 2, 0, 1 }, { 0, 1, 2, 3, 4 } } }
        assert.same({ library = true, samples = 3 }, options(packed))
        local masked = { input_ids = packed.input_ids, attention_mask = { { 1, 1, 1, 0, 0 }, { 1, 1, 1, 1, 1 } } }
        assert.same({ library = true, samples = 2 }, options(masked))
        am.patch_model_with_kernel_optimizations(model)
        assert.same({ library = false, samples = 3 }, options(packed))
        model:close()
    end)

    it("have known names", function()
        raised("argument", { "quick", "eager", "sdpa" }, am.AutoModelForCausalLM.from_pretrained,
               path.join(ROOT, "llama"), { attn_implementation = "quick" })
    end)
end)
