-- LoRA over weights in few bits against transformers, bitsandbytes and PEFT: logits, gradients, losses of five steps.
-- Goldens: tests/parity/qlora_golden.py.

local ffi = require("ffi")
local am = require("am")
local autograd = require("am.core.autograd")
local compare = require("tests.support.compare")
local io_core = require("am.core.io")
local path = require("am.utils.path")
local qlora = am.quantization.qlora

-- Rounding in another order, in float32; five steps of AdamW, whose first divides a gradient by its own size, make more
-- of it.
local LOGITS, GRADIENT, LOSS = 1e-5, 1e-4, 1e-3

local SETTINGS = {
    nf4 = { load_in_4bit = true, bnb_4bit_compute_dtype = "float32" },
    int8 = { load_in_8bit = true },
}

-- qlora_golden.py's numbers
local function fill(t, seed)
    local n, state = t:numel(), seed
    local values = ffi.new("double[?]", n)
    for i = 0, n - 1 do
        state = state * 48271 % 2147483647
        values[i] = 0.4 * (state / 2147483647 - 0.5)
    end
    autograd.no_grad(function() t:copy_(am.from_buffer(values, t:size(), { dtype = "float64" })) end)
end

-- The tensors of a model that `wanted` takes, by name, in the order of names.
local function fill_all(model, first, wanted)
    local list = {}
    for name, t in model:named_parameters() do
        list[#list + 1] = wanted(t) and { name, t } or nil
    end
    table.sort(list, function(a, b) return a[1] < b[1] end)
    for i, item in ipairs(list) do
        if not item[1]:find("norm") then
            fill(item[2], first + i)
        end
    end
end

-- A folder with qlora_golden.py's model.
local function base_folder()
    local dir = os.tmpname()
    os.remove(dir)
    local model = am.AutoModelForCausalLM.from_config {
        architectures = { "LlamaForCausalLM" }, model_type = "llama", hidden_size = 64, intermediate_size = 128,
        num_hidden_layers = 2, num_attention_heads = 4, num_key_value_heads = 2, vocab_size = 60,
        max_position_embeddings = 32, rms_norm_eps = 1e-5, tie_word_embeddings = false,
    }
    fill_all(model, 0, function() return true end)
    model:save_pretrained(dir)
    model:close()
    return dir
end

local function adapted(dir, kind)
    local model = am.AutoModelForCausalLM.from_pretrained(dir, { quantize = qlora.new(SETTINGS[kind]) })
    local config = am.peft.PeftConfig { target_modules = { "*_proj" }, dim = 4, alpha = 8 }
    config = am.peft.apply(model, config)
    fill_all(model, 100, function(t) return t.requires_grad end)
    return model, config
end

local ids = {}
for k = 1, 12 do
    ids[k] = k * 13 % 60
end
local input = { input_ids = { ids }, labels = { ids } }

describe("LoRA over weights in few bits", function()
    local dir
    setup(function() dir = base_folder() end)
    teardown(function() path.remove_tree(dir) end)

    for kind in pairs(SETTINGS) do
        it(kind .. " is PEFT's over bitsandbytes'", function()
            local golden = io_core.load_safetensors("tests/parity/golden/qlora/golden.safetensors")
            local model = adapted(dir, kind)
            local optimizer = am.optim.new("adamw", model:named_parameters(), { lr = 1e-2, weight_decay = 0 })
            local want = golden[kind .. ".losses"]:to_buffer()
            for step = 0, 4 do
                local out = model:forward(input)
                if step == 0 then
                    compare.within("logits", out.logits, golden[kind .. ".logits"], LOGITS)
                end
                compare.near("loss of step " .. step, out.loss:item(), want[step], LOSS * want[step])
                out.loss:backward()
                local compared = 0
                for name, t in model:named_parameters() do
                    local grad = step == 0 and golden[kind .. ".grad.base_model.model." .. name]
                    if grad then
                        compare.within("gradient of " .. name, t.grad, grad, GRADIENT)
                        compared = compared + 1
                    end
                end
                assert.equal(step == 0 and 4 or 0, compared)
                optimizer:step()
                optimizer:zero_grad()
            end
            model:close()
        end)
    end

    it("makes an adapter that opens over the plain base", function()
        local few, config = adapted(dir, "nf4")
        local folder = dir .. "/adapter"
        path.mkdir_p(folder)
        am.peft.save_adapter(few, folder, config)
        local plain = am.AutoModelForCausalLM.from_pretrained(dir)
        am.peft.load_adapter(plain, folder)
        local a, b = few:forward(input).loss:item(), plain:forward(input).loss:item()
        compare.near("loss over the plain base", b, a, 0.1 * a) -- weights of four bits are others
        assert.are_not.equal(a, b)
        local found = os.getenv("AMLUA_ORACLE_PYTHON")
        if found then
            local code = "import sys, torch; from transformers import AutoModelForCausalLM as M; "
                .. "from peft import PeftModel as P; i = torch.tensor([[k * 13 % 60 for k in range(1, 13)]]); "
                .. "m = P.from_pretrained(M.from_pretrained(sys.argv[1], dtype=torch.float32), sys.argv[2]); "
                .. "print(m(input_ids=i, labels=i).loss.item())"
            local pipe = io.popen(("%s -c '%s' %s %s 2>/dev/null"):format(found, code, dir, folder))
            local loss = tonumber(pipe:read("*a"):match("([%d.]+)%s*$"))
            pipe:close()
            compare.near("loss by PEFT", loss or math.huge, b, 1e-4)
        end
        few:close()
        plain:close()
    end)
end)
