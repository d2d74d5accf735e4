-- The datasets of am.datasets.vlm: from rows of files to conversations.
local vlm = require("am.datasets.vlm")
local json = require("am.utils.json")
local path = require("am.utils.path")
local helpers = require("tests.lua.datasets.helpers")

local folder = helpers.folder(before_each, after_each)

local function write(name, text)
    path.mkdir_p(path.dirname(path.join(folder, name)))
    path.write_file(path.join(folder, name), text)
    return path.join(folder, name)
end

-- "<images> question → answer" of row i.
local function shown(dataset, i)
    local row = dataset:get(i)
    local images, texts = {}, {}
    for k, source in ipairs(row.images) do
        images[k] = source.data or (source.path and path.relative(source.path, folder)) or source.url
    end
    for k, message in ipairs(row.conversation) do
        local parts = {}
        for _, part in ipairs(message.content) do
            parts[#parts + 1] = part.text
        end
        texts[k] = table.concat(parts, " ")
    end
    return "<" .. table.concat(images, ",") .. "> " .. table.concat(texts, " → ")
end

describe("am.datasets.vlm.make_cord_v2_dataset", function()
    it("writes the ground truth as tags, keys from the last to the first", function()
        local file = write("train.jsonl", json.encode {
            image = { path = "a.jpg", bytes = json.null },
            ground_truth = '{"gt_parse": {"menu": [{"nm": "Tea", "price": "2.00"}, {"nm": "Öl"}], '
                .. '"total": {"total_price": 4.50, "n": 2, "x": null, "paid": true}}}',
        } .. "\n" .. json.encode {
            image = "data:image/png;base64,UE5H",
            ground_truth = '{"gt_parses": [{"a": "1"}, {"a": "2"}, {"a": "3"}]}',
        })
        local dataset = vlm.make_cord_v2_dataset { path_or_dataset = file }
        assert.equal(2, dataset:len())
        assert.equal(file .. " row 2", dataset:name(2))
        assert.equal("<a.jpg> Describe this image. → <s_total><s_x>None</s_x><s_total_price>4.5</s_total_price>"
            .. "<s_paid>True</s_paid><s_n>2</s_n></s_total><s_menu><s_price>2.00</s_price><s_nm>Tea</s_nm><sep/>"
            .. "<s_nm>Öl</s_nm></s_menu>", shown(dataset, 1))
        local seen = {}
        for seed = 1, 30 do
            local text = shown(vlm.make_cord_v2_dataset { path_or_dataset = file, seed = seed, prompt = "Read." }, 2)
            seen[text:match("^<PNG> Read%. → <s_a>(%d)</s_a>$")] = true
            assert.equal(text, shown(vlm.make_cord_v2_dataset { path_or_dataset = file, seed = seed,
                                                                prompt = "Read." }, 2))
        end
        assert.same({ ["1"] = true, ["2"] = true, ["3"] = true }, seen)
    end)

    it("refuses rows without a ground truth", function()
        for text, why in pairs {
            ['{"image": "a"}'] = "neither an object gt_parse",
            ['{"image": "a", "ground_truth": "{"}'] = "ground_truth: ",
            ['{"image": "a", "ground_truth": {"gt_parse": 3}}'] = "neither",
            ['{"image": "a", "ground_truth": {"gt_parses": []}}'] = "neither",
            ['{"ground_truth": {"gt_parse": {}}}'] = "no image: there is no column image or file_name",
        } do
            local dataset = vlm.make_cord_v2_dataset { path_or_dataset = write("a.jsonl", text) }
            helpers.fails("data", "row 1: .*" .. why, dataset.get, dataset, 1)
        end
    end)
end)

describe("am.datasets.vlm, rows of other sets", function()
    it("asks RDR's, MedPix' and Shopify's questions", function()
        local rdr = write("rdr.jsonl", '{"image": "a.png", "text": "A box."}')
        assert.equal("<a.png> Describe this image. → A box.", shown(vlm.make_rdr_dataset { path_or_dataset = rdr }, 1))
        local medpix = write("sub/medpix.csv", "image_id,question,answer\nb.png,Where?,12\nc.png,Who?,She\n")
        local dataset = vlm.make_medpix_dataset { path_or_dataset = medpix, split = "train[1:]" }
        assert.equal(1, dataset:len())
        assert.equal("<sub/c.png> Who? → She", shown(dataset, 1))
        dataset = vlm.make_medpix_dataset { path_or_dataset = medpix, limit_dataset_samples = 1,
                                            image_folder = path.join(folder, "pictures") }
        assert.equal(1, dataset:len())
        assert.equal("<pictures/b.png> Where? → 12", shown(dataset, 1))
        local shop = write("shop.jsonl", '{"product_image": {"bytes": "PNG"}, "ground_truth_category": "Hats"}')
        assert.equal("<PNG> What product category does this item belong to? → Hats",
            shown(vlm.make_shopify_product_catalogue_dataset { path_or_dataset = shop }, 1))
        dataset = vlm.make_rdr_dataset { path_or_dataset = shop }
        helpers.fails("data", "no image: there is no column image or file_name", dataset.get, dataset, 1)
    end)

    it("reads LLaVA's JSON and TRL's columns", function()
        local llava = write("llava.json", [[ [{"id": "1", "image": "coco/1.jpg", "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A bus."},
            {"from": "human", "value": "Which colour?"}, {"from": "gpt", "value": "Red."}]},
            {"id": "2", "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]},
            {"image": ["1.jpg", "2.jpg"], "conversations": [{"from": "human", "value": "<image> or <image>?"},
             {"from": "gpt", "value": "Both."}]}] ]])
        local dataset = vlm.make_conversation_dataset { path_or_dataset = llava, image_folder = folder .. "/train2017" }
        assert.equal("<train2017/coco/1.jpg> What is it? → A bus. → Which colour? → Red.", shown(dataset, 1))
        assert.equal("<> Hello → Hi.", shown(dataset, 2))
        assert.equal("<train2017/1.jpg,train2017/2.jpg> or ? → Both.", shown(dataset, 3))
        local trl = write("trl.jsonl", ([[{"images": ["a.png"], "audio": [], "messages": [{"role": "user", "content":
            [{"type": "image"}, {"type": "text", "text": "What?"}]}, {"role": "assistant", "content": "It."}]}]])
            :gsub("\n%s*", " ") .. "\n")
        assert.equal("<a.png> What? → It.", shown(vlm.make_conversation_dataset { path_or_dataset = trl }, 1))
        local unimm = write("unimm.jsonl", json.encode {
            image = "a.png", conversation = '[{"from": "human", "value": "<image>Hm?"}, '
                .. '{"from": "gpt", "value": "Ah."}, {"from": "human", "value": "<image>"}, '
                .. '{"from": "gpt", "value": "Oh."}]',
        })
        assert.equal("<a.png,a.png> Hm? → Ah. →  → Oh.",
            shown(vlm.make_unimm_chat_dataset { path_or_dataset = unimm }, 1))
        dataset = vlm.make_conversation_dataset { path_or_dataset = unimm }
        helpers.fails("data", "unimm.jsonl row 1: message 3: more places", dataset.get, dataset, 1)
        dataset = vlm.make_conversation_dataset { path_or_dataset = write("a.jsonl", '{"text": "x"}\n'
            .. '{"audio": {"path": "a.wav"}, "conversation": []}\n{"conversation": "{"}') }
        helpers.fails("data", 'row 1: a row needs a conversation under "conversation"', dataset.get, dataset, 1)
        helpers.fails("unsupported", 'row 2: the column "audio" is not read', dataset.get, dataset, 2)
        helpers.fails("data", "row 3: the conversation: ", dataset.get, dataset, 3)
    end)
end)

