-- Vision towers by model_type: what a vision_config, or the config.json of a tower alone, names. A tower's file beside
-- this one returns
--
--   { name = "CLIPVisionModel", new = function(c) -> module, defaults =, attribute_map =, file_names = rules or nil }
--
-- file_names: see am.models.file_names, of the tower alone. The module has
--   forward(pixel_values [N, 3, H, W], ctx) -> { last_hidden_state [N, T, C], pooler_output, hidden_states }
-- ctx.layers: list of the hidden states that are wanted, as transformers counts them: 0 are the embeddings, 1 what the
-- first layer gives, -1 what the last one gives. hidden_states has them in that order, and only as many layers run
-- as they need; without the list all run, and there are no hidden_states.

local strings = require("am.utils.strings")

local M = {}

--- model_type -> the module.
M.by_model_type = {
    clip_vision_model = "am.models.vision.clip",
    dinov2 = "am.models.vision.dinov2",
    siglip_vision_model = "am.models.vision.siglip",
}

--- The tower that an object of a configuration (c[key]) describes, its description, and its configuration.
--- default: its model_type where it names none.
function M.tower(c, key, default)
    local values = c[key]
    local kind = type(values) == "table" and values.model_type or default
    local module = M.by_model_type[kind or ""]
    if not module then
        c:unsupported(key, "model_type " .. tostring(kind) .. " is not supported; supported are "
                      .. table.concat(strings.sorted_keys(M.by_model_type), ", "))
    end
    local family = require(module)
    local part = c:part(key, family)
    return family.new(part), family, part
end

return M
