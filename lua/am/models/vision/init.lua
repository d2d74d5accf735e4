-- Vision towers by model_type: what the vision_config of a model of images and text names, where any of them will do
-- (LLaVA, Gemma 3, PaliGemma; the towers of Qwen and Idefics3 are theirs alone). What a tower's file returns and its
-- module has says encoder.lua; towers as models of their own are in ../architectures.lua.

local strings = require("am.utils.strings")

local M = {}

--- model_type -> the module.
M.by_model_type = {
    clip_vision_model = "am.models.vision.clip",
    dinov2 = "am.models.vision.dinov2",
    siglip_vision_model = "am.models.vision.siglip",
}

--- Give a body (../image_text_to_text.lua) the tower that vision_config describes, of model_type `default` where it
--- names none. Returns the tower's configuration.
function M.add_tower(body, c, default)
    local values = c.vision_config
    local kind = type(values) == "table" and values.model_type or default
    local module = M.by_model_type[kind or ""]
    if not module then
        c:unsupported("vision_config", "model_type " .. tostring(kind) .. " is not supported; supported are "
                      .. table.concat(strings.sorted_keys(M.by_model_type), ", "))
    end
    body.tower = require(module)
    local part = c:part("vision_config", body.tower)
    body:add("vision_tower", body.tower.new(part))
    return part
end

--- The features of pictures from the tower's states [N, T, vision width], by the body's projector -> [rows, C].
function M.project(body, states)
    local features = body.multi_modal_projector:forward(states)
    return features:reshape(-1, features:size(2))
end

--- image_features of a body whose projector takes the tower's last states.
function M.last_states(body, inputs)
    return M.project(body, body.vision_tower:forward(inputs.pixel_values, {}).last_hidden_state)
end

return M