describe("am.datasets.vlm.ImageFolder", function()
    it("reads captions beside pictures", function()
        write("stamps/captions.jsonl", '{"file_name": "a.png", "text": "A cat."}\n{"file_name": "b/c.png", "caption": '
            .. '"A dog.", "prompt": "What?"}\n{"file_names": ["a.png", "d.png"], "conversation": [{"role": "user", '
            .. '"content": "<image><image>Which?"}, {"role": "assistant", "content": "None."}]}\n{"text": "x"}\n'
            .. '{"file_name": "a.png", "label": 3}')
        local dataset = vlm.ImageFolder { path_or_dataset = folder .. "/stamps", prompt = "Say." }
        assert.equal("<stamps/a.png> Say. → A cat.", shown(dataset, 1))
        assert.equal("<stamps/b/c.png> What? → A dog.", shown(dataset, 2))
        assert.equal("<stamps/a.png,stamps/d.png> Which? → None.", shown(dataset, 3))
        helpers.fails("data", "captions.jsonl row 4: no file_name", dataset.get, dataset, 4)
        helpers.fails("data", "row 5: neither text, caption nor conversation", dataset.get, dataset, 5)
        write("stamps/validation/metadata.csv", "file_name,text\n1.png,2.50\n")
        dataset = vlm.ImageFolder { path_or_dataset = folder .. "/stamps", split = "validation[:1]" }
        assert.equal("<stamps/validation/1.png> Describe this image. → 2.50", shown(dataset, 1))
        helpers.fails("data", "no such folder", vlm.ImageFolder, { path_or_dataset = folder .. "/none" })
        helpers.fails("data", "needs captions.jsonl or metadata.jsonl", vlm.ImageFolder, { path_or_dataset = folder })
    end)
end)

describe("am.datasets.vlm.build_mock_vlm_dataset", function()
    it("gives the same pictures for the same seed", function()
        local function new(opts)
            return vlm.build_mock_vlm_dataset(opts):get(2)
        end
        local small = { num_samples = 3, image_size = { 4, 2 }, num_images_per_sample = 2, max_length = 5 }
        local row = new(small)
        assert.same(row.images, new(small).images)
        assert.not_equal(row.images[1].data, row.images[2].data)
        small.seed = 9
        assert.not_equal(row.images[1].data, new(small).images[1].data)
        assert.equal("\137PNG\r\n\26\n\0\0\0\13IHDR\0\0\0\4\0\0\0\2\8\2", row.images[1].data:sub(1, 26))
        assert.equal(5, #row.conversation[2].content[1].text:gsub("%S+", "x"):gsub(" ", ""))
        assert.equal("b", new({ responses = { "a", "b" } }).conversation[2].content[1].text)
        helpers.fails("usage", "width and a height", new, { image_size = { 1 } })
    end)
end)
