-- Qwen2-VL and Qwen2.5-VL beyond their goldens: pictures that do not fit their sizes or their tokens are named,
-- configurations are checked, towers that are frozen keep nothing, what pictures' order and windows are.

local am = require("am")
local C = require("am.core.ffi").C
local compare = require("tests.support.compare")
local ffi = require("ffi")
local grid_positions = require("am.models.grid_positions")
local grids = require("am.models.vision.grids")
local tiny = require("tests.support.tiny")

local fails = tiny.fails
local IMAGE, VIDEO = 30, 31

local function config(fields, vision, text)
    local c = {
        architectures = { "Qwen2_5_VLForConditionalGeneration" }, image_token_id = IMAGE, video_token_id = VIDEO,
        text_config = { hidden_size = 16, intermediate_size = 24, num_hidden_layers = 2, num_attention_heads = 2,
                        num_key_value_heads = 1, vocab_size = 32, max_position_embeddings = 64,
                        rope_scaling = { type = "mrope", mrope_section = { 1, 1, 2 } } },
        vision_config = { depth = 2, hidden_size = 16, out_hidden_size = 16, intermediate_size = 20, num_heads = 2,
                          patch_size = 2, window_size = 8, fullatt_block_indexes = { 1 } },
    }
    for into, values in pairs { [c] = fields or {}, [c.vision_config] = vision or {}, [c.text_config] = text or {} } do
        for key, value in pairs(values) do
            into[key] = value
        end
    end
    return c
end

local function new(...)
    return am.AutoModelForImageTextToText.from_config(config(...), { torch_dtype = "float32" })
end

