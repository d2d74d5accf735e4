-- am.processors: settings, errors, saving; sizes and text are in sizes_spec.lua. Numbers and ids against
-- transformers are in tests/parity/processors_spec.lua.

local am = require("am")
local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")
local sources = require("am.processors.sources")

local TOKENIZERS = "tests/parity/golden/processors/tokenizers/"
local CLIP = { image_processor_type = "CLIPImageProcessor", size = { shortest_edge = 20 },
               crop_size = { height = 16, width = 16 } }
local LLAVA = { image = CLIP, processor = { processor_class = "LlavaProcessor", patch_size = 8,
                                            vision_feature_select_strategy = "default",
                                            num_additional_image_tokens = 1 } }
local QWEN = { image = { image_processor_type = "Qwen2VLImageProcessor", processor_class = "Qwen2VLProcessor",
                         min_pixels = 784, max_pixels = 7840 } }

local root, png

local function read(file) return assert(path.read_file(file)) end

-- A folder with these files: tables are written as JSON, false is no file.
local function folder(files)
    local dir = path.unique(path.join(root, "d"))
    path.mkdir_p(path.join(dir, "chat_templates"))
    for name, content in pairs(files) do
        if content then
            path.write_file(path.join(dir, name), type(content) == "table" and json.encode(content) or content)
        end
    end
    return dir
end

local function with(base, more)
    local out = {}
    for key, value in pairs(base) do out[key] = value end
    for key, value in pairs(more or {}) do out[key] = value end
    return out
end

local function files_of(family, tokenizer, more)
    return with({
        ["preprocessor_config.json"] = family.image, ["processor_config.json"] = family.processor or false,
        ["tokenizer.json"] = read(TOKENIZERS .. tokenizer .. ".json"),
        ["tokenizer_config.json"] = tokenizer == "llava" and { bos_token = "<s>", eos_token = "</s>",
                                                               pad_token = "<pad>" } or {},
    }, more)
end

local function llava(more, opts)
    return am.AutoProcessor.from_pretrained(folder(files_of(LLAVA, "llava", more)), opts)
end

local function image_processor(config, opts)
    return am.AutoImageProcessor.from_pretrained(folder { ["preprocessor_config.json"] = config }, opts)
end

local function fails(code, pattern, fn, ...)
    local ok, e = pcall(fn, ...)
    assert.is_false(ok, "no error")
    assert.is_true(err.is(e), "not an error object: " .. tostring(e))
    assert.equal(code, e.code, e.msg)
    assert.is_truthy(e.msg:find(pattern, 1, true), e.msg)
    return e
end

