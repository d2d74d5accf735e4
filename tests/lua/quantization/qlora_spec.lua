-- Weights in few bits: the bytes are bitsandbytes', what they take, which weights are packed, and what is refused.
-- Goldens: tests/parity/qlora_golden.py.

local ffi = require("ffi")
local am = require("am")
local digest = require("am.utils.digest")
local edge = require("am.core.ffi")
local io_core = require("am.core.io")
local json = require("am.utils.json")
local ops = require("am.core.ops")
local packed = require("am.core.packed")
local path = require("am.utils.path")
local qlora = am.quantization.qlora

local GOLDEN = "tests/parity/golden/qlora/"
local KINDS = { { "nf4", false }, { "nf4", true }, { "fp4", false }, { "fp4", true }, { "int8", false } }

-- qlora_golden.py's matrix
local function matrix(rows, cols, dtype, zero)
    local values, state = ffi.new("double[?]", rows * cols), 1
    for i = 0, rows * cols - 1 do
        state = state * 48271 % 2147483647
        local v = state / 2147483647 - 0.5
        values[i] = zero and 0 or v * math.abs(v)
    end
    return am.from_buffer(values, { rows, cols }, { dtype = "float64" }):to(dtype)
end

-- The bytes of a uint8 tensor, or of one of 16 bits.
local function bytes_of(t)
    local n = t:numel() * (t:dtype() == "uint8" and 1 or 2)
    local raw = ffi.new("uint8_t[?]", n)
    edge.check(edge.C.am_tensor_read(t, raw, n))
    return ffi.string(raw, n)
end

local function tiny(opts)
    return am.AutoModelForCausalLM.from_config({
        architectures = { "LlamaForCausalLM" }, model_type = "llama", hidden_size = 256, intermediate_size = 640,
        num_hidden_layers = 4, num_attention_heads = 4, num_key_value_heads = 2, vocab_size = 500,
        max_position_embeddings = 64, rms_norm_eps = 1e-5, tie_word_embeddings = false,
    }, opts)
end

local function raises(code, text, fn, ...)
    local ok, e = pcall(fn, ...)
    assert.is_false(ok)
    assert.equal(code, e.code)
    assert.truthy(tostring(e):find(text, 1, true), tostring(e))
end

