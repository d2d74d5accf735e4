-- A vision tower as a model of its own: what models/init.lua's AutoModel takes, forward's arguments, and the methods
-- that it shares with other models. Holds no tower.

local err = require("am.core.error")
local tensor = require("am.core.tensor")
local causal_lm = require("am.models.causal_lm")

local M = {}

local Model = {}
for _, name in ipairs { "device", "dtype", "num_parameters", "save_pretrained", "close" } do
    Model[name] = causal_lm.methods[name]
end

local OPTIONS = { "layers", "output_hidden_states", "interpolate_pos_encoding", "bool_masked_pos" }

--- Run the tower. args: pixel_values [N, channels, height, width]; output_hidden_states; interpolate_pos_encoding
--- (CLIP, SigLIP: pictures of another size than config.json's); bool_masked_pos [N, patches] (DINOv2); layers, a list
--- of the hidden states wanted: they alone come then, in its order, and no layer runs that they do not need.
--- Returns {last_hidden_state = [N, T, C], pooler_output = [N, C], hidden_states = list of [N, T, C]}, the last counted
--- as in transformers: the first goes into the first layer.
function Model:forward(args)
    if type(args) ~= "table" or not tensor.is(args.pixel_values) then
        err.raise("argument", "forward takes a table with a tensor: model:forward{pixel_values = pixels}")
    end
    local ctx = {}
    for _, key in ipairs(OPTIONS) do
        ctx[key] = args[key]
    end
    local device = self:device()
    if ctx.bool_masked_pos ~= nil then
        ctx.bool_masked_pos = ctx.bool_masked_pos:to { device = device }
    end
    return self:run(args.pixel_values:to { device = device }, ctx)
end

--- Give a tower these methods.
local function extend(model)
    model.run = model.forward
    model.names = { body = "encoder", layers = model.encoder.list }
    model.tied = {}
    for name, method in pairs(Model) do
        model[name] = method
    end
    return model
end

-- The tower's configuration: vision_config of a model of pictures and texts, or all of it.
local function own_config(c, tower)
    if type(c.vision_config) ~= "table" then
        return c
    end
    local part = c:part("vision_config", tower)
    part.model_type = tower.model_type
    return part
end

--- What models/init.lua's registry takes, of what a tower's file returns (encoder.lua says what).
function M.architecture(tower)
    local function new(c)
        local model = tower.new(c)
        model.file_names = tower.file_names
        model.unused = tower.unused
        return model
    end
    return { new = new, name = tower.name, model_type = tower.model_type, defaults = tower.defaults, extend = extend,
             file_names = tower.file_names,
             own_config = function(c) return own_config(c, tower) end }
end

return M