-- A picture of one colour as a GIF: written by hand, so that no encoder is needed. Width and height below 256.
local function gif(width, height)
    local head = "GIF89a" .. string.char(width, 0, height, 0, 0x80, 0, 0, 10, 20, 30, 200, 100, 50)
    local frame = "," .. string.char(0, 0, 0, 0, width, 0, height, 0, 0)
    local bits, out, word, n = {}, {}, 0, 0
    -- codes of 3 bits: clear (4) before every pixel, so that codes never grow
    for _ = 1, width * height do
        bits[#bits + 1] = 4
        bits[#bits + 1] = 1
    end
    bits[#bits + 1] = 5
    for _, code in ipairs(bits) do
        word, n = word + code * 2 ^ n, n + 3
        while n >= 8 do
            out[#out + 1], word, n = string.char(word % 256), math.floor(word / 256), n - 8
        end
    end
    out[#out + 1] = string.char(word % 256)
    local data, blocks = table.concat(out), { string.char(2) }
    for at = 1, #data, 255 do
        local block = data:sub(at, at + 254)
        blocks[#blocks + 1] = string.char(#block) .. block
    end
    return head .. frame .. table.concat(blocks) .. "\0;"
end

local function picture(width, height)
    return { data = gif(width, height), name = ("%d x %d.gif"):format(width, height) }
end

setup(function()
    root = path.unique("/tmp/amlua-processors")
    path.mkdir_p(root)
    png = picture(40, 30)
end)

teardown(function() path.remove_tree(root) end)

describe("processors", function()
    it("of LLaVA count the features of an image", function()
        local processor = llava()
        local plan = processor:plan(png)
        assert.same({ 1, 3, 16, 16 }, plan.shape)
        assert.equal(4, plan.num_tokens) -- 2 x 2 patches, and the class token that "default" leaves out again
        assert.equal(5, llava(nil, { vision_feature_select_strategy = "full" }):plan(png).num_tokens)
        local row = processor:encode("USER: <image>\nWhat?", { plan })
        local n = 0
        for _, id in ipairs(row.input_ids) do n = n + (id == processor.image_token_id and 1 or 0) end
        assert.equal(4, n)
        assert.equal(processor.tokenizer.bos_token_id, row.input_ids[1])
        assert.is_true(processor.special_ids[processor.image_token_id])
    end)

    it("give tensors of texts of different lengths", function()
        local processor = llava()
        local out = processor { text = { "<image> a", "b" }, images = { png } }
        assert.same({ 1, 3, 16, 16 }, out.pixel_values:shape())
        assert.equal(2, out.input_ids:shape()[1])
        assert.equal(0, out.attention_mask:totable()[2][out.input_ids:shape()[2]])
        fails("data", "1 image is given", processor, { text = "a", images = { png } })
        fails("data", "0 images are given", processor, { text = "a <image>" })
        fails("usage", "is called with", processor, {})
    end)

    it("read images of conversations in all their spellings", function()
        local template = "{% for m in messages %}{% for p in m.content %}{% if p.type == 'image' %}<image>{% else %}"
            .. "{{ p.text }}{% endif %}{% endfor %}{% endfor %}"
        local processor = llava { ["chat_template.jinja"] = template }
        local file = path.join(root, "a.gif")
        path.write_file(file, png.data)
        local function ids(part)
            local messages = { { role = "user", content = { part, { type = "text", text = "what?" } } } }
            return processor:apply_chat_template(messages, { tokenize = true })
        end
        local want = ids { type = "image", path = file }
        assert.is_true(#want > 4)
        assert.same(want, ids { type = "image", image = file })
        assert.same(want, ids { type = "image", image = png })
        assert.same(want, ids { type = "image_url", image_url = { url = file } })
        local shown = { { role = "user", content = { { type = "image", path = file } } } }
        local said = { { role = "user", content = { { type = "text", text = "what?" } } } }
        local both = processor:apply_chat_template({ shown, said }, { tokenize = true, return_dict = true })
        assert.equal(2, both.input_ids:shape()[1])
        assert.equal(1, both.pixel_values:shape()[1])
    end)

    it("take their chat template before the tokenizer's, the older file first", function()
        local function said(more)
            return llava(more):apply_chat_template({ { role = "user", content = "x" } })
        end
        assert.equal("T", said { ["tokenizer_config.json"] = { chat_template = "T", bos_token = "<s>" } })
        assert.equal("J", said { ["chat_template.jinja"] = "J" })
        assert.equal("L", said { ["chat_template.jinja"] = "J", ["chat_template.json"] = { chat_template = "L" } })
        assert.equal("P", said { ["chat_template.json"] = { chat_template = "L" },
                                 ["processor_config.json"] = with(LLAVA.processor, { chat_template = "P" }) })
        local several = llava { ["chat_template.jinja"] = "J", ["chat_templates/b.jinja"] = "B" }
        local messages = { { role = "user", content = "x" } }
        assert.equal("J", several:apply_chat_template(messages))
        assert.equal("B", several:apply_chat_template(messages, { chat_template = "b" }))
        local own = llava({ ["chat_template.jinja"] = "J" }, { chat_template = "O" })
        assert.equal("O", own:apply_chat_template(messages))
        fails("usage", "chat_template is the text of a template, not a number", llava, nil, { chat_template = 3 })
        fails("format", "chat_template.json", said, { ["chat_template.json"] = { chat_template = 3 } })
        fails("format", "chat_template.json stands beside", said, { ["chat_template.json"] = { chat_template = "L" },
                                                                     ["chat_templates/b.jinja"] = "B" })
    end)

    it("refuse images of no tokens, or of more than any model reads", function()
        local opts = { vision_feature_select_strategy = "full", num_additional_image_tokens = 0, patch_size = 17 }
        fails("data", "40 x 30.gif, which becomes 1 x 3 x 16 x 16, would stand for 0 tokens", function()
            llava(nil, opts):plan(png)
        end)
        opts.patch_size, opts.crop_size = 1, 600
        fails("data", "would stand for 360000 tokens", function() llava(nil, opts):plan(png) end)
    end)

    it("refuse videos", function()
        local processor = am.AutoProcessor.from_pretrained(folder(files_of(QWEN, "qwen2_5_vl")))
        fails("unsupported", "<|video_pad|>", function() processor:encode("a <|video_pad|>", {}) end)
    end)

    it("refuse image tokens that a message writes itself", function()
        local gemma = { image = { image_processor_type = "Gemma3ImageProcessor", size = { height = 8, width = 8 } },
                        processor = { processor_class = "Gemma3Processor", image_seq_length = 3 } }
        local processor = am.AutoProcessor.from_pretrained(folder(files_of(gemma, "gemma3")))
        local plan = processor:plan(png)
        assert.equal(3, plan.num_tokens)
        fails("data", "the text has 4 image tokens, and its 1 image would make 3",
            function() processor:encode("<start_of_image><image_soft_token>", { plan }) end)
    end)

    it("are chosen by what the files say", function()
        local function class(files)
            return am.AutoProcessor.from_pretrained(folder(with(files_of(LLAVA, "llava"), files))).class
        end
        assert.equal("LlavaProcessor", class { ["processor_config.json"] = { patch_size = 4 },
                                               ["config.json"] = { model_type = "llava" } })
        assert.equal("LlavaProcessor", class { ["processor_config.json"] = { patch_size = 4 },
            ["preprocessor_config.json"] = with(CLIP, { processor_class = "LlavaProcessor" }) })
        assert.equal("CLIPImageProcessor", class { ["processor_config.json"] = { processor_class = "CLIPProcessor" } })
        assert.equal("CLIPImageProcessor", class { ["processor_config.json"] = false,
            ["preprocessor_config.json"] = { feature_extractor_type = "CLIPFeatureExtractor" } })
        assert.equal("BitImageProcessor", class { ["processor_config.json"] = false,
            ["preprocessor_config.json"] = { image_processor_type = "BitImageProcessorFast" } })
        assert.equal("BitImageProcessor", class { ["processor_config.json"] = false, ["preprocessor_config.json"] = {},
                                                  ["config.json"] = { model_type = "dinov2" } })
        assert.equal("LlavaProcessor", class { ["config.json"] = { model_type = "llava" },
            ["processor_config.json"] = with(LLAVA.processor, { processor_class = "OlderProcessor" }),
            ["preprocessor_config.json"] = with(CLIP, { image_processor_type = "OlderImageProcessor" }) })
        fails("unsupported", 'the class "WhisperProcessor" is not known; these are: Gemma3Processor', class,
            { ["processor_config.json"] = { processor_class = "WhisperProcessor" } })
        fails("unsupported", 'the class "ViTImageProcessor" is not known', class,
            { ["preprocessor_config.json"] = { image_processor_type = "ViTImageProcessor" } })
        fails("format", "names no image_processor_type", class, { ["preprocessor_config.json"] = {} })
        fails("format", "has no preprocessor_config.json", class, { ["preprocessor_config.json"] = false })
    end)

    it("refuse an image processor whose plans they do not understand", function()
        local processors = { LlavaProcessor = "pictures", Gemma3Processor = "crops", Idefics3Processor = "tiles",
                             Qwen2VLProcessor = "patches" }
        local images = { CLIPImageProcessor = "pictures", Gemma3ImageProcessor = "crops",
                         SmolVLMImageProcessor = "tiles", Qwen2VLImageProcessor = "patches" }
        for class, takes in pairs(processors) do
            for image, makes in pairs(images) do
                if takes ~= makes then
                    fails("unsupported", ("a %s does not go with a %s"):format(class, image),
                        am.AutoProcessor.from_pretrained, folder(files_of({
                            image = { image_processor_type = image }, processor = { processor_class = class,
                            patch_size = 8 } }, "llava")))
                end
            end
        end
    end)

    it("say what their methods take", function()
        local processor = llava()
        local plan = processor:plan(png)
        for _, bad in ipairs { false, 5, "a", { 5 }, { plan, {} } } do
            fails("usage", "submit takes an array of plans", function() processor:submit(bad) end)
            fails("usage", "collect takes an array of what submit", function() processor:collect(bad) end)
        end
        for _, bad in ipairs { 5, { 5 }, plan } do
            fails("usage", "encode takes an array of plans", function() processor:encode("a <image>", bad) end)
            fails("usage", "render takes an array of plans", function() processor:render({}, bad) end)
        end
        fails("usage", "max_pixels", function() processor:plan { path = "a.png", max_pixels = "x" } end)
        fails("usage", "the name of a folder", function() processor:save_pretrained() end)
        fails("usage", "the object of a config.json", function() processor:check() end)
    end)

    it("need what their class needs", function()
        fails("format", "patch_size is missing", llava, { ["processor_config.json"] = {
            processor_class = "LlavaProcessor" } })
        fails("format", 'needs the token "<image>"', llava, { ["tokenizer.json"] =
            (read(TOKENIZERS .. "llava.json"):gsub("<image>", "<photo>")) })
        local pali = { image = { image_processor_type = "SiglipImageProcessor",
                                 processor_class = "PaliGemmaProcessor" } }
        fails("format", "image_seq_length is missing", am.AutoProcessor.from_pretrained,
            folder(files_of(pali, "paligemma", { ["tokenizer_config.json"] = { bos_token = "<bos>",
                                                                               eos_token = "<eos>" } })))
        fails("usage", 'has no option "sizes" (did you mean "size"?)', llava, nil, { sizes = 3 })
        fails("usage", 'backend is "torchvision" or "pil", not opencv', llava, nil, { backend = "opencv" })
        fails("usage", "processor: patch_size is -3, not", llava, nil, { patch_size = -3 })
        fails("io", "/nowhere", am.AutoImageProcessor.from_pretrained, "/nowhere")
    end)
end)

describe("images", function()
    it("that cannot be used are named", function()
        local processor = llava()
        fails("io", "/nowhere.png", function() processor:plan("/nowhere.png") end)
        fails("data", "an image is a path", function() processor:plan({}) end)
        fails("unsupported", "row 3", function() processor:plan { data = "no picture at all", name = "row 3" } end)
        local cut = { data = png.data:sub(1, 60), name = "row 4" }
        local pending = processor:submit { processor:plan(png), processor:plan(cut) }
        local e = fails("format", "row 4", function() processor:collect(pending) end)
        assert.equal(2, e.image)
        fails("format", "row 4", function() processor:wait(pending) end) -- and again
    end)

    it("that are too long for their model are refused before they are decoded", function()
        local qwen = am.AutoProcessor.from_pretrained(folder(files_of(QWEN, "qwen2_5_vl")))
        fails("data", "201 x 1.gif: a picture of 201 x 1 pixels is more than 200 times as long as it is wide",
            function() qwen:plan(picture(201, 1)) end)
        fails("data", "would be resized to", function()
            image_processor(with(CLIP, { size = { shortest_edge = 65536 } })):plan(picture(1, 250))
        end)
        fails("data", "would become more than", function()
            image_processor({ image_processor_type = "Idefics3ImageProcessor", max_image_size = { longest_edge = 1 },
                              size = { longest_edge = 4096 } }):plan(png)
        end)
    end)

    it("come as data: URLs too", function()
        assert.same({ data = "Man", name = "a data: URL", background = 0xffffff },
            sources.open("data:image/png;base64,TWFu"))
        fails("data", "holds no base64", sources.open, "data:image/png;base64,****")
    end)

    it("of different sizes do not make a batch", function()
        local processor = image_processor(with(CLIP, { do_center_crop = false, size = { shortest_edge = 10 } }))
        local e = fails("data", "images of one batch must become equally large", processor,
            { images = { picture(20, 20), picture(20, 40) } })
        assert.is_truthy(e.msg:find("20 x 20.gif becomes 3 x 10 x 10 and 20 x 40.gif 3 x 20 x 10", 1, true), e.msg)
    end)

    it("that are too many for one batch are an error that says so", function()
        local processor = image_processor(CLIP)
        local pendings = { processor:submit { processor:plan(png) }, processor:submit { processor:plan(png) } }
        processor:collect(pendings)
        pendings[2].n_floats = 2 ^ 29
        fails("usage", "the images of one batch take 2.1 GB", processor.collect, processor, pendings)
    end)

    it("of several samples lie side by side, as Idefics3 wants them", function()
        local processor = image_processor { image_processor_type = "Idefics3ImageProcessor",
                                            max_image_size = { longest_edge = 8 }, size = { longest_edge = 16 } }
        local out = processor { images = { { picture(20, 20), picture(20, 10) }, { picture(9, 9) } } }
        assert.same({ 2, 8, 3, 8, 8 }, out.pixel_values:shape()) -- 2 x 2 + 1 and 1 x 2 + 1, 5
        assert.same({ 2, 8, 8, 8 }, out.pixel_attention_mask:shape())
        local mask = out.pixel_attention_mask:totable()
        assert.same({ 1, 1, 0 }, { mask[1][8][8][8], mask[2][5][1][1], mask[2][6][1][1] })
        assert.equal(0, out.pixel_values:totable()[2][6][1][1][1])
    end)

    it("may be padded to a size", function()
        local processor = image_processor(with(CLIP, { do_center_crop = false, do_resize = false, do_pad = true,
                                                       pad_size = { height = 8, width = 9 }, do_normalize = false,
                                                       do_rescale = false }))
        local values = processor { images = picture(5, 7) }.pixel_values:totable()[1]
        assert.same({ 200, 200, 0, 0 }, { values[1][1][1], values[1][7][5], values[1][7][6], values[1][8][5] })
        fails("data", "more than pad_size, 9 x 8", processor, { images = picture(5, 9) })
        fails("unsupported", "do_pad without a pad_size", image_processor, with(CLIP, { do_pad = true }))
    end)
end)

describe("configurations that are damaged", function()
    local bad = {
        { size = -1 }, { size = 0 }, { size = 1e300 }, { size = 2.5 }, { size = "224" }, { size = {} },
        { size = { height = 3 } }, { size = { height = 3, width = -3 } }, { size = { shortest_edge = true } },
        { size = { height = 3, width = 3, depth = 3 } }, { size = { 1, 2, 3 } }, { size = { longest_edge = 4 } },
        { crop_size = 1e9 }, { crop_size = { shortest_edge = 3 } }, { resample = 9 }, { resample = "bicubic" },
        { do_resize = 1 }, { do_normalize = "yes" }, { rescale_factor = 0 }, { rescale_factor = -1 },
        { image_mean = { 1, 2 } }, { image_mean = "x" }, { image_std = { 1, 0, 1 } }, { image_std = 0 },
        { image_mean = json.null }, { size = json.null }, { rescale_factor = json.null }, { crop_size = json.null },
        { image_seq_length = -4 },
    }

    it("are errors that name the file and the key", function()
        for _, values in ipairs(bad) do
            local key = next(values)
            local config = with({ image_processor_type = "CLIPImageProcessor" }, values)
            local e = fails("format", "preprocessor_config.json: ", image_processor, config)
            assert.is_truthy(e.msg:find(key, 1, true), e.msg)
        end
        for _, config in ipairs {
            { image_processor_type = "Qwen2VLImageProcessor", patch_size = 0 },
            { image_processor_type = "Qwen2VLImageProcessor", merge_size = json.null },
            { image_processor_type = "Qwen2VLImageProcessor", size = { longest_edge = 99 } },
            { image_processor_type = "Qwen2VLImageProcessor", size = { height = 9, width = 9 } },
            { image_processor_type = "Idefics3ImageProcessor", max_image_size = json.null },
            { image_processor_type = "Idefics3ImageProcessor", max_image_size = { height = 1, width = 1 } },
            { image_processor_type = "Idefics3ImageProcessor", size = { shortest_edge = 4 } },
            { image_processor_type = "Gemma3ImageProcessor", do_pan_and_scan = true,
              pan_and_scan_min_crop_size = json.null },
            { image_processor_type = 3 }, { image_processor_type = {} },
        } do
            fails("format", "preprocessor_config.json", image_processor, config)
        end
        fails("format", "preprocessor_config.json", image_processor, "[1]")
        fails("format", "preprocessor_config.json", image_processor, "{")
        fails("format", "preprocessor_config.json", image_processor, ("["):rep(100000))
        fails("format", "processor_config.json: image_processor is not an object", llava,
            { ["processor_config.json"] = { image_processor = 3 } })
        fails("format", "processor_config.json: patch_size", llava,
            { ["processor_config.json"] = with(LLAVA.processor, { patch_size = "14" }) })
    end)
end)

describe("check", function()
    local config = { image_token_index = 3, vision_feature_select_strategy = "default",
                     vision_config = { patch_size = 8, image_size = 16, model_type = "clip_vision_model" } }

    it("lets a model pass that fits", function()
        llava():check(config)
        llava():check({}) -- nothing known, nothing refused
    end)

    it("says what does not fit", function()
        local function refused(pattern, values, vision)
            local changed = with(config, values)
            changed.vision_config = with(config.vision_config, vision)
            fails("data", "processor_config.json does not fit the model: " .. pattern, function()
                llava():check(changed)
            end)
        end
        refused("image_token_id is 3 here and 7 in the model", { image_token_index = 7 })
        refused("a LlavaProcessor goes with other models", { model_type = "gemma3" })
        refused("patch_size is 8 here and 14 in the model", nil, { patch_size = 14 })
        refused("pictures become 16 x 16, and the vision tower is made for 24 x 24", nil, { image_size = 24 })
        refused("vision_feature_select_strategy is default here and full in the model",
            { vision_feature_select_strategy = "full" })
        refused("num_additional_image_tokens is 1, and a siglip_vision_model adds 0", nil,
            { model_type = "siglip_vision_model" })
    end)
end)

describe("saving", function()
    it("writes the files as they were", function()
        local image = '{"image_processor_type": "CLIPImageProcessor",\n "size": 20, "crop_size": 16, "odd": 1e-5 }'
        local files = files_of(LLAVA, "llava", { ["preprocessor_config.json"] = image, ["chat_template.jinja"] = "J",
                                                  ["chat_templates/b.jinja"] = "B",
                                                  ["video_preprocessor_config.json"] = "{ }" })
        local from, to = folder(files), path.join(root, "saved")
        am.AutoProcessor.from_pretrained(from):save_pretrained(to)
        for _, name in ipairs { "preprocessor_config.json", "processor_config.json", "chat_template.jinja",
                                "chat_templates/b.jinja", "video_preprocessor_config.json" } do
            assert.equal(read(path.join(from, name)), read(path.join(to, name)), name)
        end
        assert.equal("LlavaProcessor", am.AutoProcessor.from_pretrained(to).class)
    end)

    it("writes what options changed, each in its file", function()
        local to = path.join(root, "changed")
        llava(nil, { size = { shortest_edge = 30 }, patch_size = 4, backend = "pil" }):save_pretrained(to)
        local image, own = json.decode(read(path.join(to, "preprocessor_config.json"))),
            json.decode(read(path.join(to, "processor_config.json")))
        assert.equal(30, image.size.shortest_edge)
        assert.equal(16, image.crop_size.width)
        assert.is_nil(image.patch_size)
        assert.is_nil(image.backend)
        assert.equal(4, own.patch_size)
        assert.equal("LlavaProcessor", own.processor_class)
    end)

    it("writes another chat template in place of the files'", function()
        for i, files in ipairs { { ["chat_template.jinja"] = "J", ["chat_templates/b.jinja"] = "B" }, {},
                                 { ["chat_template.json"] = { chat_template = "L" } },
                                 { ["processor_config.json"] = with(LLAVA.processor, { chat_template = "P" }) } } do
            local to, processor = path.join(root, "template" .. i), llava(files)
            processor.chat_template = "own"
            processor:save_pretrained(to)
            assert.equal("own", am.AutoProcessor.from_pretrained(to).chat_template)
        end
    end)

    it("writes a key that both files may have where its class reads it", function()
        local gemma = { image = { image_processor_type = "Gemma3ImageProcessor", size = { height = 8, width = 8 } },
                        processor = { processor_class = "Gemma3Processor", image_seq_length = 3 } }
        local to = path.join(root, "gemma")
        local from = folder(files_of(gemma, "gemma3"))
        am.AutoProcessor.from_pretrained(from, { image_seq_length = 5 }):save_pretrained(to)
        assert.equal(5, am.AutoProcessor.from_pretrained(to):plan(png).num_tokens)
    end)

    it("writes into image_processor where the file has it", function()
        local nested = with(LLAVA.processor, { image_processor = CLIP })
        local to = path.join(root, "nested")
        llava({ ["processor_config.json"] = nested, ["preprocessor_config.json"] = false },
            { image_std = 0.25 }):save_pretrained(to)
        assert.equal(0.25, json.decode(read(path.join(to, "processor_config.json"))).image_processor.image_std)
        assert.is_false(path.exists(path.join(to, "preprocessor_config.json")))
    end)

    it("keeps a size that an option set, under all names that transformers reads", function()
        local to = path.join(root, "qwen")
        local opts = { size = { shortest_edge = 784, longest_edge = 1568 } }
        am.AutoProcessor.from_pretrained(folder(files_of(QWEN, "qwen2_5_vl")), opts):save_pretrained(to)
        local image = json.decode(read(path.join(to, "preprocessor_config.json")))
        assert.equal(1568, image.max_pixels)
        assert.equal(1568, am.AutoProcessor.from_pretrained(to).image_processor.settings.size.longest_edge)
    end)
end)
