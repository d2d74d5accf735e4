-- What Qwen2-VL and Qwen2.5-VL share: Qwen2 as the language model with three rows of positions (grid_positions.lua),
-- whose fields config.json on the hub has beside those of the whole; the names of both in files.

local ffi = require("ffi")
local err = require("am.core.error")
local tensor = require("am.core.tensor")
local decoder = require("am.models.decoder")
local file_names = require("am.models.file_names")
local grid_positions = require("am.models.grid_positions")
local grids = require("am.models.vision.grids")
local image_text_to_text = require("am.models.image_text_to_text")
local qwen2 = require("am.models.qwen2")

local M = {}

-- ---- the language model ---------------------------------------------------------------------

local function rotary(c)
    local options = decoder.rotary(c)
    options.mrope_section = c.rope_scaling and c.rope_scaling.mrope_section or { 16, 24, 24 }
    return options
end

-- The language model's part, and its fields: those of text_config, or in files before transformers 5 the whole's.
local function text_family(name)
    local family = decoder.architecture {
        name = name,
        layer = qwen2.layer,
        rotary = rotary,
        defaults = { hidden_act = "silu", rms_norm_eps = 1e-5, max_position_embeddings = 32768, num_key_value_heads = 8,
                     rope_theta = 1000000, sliding_window = 4096, max_window_layers = 80 },
    }
    return function(c)
        return family, c.text_config or c:to_table()
    end
end

-- ---- positions ------------------------------------------------------------------------------

local function refuse_videos(body, ids, n, inputs)
    for _, key in ipairs { "pixel_values_videos", "video_grid_thw" } do
        if inputs[key] ~= nil then
            err.raise("unsupported", "%s: videos are not known here; give their frames as images", key)
        end
    end
    for i = 0, n - 1 do
        if ids[i] == body.config.video_token_id then
            err.raise("unsupported", "input_ids has a video token (id %d) at %d: videos are not known here; give their "
                      .. "frames as images", ids[i], i + 1)
        end
    end
end

-- Places of text that follows what a cache holds, moved by each row's delta.
local function after_cache(ctx, b, t)
    local out, used, bounds = ffi.new("int32_t[?]", b * t), ctx.cache.used, ctx.bounds and ctx.bounds:to_buffer()
    ctx.longest = 0 -- what was counted by tokens is more than a picture's positions
    for i = 0, b - 1 do
        for q = 0, t - 1 do
            local at = i * t + q
            out[at] = used + q - (bounds and bounds[2 * at] or 0) + ctx.cache.rope_deltas[i + 1]
            ctx.longest = math.max(ctx.longest, out[at] + 1)
        end
    end
    return out
end

-- position_ids as they are without pictures, else [3, B, T]: those given say where samples begin (ctx.bounds), not
-- more.
local function positions(body, input_ids, position_ids, ctx)
    local inputs, cache, b, t = ctx.inputs, ctx.cache, input_ids:size(0), input_ids:size(1)
    local ids, n = input_ids:to_buffer()
    local placed = { dtype = "int32", device = input_ids:device() }
    if cache and cache.used > 0 then
        if not cache.rope_deltas or inputs.position_ids ~= nil then
            return position_ids
        end
        return tensor.from_buffer(after_cache(ctx, b, t), { b, t }, placed)
    end
    refuse_videos(body, ids, n, inputs)
    if inputs.image_grid_thw == nil then
        if inputs.pixel_values ~= nil then
            err.raise("argument", "pixel_values need image_grid_thw, the sizes of the pictures in patches")
        end
        return position_ids
    end
    local list = grids.list(inputs.image_grid_thw, body.visual.merge)
    local rows, deltas, longest = grid_positions.rows(ids, b, t, ctx.bounds and ctx.bounds:to_buffer(), list,
                                                      body.visual.merge, body.image_token)
    ctx.longest = longest
    if cache then
        cache.rope_deltas = deltas
    end
    return tensor.from_buffer(rows, { 3, b, t }, placed)
end

-- ---- the whole ------------------------------------------------------------------------------

local names = file_names.new { prefixes = { { "model.visual.", "visual." }, { "model.language_model.", "model." } } }

--- What models/init.lua's registry takes. spec: name; text_name, of the language model as a model of its own; vision, a
--- module beside vision/qwen.lua; out, its field for the width that it gives.
function M.architecture(spec)
    return image_text_to_text.architecture {
        name = spec.name,
        text_family = text_family(spec.text_name),
        add_vision = function(body, c)
            local part = c:part("vision_config", spec.vision)
            local tower = body:add("visual", spec.vision.new(part))
            if tower.out ~= c:integer("hidden_size") then
                part:unsupported(spec.out, string.format(
                    "%d numbers for each token, but the language model's \"hidden_size\" is %d", tower.out,
                    c.hidden_size))
            end
        end,
        image_features = function(body, inputs)
            body.visual.activation_checkpointing = body.activation_checkpointing
            return body.visual:forward(inputs.pixel_values, inputs.image_grid_thw).pooler_output
        end,
        positions = positions,
        file_names = function() return names end,
        defaults = { image_token_id = 151655, video_token_id = 151656, vision_start_token_id = 151652,
                     vision_end_token_id = 151653, tie_word_embeddings = false },
    }
end

return M
