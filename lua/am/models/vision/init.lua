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
