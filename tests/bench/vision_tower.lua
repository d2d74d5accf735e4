-- How near a vision tower's forward pass comes to the rate at which this machine multiplies matrices of its shapes.
--
--   amlua tests/bench/vision_tower.lua [NAME] [--profile] [--train]
--
-- Towers of random weights in the shapes of SigLIP So400m (224 pixels), CLIP ViT-L/14 (336 pixels) and DINOv2-small
-- (224 and 518 pixels), a few layers of each, in f32 and bf16, one picture and four. FLOPs are those of matrix
-- products, attention's two among them. The products of a layer's linear maps are timed between the passes, since a
-- machine's speed varies; of each the least time of five rounds counts, as others on the machine only make it slower.
-- NAME runs the towers whose name holds it; --train also times forward and backward of a tower that is trained (three
-- times the FLOPs); --profile says what each op takes.

local am = require("am")
local C = require("am.core.ffi").C
local ops = require("am.core.ops")
local profile = require("am.training.profile")

-- One thread's own time, if there is but one, of which others on the machine take nothing.
local clock = C.am_threads() == 1 and os.clock or C.am_clock

local ROUNDS = 5
local LAYERS = 6

local function towers()
    local function of(kind, side, patch, hidden, heads, inner)
        return { model_type = kind, image_size = side, patch_size = patch, hidden_size = hidden,
                 num_hidden_layers = LAYERS, num_attention_heads = heads, intermediate_size = inner,
                 vision_use_head = false }
    end
    return {
        { "siglip-so400m-224", of("siglip_vision_model", 224, 14, 1152, 16, 4304) },
        { "clip-l-336", of("clip_vision_model", 336, 14, 1024, 16, 4096) },
        { "dinov2-small-224", of("dinov2", 224, 14, 384, 6, 1536) },
        { "dinov2-small-518", of("dinov2", 518, 14, 384, 6, 1536) },
    }
end

local function seconds_of(fn)
    local start = clock()
    am.scope(fn)
    return clock() - start
end

-- The tower's linear maps over all tokens, as a function that runs a layer's, and their FLOPs.
local function products(c, tokens, dtype)
    local shapes = { { c.hidden_size, c.hidden_size, 4 }, { c.inner, c.hidden_size, 1 }, { c.hidden_size, c.inner, 1 } }
    local runs, flops = {}, 0
    for _, shape in ipairs(shapes) do
        local n, k, count = unpack(shape)
        local x, w = am.randn({ tokens, k }, { dtype = dtype }), am.randn({ n, k }, { dtype = dtype })
        flops = flops + 2 * tokens * n * k * count
        for _ = 1, count do
            runs[#runs + 1] = function() ops.linear(x, w) end
        end
    end
    return function()
        for _, run in ipairs(runs) do
            am.scope(run)
        end
    end, flops
end

local function measure(name, fields, dtype, pictures, options)
    local model = am.AutoModel.from_config(fields, { torch_dtype = dtype })
    local c, side = model.config, fields.image_size
    local pixels = am.randn { pictures, 3, side, side }
    local patches = (side / c.patch_size) ^ 2
    local tokens = pictures * (patches + model.class_tokens)
    local shape = { hidden_size = c.hidden_size, inner = c.intermediate_size or c.hidden_size * c.mlp_ratio }
    local multiply, a_layers = products(shape, tokens, dtype)
    local flops = LAYERS * (a_layers + 4 * tokens * (tokens / pictures) * c.hidden_size)
        + 2 * pictures * patches * 3 * c.patch_size ^ 2 * c.hidden_size
    local function forward() return model:forward { pixel_values = pixels } end
    local function frozen() am.no_grad(forward) end
    local function trained()
        forward().last_hidden_state:sum():backward()
        for _, t in model:named_parameters() do
            t.grad = nil
        end
    end
    local least = { math.huge, math.huge, math.huge }
    for round = 0, ROUNDS do
        local times = { seconds_of(multiply), seconds_of(frozen), options.train and seconds_of(trained) }
        for i, seconds in ipairs(round > 0 and times or {}) do -- the first warms up
            least[i] = seconds and math.min(least[i], seconds) or least[i]
        end
    end
    local rate = a_layers / least[1]
    io.write(string.format("%-18s %-9s %d  products %7.1f GFLOP/s  forward %7.1f ms  %3.0f %%", name, dtype, pictures,
                           rate / 1e9, least[2] * 1e3, 100 * flops / least[2] / rate))
    io.write(options.train and string.format("  trained %7.1f ms  %3.0f %%", least[3] * 1e3,
                                             100 * 3 * flops / least[3] / rate) or "", "\n")
    if options.profile then
        io.write(profile.table(profile.run(function() am.scope(options.train and trained or frozen) end)), "\n")
    end
    model:close()
end

local options = {}
for _, word in ipairs(arg) do
    options[word:match("^%-%-(%l+)$") or "name"] = word
end
for _, tower in ipairs(towers()) do
    if tower[1]:find(options.name or "", 1, true) then
        for _, dtype in ipairs { "float32", "bfloat16" } do
            for _, pictures in ipairs { 1, 4 } do
                am.scope(measure, tower[1], tower[2], dtype, pictures, options)
            end
        end
    end
end