describe("weights in few bits", function()
    for _, kind in ipairs(KINDS) do
        local label = kind[1] .. (kind[2] and "_nested" or "")
        local function pack(w) return packed.pack(w, { type = kind[1], nested = kind[2] }) end

        it(label .. " are bitsandbytes' bytes, and stand for its numbers", function()
            local golden = io_core.open(GOLDEN .. "golden.safetensors")
            for name, shape in pairs { whole = { 3, 128, "bfloat16" }, ragged = { 7, 30, "float32" },
                                       odd = { 3, 21, "float16" }, zero = { 2, 64, "float32" } } do
                local p = pack(matrix(shape[1], shape[2], shape[3], name == "zero"))
                local got, n = p.bytes:to_buffer()
                local want, m = golden:get(name .. "." .. label .. ".bytes"):to_buffer()
                assert.equal(m, n, name)
                for i = 0, n - 1 do
                    -- The mean of scales in float32: torch adds in an order of its vectors', so a last bit is free.
                    if not (kind[2] and shape[3] == "float32" and i < 4) then
                        assert.equal(want[i], got[i], name .. " byte " .. i)
                    end
                end
                local a, b = p:unpack():to_buffer(), golden:get(name .. "." .. label .. ".unpacked"):to_buffer()
                for i = 0, p:numel() - 1 do
                    local slack = kind[2] and shape[3] == "float32" and 2 ^ -23 or 0
                    assert.is_true(math.abs(a[i] - b[i]) <= slack * math.abs(b[i]), name .. " number " .. i)
                end
            end
            golden:close()
        end)

        it(label .. " are so for larger matrices", function()
            local digests = json.decode(assert(path.read_file(GOLDEN .. "digests.json")))
            for name, shape in pairs { bf16 = { 300, 640, "bfloat16" }, f16 = { 257, 129, "float16" } } do
                local p, want = pack(matrix(unpack(shape))), digests[name .. "." .. label]
                assert.equal(want.bytes, digest.text(bytes_of(p.bytes)), name)
                assert.equal(want.unpacked, digest.text(bytes_of(p:unpack())), name)
            end
        end)
    end

    it("take 4.13 bits each, and others 16", function()
        for _, case in ipairs { { { load_in_4bit = true }, 4.127 },
                                { { load_in_4bit = true, bnb_4bit_use_double_quant = false }, 4.5 },
                                { { load_in_8bit = true }, 8.1 } } do
            collectgarbage()
            local before = am.memory("cpu").live_bytes
            local model = tiny { torch_dtype = "bfloat16", quantize = qlora.new(case[1]) }
            local bytes = tonumber(am.memory("cpu").live_bytes - before)
            local few, other = 0, 0
            for _, t in model:named_parameters() do
                few = few + (packed.is(t) and t:numel() or 0)
                other = other + (packed.is(t) and 0 or t:numel())
            end
            assert.equal(4 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 256 * 640), few)
            local want = few * case[2] / 8 + other * 2
            assert.is_true(math.abs(bytes / want - 1) < 0.02, ("%d bytes, not %d"):format(bytes, want))
            model:close()
        end
    end)

    it("are the linear maps of the body, but for those to be skipped", function()
        local model = tiny { torch_dtype = "bfloat16", quantize = qlora.new {
            load_in_4bit = true, llm_int8_skip_modules = { "layers.1.mlp", "q_proj" } } }
        for name, t in model:named_parameters() do
            local wanted = name:find("_proj%.weight$") and not name:find("layers.1.mlp", 1, true)
                and not name:find("q_proj", 1, true)
            assert.equal(wanted and true or false, packed.is(t), name)
            assert.equal(not packed.is(t), t.requires_grad, name)
        end
        model:close()
        raises("unsupported", "no linear map", tiny, { quantize = qlora.new { load_in_4bit = true,
                                                                             llm_int8_skip_modules = { "layers" } } })
    end)

    it("are multiplied as the matrix that they stand for", function()
        local w = am.randn { 70, 130 }
        for _, kind in ipairs(KINDS) do
            local p = packed.pack(w, { type = kind[1], nested = kind[2] })
            local plain, x, y = p:unpack(), am.randn { 5, 130 }, am.randn { 5, 130 }
            y:copy_(x)
            x.requires_grad, y.requires_grad = true, true
            local a = ops.linear(x, p)
            a:sum():backward()
            local b = ops.linear(y, plain)
            b:sum():backward()
            for _, pair in ipairs { { a, b }, { x.grad, y.grad } } do
                local got, n = pair[1]:to_buffer()
                local want = pair[2]:to_buffer()
                for i = 0, n - 1 do -- float32 sums of 130 numbers in another order
                    assert.is_true(math.abs(got[i] - want[i]) < 1e-4 * (1 + math.abs(want[i])))
                end
            end
            assert.equal("float32", a:dtype())
        end
    end)

    it("are left behind as plain weights by merging", function()
        local model = tiny { torch_dtype = "float32", quantize = qlora.new {
            load_in_4bit = true, bnb_4bit_compute_dtype = "float32" } }
        local before = {}
        for name, t in model:named_parameters() do
            before[name] = packed.is(t) and t:unpack() or nil
        end
        am.peft.apply(model, am.peft.PeftConfig { target_modules = { "*v_proj" }, dim = 2 })
        am.peft.merge(model)
        for name, t in model:named_parameters() do -- B is zero
            assert.is_false(packed.is(t), name)
            if before[name] then
                local got, n = t:to_buffer()
                local want = before[name]:to_buffer()
                for i = 0, n - 1 do
                    assert.equal(want[i], got[i])
                end
            end
        end
        model:close()
    end)

    it("are not saved, scaled by DoRA or trained", function()
        local model = tiny { torch_dtype = "bfloat16", quantize = qlora.new { load_in_4bit = true } }
        local dir = os.tmpname()
        raises("state", "is in few bits", model.save_pretrained, model, dir .. ".d")
        os.remove(dir)
        raises("unsupported", "use_dora", am.peft.apply, model,
               am.peft.PeftConfig { target_modules = { "*q_proj" }, use_dora = true })
        raises("usage", "llm_int8_skip_modules", am.peft.apply, model,
               am.peft.PeftConfig { target_modules = { "*q_proj" }, modules_to_save = { "v_proj" } })
        assert.equal(28, qlora.dequantize(model))
        model:close()
    end)

    it("are refused where settings contradict themselves", function()
        assert.is_nil(qlora.new {})
        raises("usage", "both true", qlora.new, { load_in_4bit = true, load_in_8bit = true })
        raises("usage", "bnb_4bit_compute_dtype", qlora.new, { load_in_4bit = true, bnb_4bit_compute_dtype = "int8" })
        raises("usage", "bnb_4bit_quant_type", qlora.new, { load_in_4bit = true, bnb_4bit_quant_type = "nf5" })
        raises("argument", "none of nf4", packed.pack, am.randn { 2, 2 }, { type = "nf5" })
        raises("argument", "matrix", packed.pack, am.randn { 2 }, { type = "nf4" })
    end)
end)
