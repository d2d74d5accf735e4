-- Frozen weights in few bits (QLoRA, Dettmers et al. 2023): what the section `quantization` may say, and which
-- weights of a model it packs. As transformers does with bitsandbytes: linear maps, but for the head. How a packed
-- weight is kept and multiplied: am.core.packed. What may train beside them is am.peft's.

local err = require("am.core.error")
local packed = require("am.core.packed")
local tensor = require("am.core.tensor")

local M = {}

local OUTLIERS = "activations stay as they are, so nothing stands out"

--- Fields of a configuration's `quantization` section.
M.fields = {
    load_in_4bit = { type = "boolean", default = false, doc = "keep frozen weights in 4 bits (QLoRA); needs peft" },
    load_in_8bit = { type = "boolean", default = false, doc = "keep frozen weights in 8 bits; needs peft" },
    bnb_4bit_quant_type = { type = "string", enum = { "nf4", "fp4" }, default = "nf4",
                            doc = "values of 4 bits: of a normal distribution, or floats" },
    bnb_4bit_use_double_quant = { type = "boolean", default = true,
                                  doc = "scales in 8 bits: 4.13 bits a number, not 4.5" },
    bnb_4bit_compute_dtype = { type = "string", default = "bfloat16",
                               doc = "dtype of products with weights in 4 bits" },
    bnb_4bit_quant_storage = { type = "string", no_effect = "packed weights are bytes" },
    llm_int8_skip_modules = { type = "list", items = { type = "string", required = true },
                              doc = "names of modules, or of parts of the model, that stay as they are" },
    llm_int8_threshold = { type = "number", no_effect = OUTLIERS },
    llm_int8_enable_fp32_cpu_offload = { type = "boolean", no_effect = "everything is in the host's memory" },
    llm_int8_has_fp16_weight = { type = "boolean", no_effect = "weights are frozen" },
    _target_ = { type = "string", no_effect = "there is one kind" },
}

--- What transformers' BitsAndBytesConfig has where nothing is given, in place of the section's defaults.
M.transformers_defaults = { bnb_4bit_quant_type = "fp4", bnb_4bit_use_double_quant = false,
                            bnb_4bit_compute_dtype = "float32" }

local compute_dtypes = { float32 = true, bfloat16 = true, float16 = true, float64 = true }

---@class am.Quantizer
---@field type "nf4"|"fp4"|"int8"
---@field nested boolean
---@field compute_dtype string? nil: the weight's own
---@field skip string[]
local Quantizer = {}
Quantizer.__index = Quantizer

--- A quantizer by the section's keys; nil where they ask for nothing. Raises "usage".
---@param values table
---@return am.Quantizer?
function M.new(values)
    if values.load_in_4bit and values.load_in_8bit then
        err.raise("usage", "load_in_4bit and load_in_8bit are both true; keep one of them")
    elseif not (values.load_in_4bit or values.load_in_8bit) then
        return nil
    end
    local self = setmetatable({ skip = values.llm_int8_skip_modules or {} }, Quantizer)
    if values.load_in_8bit then
        self.type, self.nested = "int8", false
        return self
    end
    self.type = values.bnb_4bit_quant_type or "nf4"
    self.nested = values.bnb_4bit_use_double_quant ~= false
    local name = values.bnb_4bit_compute_dtype or "bfloat16"
    local known, id = pcall(tensor.dtype_id, name)
    self.compute_dtype = known and tensor.dtype_name(id)
    if not compute_dtypes[self.compute_dtype] then
        err.raise("usage", "bnb_4bit_compute_dtype is \"%s\"; write bfloat16, float16, float32 or float64", name)
    elseif self.type ~= "nf4" and self.type ~= "fp4" then
        err.raise("usage", "bnb_4bit_quant_type is \"%s\"; write nf4 or fp4", tostring(self.type))
    end
    return self
end

--- A few words for the log.
function Quantizer:describe()
    return self.type .. (self.nested and " with double quantisation" or "")
        .. (self.compute_dtype and ", products in " .. self.compute_dtype or "")
end

-- Does a name of llm_int8_skip_modules cover a path?
local function is_skipped(self, path)
    for _, name in ipairs(self.skip) do
        if ("." .. path .. "."):find("." .. name .. ".", 1, true) then
            return true
        end
    end
    return false
end

--- The modules of a model whose weights are packed, as a set. Heads stand beside the model's body, and a weight that
--- two modules share belongs to an embedding. Raises "unsupported" where there is none.
---@return table<am.nn.Module, boolean>
function Quantizer:modules(model)
    local set, head = {}, model.get_output_embeddings and model:get_output_embeddings()
    for path, module in model:named_modules() do
        set[module] = module.class_name == "Linear" and module ~= head and path:find(".", 1, true) ~= nil
            and not is_skipped(self, path) or nil
    end
    if not next(set) then
        err.raise("unsupported", "quantization: %s has no linear map that could be kept in few bits%s",
                  model.class_name, #self.skip > 0 and "; see llm_int8_skip_modules" or "")
    end
    return set
end

--- A weight in few bits.
---@return am.Packed
function Quantizer:pack(weight)
    return packed.pack(weight, { type = self.type, nested = self.nested, compute_dtype = self.compute_dtype })
end

--- Bytes of a weight [rows, cols] in few bits.
function Quantizer:bytes(rows, cols)
    return packed.bytes(rows, cols, { type = self.type, nested = self.nested })
end

--- Put tensors of the dtype that they were packed from in place of all packed weights of a model, which can then be
--- saved or trained whole. Returns how many there were.
function M.dequantize(model)
    return packed.unpack_all(model)
end

return M
