-- Training that knows of later quantisation (QAT), as NeMo Automodel has it of torchao: linear maps see their weights,
-- and in one of two ways their inputs, as few bits will hold them, while weights, gradients and optimizer stay as they
-- are. What is rounded how is the op's (fake_quantize). Nothing is quantised here for good: files are plain ones.

local err = require("am.core.error")
local ops = require("am.core.ops")
local tensor = require("am.core.tensor")
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")

local M = {}

local KINDS = { "int8_dynact_int4weight", "int4_weight_only" }
local GROUPS = { [32] = true, [64] = true, [128] = true, [256] = true } -- that tinygemm has
local TILE = 16 -- tinygemm packs inner_k_tiles times so many columns together

local of_all = {
    groupsize = { type = "integer", min = 2, default = 256, doc = "weights of a row that share a scale" },
    precision = { type = "any", no_effect = "weights keep their dtype" },
    scales_precision = { type = "string", default = "bfloat16", doc = "dtype of the weights' scales: bfloat16 or, of "
                             .. "int8_dynact_int4weight, float32" },
}
local padding_allowed = { type = "boolean", no_effect = "nothing is padded" }
local inner_k_tiles = { type = "integer", enum = { 2, 4, 8 }, default = 8,
                        doc = "of int4_weight_only: inputs are a multiple of 16 times this" }

local function with(extra)
    local out = {}
    for _, set in ipairs { of_all, extra } do
        for key, spec in pairs(set) do
            out[key] = spec
        end
    end
    return out
end

local config_fields = with {
    quantizer_type = { type = "string", enum = KINDS, default = KINDS[1],
                       doc = "int8_dynact_int4weight: int4 weights and int8 inputs, a scale for each token; "
                           .. "int4_weight_only: tinygemm's uint4 weights alone" },
    padding_allowed = padding_allowed, inner_k_tiles = inner_k_tiles,
}

--- What the `qat` section may hold.
M.fields = {
    enabled = { type = "boolean", default = false, doc = "without it the section says nothing" },
    fake_quant_after_n_steps = { type = "integer", min = 0, default = 0, null = true,
                                 doc = "steps that are trained as without the section" },
    qat_config = { target = true, of = "^am%.quantization%.QATConfig$", default_target = "am.quantization.QATConfig",
                   doc = "what is rounded how" },
    quantizer = { target = true, of = "^am%.quantization%.%w+QATQuantizer$",
                  doc = "the same by the name of a class of torchao's, in place of qat_config" },
}

---@class am.QATConfig
---@field quantizer_type string
---@field groupsize integer
---@field scales_dtype string
---@field inner_k_tiles integer

--- How maps are rounded; opts: quantizer_type, groupsize, scales_precision, inner_k_tiles.
---@return am.QATConfig
function M.QATConfig(opts)
    local kind, size = opts.quantizer_type or KINDS[1], opts.groupsize or of_all.groupsize.default
    local known, id = pcall(tensor.dtype_id, opts.scales_precision or of_all.scales_precision.default)
    local scales = known and tensor.dtype_name(id)
    if scales ~= "bfloat16" and (scales ~= "float32" or kind == "int4_weight_only") then
        err.raise("usage", "scales_precision of %s can be %s, not %s", kind,
                  kind == "int4_weight_only" and "bfloat16" or "bfloat16 or float32", tostring(opts.scales_precision))
    elseif kind == "int4_weight_only" and not GROUPS[size] then
        err.raise("usage", "groupsize of int4_weight_only can be 32, 64, 128 or 256, not %s", tostring(size))
    end
    return { quantizer_type = kind, groupsize = size, scales_dtype = scales,
             inner_k_tiles = opts.inner_k_tiles or inner_k_tiles.default }
end

-- ---- modules --------------------------------------------------------------------------------

local FakeQuantizedLinear = Module.class("FakeQuantizedLinear", Linear)

--- x [..., in] -> [..., out]. What is rounded is made again in backward rather than kept.
function FakeQuantizedLinear:forward(x)
    if not self.fake_quant.on then
        return Linear.forward(self, x)
    end
    return ops.linear(self.fake_quant.input(x), self.fake_quant.weight(self.weight), self.bias)