-- Ids with blocks of image tokens of these lengths, a word before and after each.
local function row(...)
    local ids = { 1 }
    for i, count in ipairs { ... } do
        for _ = 1, count do
            ids[#ids + 1] = IMAGE
        end
        ids[#ids + 1] = 2 + i
    end
    return ids
end

describe("pictures as grids", function()
    local function list(array, first, count)
        local out = {}
        for i = 0, count - 1 do
            out[i + 1] = array[first + i]
        end
        return out
    end

    it("come in squares, each patch with its row and column", function()
        local lay = grids.layout({ { 1, 2, 4 }, { 2, 2, 2 } }, 2)
        assert.equal(16, lay.patches)
        assert.same({ 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1 }, list(lay.positions, 0, 16))
        assert.same({ 0, 1, 0, 1, 2, 3, 2, 3, 0, 1, 0, 1, 0, 1, 0, 1 }, list(lay.positions, 16, 16))
        assert.same({ 0, 8 }, list(lay.frames, 2 * 7, 2))
        assert.same({ 8, 12 }, list(lay.frames, 2 * 8, 2)) -- each frame by itself
        assert.same({ 12, 16 }, list(lay.frames, 2 * 15, 2))
        assert.is_nil(lay.order)
        assert.is_nil(lay.windows)
    end)

    it("come by windows, which end where the picture does", function()
        local lay = grids.layout({ { 1, 3, 3 } }, 1, 2)
        assert.same({ 0, 1, 3, 4, 2, 5, 6, 7, 8 }, list(lay.order, 0, 9))
        for i = 0, 8 do
            assert.equal(i, lay.order[lay.back[i]])
        end
        local starts = {}
        for i = 0, 8 do
            starts[i + 1] = lay.windows[2 * i]
        end
        assert.same({ 0, 0, 0, 0, 4, 4, 6, 6, 8 }, starts)
        assert.same({ 8, 9 }, list(lay.windows, 16, 2))
    end)

    it("stay in place where windows do not move them", function()
        assert.is_nil(grids.layout({ { 1, 2, 2 }, { 1, 6, 2 } }, 1, 2).order)
        assert.is_table(grids.layout({ { 1, 2, 4 } }, 1, 2))
        assert.is_not_nil(grids.layout({ { 1, 2, 4 } }, 1, 2).order)
    end)
end)

describe("positions of text with pictures", function()
    local function rows(ids, bounds, list)
        local array = ffi.new("int32_t[?]", #ids, ids)
        local at = bounds and am.tensor({ bounds }, { dtype = "int32" }):to_buffer()
        local out, deltas, longest = grid_positions.rows(array, 1, #ids, at, list, 1, IMAGE)
        local parts = {}
        for plane = 0, 2 do
            parts[plane + 1] = {}
            for i = 1, #ids do
                parts[plane + 1][i] = out[plane * #ids + i - 1]
            end
        end
        return parts, deltas, longest
    end

    it("go on behind the larger side of a picture", function()
        local parts, deltas, longest = rows(row(6), nil, { { 1, 2, 3 } })
        assert.same({ { 0, 1, 1, 1, 1, 1, 1, 4 }, { 0, 1, 1, 1, 2, 2, 2, 4 }, { 0, 1, 2, 3, 1, 2, 3, 4 } }, parts)
        assert.same({ -3 }, deltas)
        assert.equal(5, longest)
    end)

    it("begin anew in each sample of a packed row", function()
        local ids = row(1)
        for i, id in ipairs(row(2)) do
            ids[3 + i] = id
        end
        local bounds = {}
        for i = 1, 7 do
            bounds[i] = i <= 3 and { 0, 3 } or { 3, 7 }
        end
        local parts, deltas = rows(ids, bounds, { { 1, 1, 1 }, { 1, 2, 1 } })
        assert.same({ 0, 1, 2, 0, 1, 1, 3 }, parts[1])
        assert.same({ 0, 1, 2, 0, 1, 2, 3 }, parts[2])
        assert.same({ 0 }, deltas)
    end)

    it("name the picture that does not fit its tokens", function()
        local list = { { 1, 1, 2 }, { 1, 2, 2 } }
        fails("data", "picture 2 of image_grid_thw, %[1, 2, 2%], has 4 features, but row 1 has 3 image tokens", rows,
              row(2, 3), nil, list)
        fails("data", "row 1 has an image token at 10, but image_grid_thw has only 2 pictures", rows, row(2, 4, 1),
              nil, list)
        fails("data", "picture 2 of the 2 in image_grid_thw, %[1, 2, 2%], has no image tokens", rows, row(2), nil, list)
        -- cut by a sample's end
        fails("data", "picture 1 .* has 2 features, but row 1 has 1 image tokens", rows, row(2),
              { { 0, 2 }, { 0, 2 }, { 2, 4 }, { 2, 4 } }, { { 1, 1, 2 } })
    end)
end)

describe("Qwen2.5-VL", function()
    local model

    setup(function()
        am.manual_seed(5)
        model = new()
    end)

    teardown(function() model:close() end)

    local function forward(args)
        return am.no_grad(model.forward, model, args)
    end

    local function features_of(pixels, thw)
        return am.no_grad(model.get_image_features, model, { pixel_values = pixels, image_grid_thw = thw })
    end

    local function patches(n) return am.randn({ n, 24 }) end

    it("names the picture whose size is wrong", function()
        local ids = { row(1, 2) }
        local function with(thw, pixels)
            return function()
                forward { input_ids = ids, pixel_values = pixels or patches(12), image_grid_thw = thw }
            end
        end
        am.scope(function()
            with({ { 1, 2, 2 }, { 1, 2, 4 } })() -- as it should be
            fails("shape", "picture 2 is %[1, 2, 3%], but height and width must be multiples of 2",
                  with { { 1, 2, 2 }, { 1, 2, 3 } })
            fails("shape", "picture 1 must be three whole numbers above 0", with { { 1, 0, 2 }, { 1, 2, 4 } })
            fails("shape", "picture 1 must be three whole numbers above 0", with { { 1, 2 }, { 1, 2, 4 } })
            fails("shape", "picture 2 must be three whole numbers above 0", with { { 1, 2, 2 }, { 1, "2", 4 } })
            fails("shape", "pixel_values has 8 patches, but picture 2 of image_grid_thw, %[1, 2, 4%], ends at 12",
                  with({ { 1, 2, 2 }, { 1, 2, 4 } }, patches(8)))
            fails("shape", "pixel_values has 16 patches, but the 2 pictures of image_grid_thw have 12; the last is "
                  .. "%[1, 2, 4%]",
                  with({ { 1, 2, 2 }, { 1, 2, 4 } }, patches(16)))
            fails("data", "picture 2 of image_grid_thw, %[1, 4, 4%], has 4 features, but row 1 has 2 image tokens",
                  with({ { 1, 2, 2 }, { 1, 4, 4 } }, patches(20)))
            fails("shape", "pixel_values must be %[patches, 24%], not %[12, 12%]",
                  with({ { 1, 2, 2 }, { 1, 2, 4 } }, am.randn({ 12, 12 })))
            fails("argument", "pixel_values must be a tensor, not a string",
                  with({ { 1, 2, 2 }, { 1, 2, 4 } }, "x"))
            fails("argument", "pixel_values need image_grid_thw", with(nil))
            fails("argument", "image_grid_thw must be a tensor or a table", with(7))
            fails("shape", "image_grid_thw must be whole numbers %[pictures, 3%], not float32", with(am.ones({ 2, 3 })))
            fails("data", "input_ids have 3 image tokens", function() forward { input_ids = ids } end)
        end)
    end)

    it("refuses videos", function()
        am.scope(function()
            fails("unsupported", "pixel_values_videos: videos are not known here", forward,
                  { input_ids = { { 1, 2 } }, pixel_values_videos = patches(4) })
            fails("unsupported", "a video token %(id 31%) at 2", forward, { input_ids = { { 1, VIDEO, 2 } } })
        end)
    end)

    it("sees a picture whatever others are beside it", function()
        am.scope(function()
            local pixels, thw = patches(4 + 48 + 36), { { 1, 2, 2 }, { 1, 12, 4 }, { 1, 6, 6 } }
            local all = features_of(pixels, thw)
            local at, features = 0, 0
            for _, grid in ipairs(thw) do
                local n = grid[2] * grid[3]
                local alone = features_of(pixels:narrow(0, at, n), { grid })
                compare.check(tiny.bits(alone) == tiny.bits(all:narrow(0, features, n / 4):contiguous()),
                              "a picture has other bits alone")
                at, features = at + n, features + n / 4
            end
        end)
    end)

    it("takes text alone as the language model does, with positions or without", function()
        am.scope(function()
            local ids = { { 1, 2, 3, 4 } }
            local plain = forward { input_ids = ids }.logits
            local placed = forward { input_ids = ids, position_ids = { { 0, 1, 2, 3 } } }.logits
            assert.equal(tiny.bits(plain), tiny.bits(placed))
            -- a row of text beside one with a picture has the same bits
            local both = forward { input_ids = { row(1), { 1, 2, 3 } }, pixel_values = patches(4),
                                   image_grid_thw = { { 1, 2, 2 } } }.logits
            local alone = forward { input_ids = { { 1, 2, 3 } } }.logits
            assert.equal(tiny.bits(alone), tiny.bits(both:narrow(0, 1, 1):contiguous()))
        end)
    end)

    it("counts positions, not tokens, when a cache meets frequencies that change with length", function()
        am.manual_seed(1)
        local long = new(nil, nil, { initializer_range = 0.5, rope_scaling = {
            rope_type = "longrope", factor = 2, original_max_position_embeddings = 16, mrope_section = { 1, 1, 2 },
            short_factor = { 1, 1, 1, 1 }, long_factor = { 9, 9, 9, 9 },
        } })
        local ids, inputs = row(16), { pixel_values = patches(64), image_grid_thw = { { 1, 8, 8 } } }
        local said = {}
        for _, use_cache in ipairs { true, false } do -- 18 tokens, of which the last is at position 5
            said[#said + 1] = long:generate(ids, { max_new_tokens = 6, eos_token_id = false, use_cache = use_cache,
                                                   inputs = inputs })
        end
        assert.same(said[2], said[1])
        long:close()
    end)

    it("keeps nothing of a tower that is frozen", function()
        local tower = model.model.visual
        for _, t in tower:named_parameters() do
            t.requires_grad = false
        end
        local stats = ffi.new("am_mem_stats")
        local function live()
            collectgarbage()
            collectgarbage()
            C.am_mem_get(0, stats)
            return tonumber(stats.live_bytes)
        end
        local pixels = patches(400)
        local before = live()
        local out = tower:forward(pixels, { { 1, 20, 20 } })
        local kept = live() - before
        local given = out.pooler_output:nbytes() + out.last_hidden_state:nbytes()
        assert.is_true(kept <= 1.1 * given + 4096, tostring(kept))
        out.pooler_output:release()
        out.last_hidden_state:release()
        for _, t in tower:named_parameters() do
            t.requires_grad = true
        end
        before = live()
        out = tower:forward(pixels, { { 1, 20, 20 } })
        assert.is_true(live() - before > 5 * kept) -- what the test would see
        assert.is_true(out.pooler_output.requires_grad)
    end)

    it("keeps no activations of blocks that are computed again", function()
        local stats = ffi.new("am_mem_stats")
        local inputs = { pixel_values = patches(400), image_grid_thw = { { 1, 20, 20 } } }
        local function held(checkpointing)
            model.model.activation_checkpointing = checkpointing
            return am.scope(function()
                collectgarbage()
                collectgarbage()
                C.am_mem_get(0, stats)
                local before = tonumber(stats.live_bytes)
                local features = model:get_image_features(inputs)
                C.am_mem_get(0, stats)
                local bytes = tonumber(stats.live_bytes) - before
                features:sum():backward()
                return bytes
            end)
        end
        local all, some = held(nil), held(true)
        model.model.activation_checkpointing = nil
        assert.is_true(some < 0.5 * all, some .. " of " .. all)
    end)
end)

describe("the configuration of Qwen2.5-VL", function()
    local function refused(code, pattern, ...)
        local args = { ... }
        fails(code, pattern, function() new(unpack(args, 1, 3)):close() end)
    end

    it("may have the text's fields beside the whole's", function()
        local c = config()
        for key, value in pairs(c.text_config) do
            c[key] = value
        end
        c.text_config = nil
        local model = am.AutoModelForImageTextToText.from_config(c)
        assert.same({ 1, 1, 2 }, model.model.language_model.rotaries.full_attention.options.mrope_section)
        assert.equal(2, model.config.num_hidden_layers)
        assert.equal(64, am.models.position_limit(model.config))
        model:close()
    end)

    it("is checked", function()
        refused("format", "vision_config", { vision_config = 3 })
        refused("format", "depth", nil, { depth = 0 })
        refused("unsupported", "num_heads", nil, { num_heads = 3 })
        refused("unsupported", "num_heads.*four", nil, { num_heads = 8 })
        refused("unsupported", "window_size", nil, { window_size = 3 })
        refused("unsupported", "patch_size", nil, { patch_size = { 2, 2 } })
        refused("format", "fullatt_block_indexes", nil, { fullatt_block_indexes = 3 })
        refused("format", "spatial_merge_size", nil, { spatial_merge_size = 0.5 })
        refused("unsupported", "hidden_act", nil, { hidden_act = "no" })
        refused("unsupported", "rope_parameters", nil, { rope_parameters = { rope_type = "yarn", rope_theta = 10 } })
        for _, sections in ipairs { { 1, 1 }, { 0, 2, 2 }, 3, { 1, 1, 1, 1 }, { 1, "1", 2 } } do
            refused("unsupported", "mrope_section", nil, nil,
                    { rope_scaling = { type = "mrope", mrope_section = sections } })
        end
        refused("unsupported", "out_hidden_size.*hidden_size", nil, { out_hidden_size = 20 })
        refused("unsupported", "image_token_id", { image_token_id = 1.5 })
        refused("format", "hidden_size", nil, nil, { hidden_size = 0 })
    end)
end)