end

--- The matrix that inputs are multiplied by, and what is done to them before.
function FakeQuantizedLinear:product()
    if not self.fake_quant.on then
        return self.weight
    end
    return self.fake_quant.weight(self.weight), self.fake_quant.input
end

-- ---- a model --------------------------------------------------------------------------------

---@class am.FakeQuant
---@field on boolean
---@field count integer maps that are rounded
---@field left integer maps that stay as they are
---@field description string
local FakeQuant = {}
FakeQuant.__index = FakeQuant

-- Is a linear map taken? Raises "usage" where it has to be and can't.
local function is_taken(config, path, module)
    local divides = module.in_features % config.groupsize == 0
    if config.quantizer_type == "int8_dynact_int4weight" then
        return divides
    elseif module.bias then
        return false
    end
    local packed = TILE * config.inner_k_tiles
    if not (divides and module.in_features % packed == 0) then
        err.raise("usage", "int4_weight_only: %s has %d inputs, no multiple of %s (%d); take a smaller one that "
                  .. "divides all widths, or int8_dynact_int4weight, which leaves such maps as they are", path,
                  module.in_features, divides and "16 times inner_k_tiles" or "groupsize",
                  divides and packed or config.groupsize)
    end
    return true
end

--- Have a model's linear maps see rounded numbers, while the result's `on` is true; it is false at first. Maps are
--- torchao's choice: all of nn.Linear, the head among them, of int8_dynact_int4weight those whose inputs groups divide,
--- of int4_weight_only those without a bias. Embeddings, and a head's weight where they look it up, stay as they are.
---@param config am.QATConfig
---@return am.FakeQuant
function M.apply(model, config)
    local taken, left, widths = {}, 0, {}
    for path, module in model:named_modules() do
        if module.class_name == "Linear" then
            if is_taken(config, path, module) then
                taken[#taken + 1] = module
            else
                left, widths[#widths + 1] = left + 1, module.in_features
            end
        end
    end
    if #taken == 0 then
        err.raise("usage", "%s: no linear map can be rounded%s", config.quantizer_type, #widths == 0 and "" or (": one "
                  .. "has %d inputs, and groupsize is %d"):format(widths[1], config.groupsize))
    end
    local both = config.quantizer_type == "int8_dynact_int4weight"
    local at = { group = config.groupsize, scales_dtype = config.scales_dtype }
    local self = setmetatable({
        on = false, count = #taken, left = left,
        description = ("%s, %d linear maps in groups of %d, scales in %s%s"):format(config.quantizer_type, #taken,
            config.groupsize, config.scales_dtype, left > 0 and ("; %d stay as they are"):format(left) or ""),
        weight = function(w) return ops.fake_quantize(w, both and "int4" or "uint4", at) end,
        input = function(x) return both and ops.fake_quantize(x, "int8") or x end,
    }, FakeQuant)
    for _, module in ipairs(taken) do
        module.fake_quant = self
        setmetatable(module, FakeQuantizedLinear)
    end
    return self
end

local function quantizer(name, kind, fields)
    return {
        name = "am.quantization." .. name,
        aliases = { "torchao.quantization.qat." .. name, "torchao.quantization.qat.linear." .. name },
        doc = kind .. " by torchao's name", fields = with(fields),
        build = function(args)
            args.quantizer_type = kind
            return M.QATConfig(args)
        end,
    }
end

--- What a configuration may name with `_target_`.
M.targets = {
    {
        name = "am.quantization.QATConfig",
        aliases = { "nemo_automodel.components.quantization.qat.QATConfig" },
        doc = "what is rounded how while training for later quantisation",
        fields = config_fields,
        build = M.QATConfig,
    },
    quantizer("Int8DynActInt4WeightQATQuantizer", "int8_dynact_int4weight", { padding_allowed = padding_allowed }),
    quantizer("Int4WeightOnlyQATQuantizer", "int4_weight_only", { inner_k_tiles = inner_k_tiles }),
}

return M
