-- am.datasets.vlm, from conversations to batches: labels, cutting, packing, broken pictures, batches ahead. The
-- processor is a stand-in; real ones are in processors_spec.lua.
local dataloader = require("am.datasets.dataloader")
local json = require("am.utils.json")
local log = require("am.utils.log")
local path = require("am.utils.path")
local png = require("am.datasets.vlm.png")
local vlm = require("am.datasets.vlm")
local helpers = require("tests.lua.datasets.helpers")
local stand_in = require("tests.lua.datasets.vlm.processor")

local folder = helpers.folder(before_each, after_each)

local function picture(width, height)
    return png.encode(width, height, ("\9"):rep(3 * width * height))
end

-- A folder of pictures: rows are { bytes of the file, or nil; answer }.
local function pictures(rows, opts)
    local lines = {}
    for i, row in ipairs(rows) do
        local name = i .. ".png"
        os.remove(path.join(folder, name))
        if row[1] then
            local file = assert(io.open(path.join(folder, name), "wb"))
            file:write(row[1])
            file:close()
        end
        lines[i] = ('{"file_name": "%s", "text": "%s"}'):format(name, row[2] or "answer " .. i)
    end
    path.write_file(path.join(folder, "captions.jsonl"), table.concat(lines, "\n"))
    opts = opts or {}
    opts.path_or_dataset, opts.prompt = folder, "What?"
    return vlm.ImageFolder(opts)
end

local function many(n)
    local rows = {}
    for i = 1, n do
        rows[i] = { picture(4 * (i % 3 + 1), 4) }
    end
    return rows
end

-- What a message said while fn() ran, and its result.
local function quietly(fn)
    local lines = {}
    local before = log.redirect {
        write = function(_, ...) lines[#lines + 1] = table.concat { ... } end, flush = function() end,
    }
    local ok, result = pcall(fn)
    log.redirect(before)
    return table.concat(lines), ok and result or error(result, 0)
end

describe("am.datasets.vlm, token rows", function()
    it("learn what the assistant says and the end of its turn, never an image's tokens", function()
        local processor = stand_in.new()
        local rows = vlm.prepare(pictures { { picture(8, 4), "A red box." } }, processor)
        local row = rows:get(1)
        local tokenizer = processor.tokenizer
        assert.equal("<|start|>|user|<|sep|>|<|boi|>|<|image|>|<|image|>|<|eoi|>|What?|<|end|>|\n|<|start|>|assistant|"
            .. "<|sep|>|A| red| box.|<|end|>|\n", tokenizer:text(row.input_ids))
        assert.equal(("_|"):rep(12) .. "A| red| box.|<|end|>|_|_", tokenizer:text(row.labels))
        assert.equal(2, row.plans[1].num_tokens)
        local stats = rows:stats()
        assert.same({ 1, 18, 4, 18 }, { stats.rows, stats.tokens, stats.label_tokens, stats.longest.length })
        assert.equal(folder .. "/captions.jsonl row 1", rows:name(1))
        assert.equal(18, rows:length(1))
        -- an assistant that writes an image's token does not learn it
        rows = vlm.prepare(pictures { { picture(8, 4), "A <|image|> box." } }, processor)
        assert.equal("A| |_| box.|<|end|>|_|_", tokenizer:text(rows:get(1).labels):match("A.*"))
    end)

    it("are cut behind their pictures only", function()
        local processor = stand_in.new()
        local function row(opts, rows_opts)
            return vlm.prepare(pictures({ { picture(8, 4), "A red box." }, { picture(4, 4), "Blue." } }, rows_opts),
                               processor, opts)
        end
        local rows = row { max_length = 15 }
        assert.equal("A| red|_", processor.tokenizer:text(rows:get(1).labels):sub(-8))
        assert.equal(15, rows:length(1))
        assert.equal(1, rows:stats().truncated)
        helpers.fails("data", "row 1: its pictures take the row up to token 7, more than max_length %(6%)", row,
            { max_length = 6 })
        helpers.fails("data", "no row has a label.*captions.jsonl row 1 %(no label left%)", row,
            { max_length = 10 })
        rows = row { max_length = 17, drop_overlong = true }
        assert.equal(1, rows:len())
        assert.same({ "captions.jsonl row 1 (18 tokens, more than max_length)" },
            { (rows:stats().skipped_names[1]:gsub("^.*/", "")) })
        assert.equal("Blue.", processor.tokenizer:text(rows:get(1).labels):match("Blue."))
        assert.equal(folder .. "/captions.jsonl row 2", rows:name(1))
        assert.equal("Blue.", rows:example(1).conversation[2].content[1].text)
        assert.equal(1, row({}, { max_length = 17 }):len()) -- the dataset's own section
        assert.equal(2, row({}, { max_length = 17, truncate = true }):len())
    end)

    it("keep their dataset's chat template when another dataset has its own", function()
        local processor, one = stand_in.new(), { { picture(4, 4) } }
        local first = vlm.prepare(pictures(one, { chat_template = "{{ 'first' }}" }), processor)
        local second = vlm.prepare(pictures(one, { chat_template = "{{ 'second' }}" }), processor)
        for _, case in ipairs { { first, "first" }, { second, "second" }, { first, "first" } } do
            case[1]:get(1)
            assert.equal("{{ '" .. case[2] .. "' }}", processor.template)
        end
    end)

    it("of one's own dataset are { conversation = … }", function()
        local own = { len = function() return 1 end, get = function()
            local part = { type = "image", image = { bytes = picture(4, 4) } }
            return { conversation = { { role = "user", content = { part } }, { role = "assistant", content = "Yes" } } }
        end }
        local rows = vlm.prepare(own, stand_in.new())
        assert.equal(1, #rows:get(1).plans)
        assert.equal("row 1", rows:name(1))
    end)
end)

describe("am.datasets.vlm, batches", function()
    it("have the rows' pictures in order, padding, and token types", function()
        local processor = stand_in.new { token_types = true }
        local dataset = pictures { { picture(8, 4), "A red box." }, { picture(4, 4), "Blue." } }
        local batch = vlm.default_collate_fn({ dataset:get(1), dataset:get(2) }, processor)
        assert.same({ 2, 18 }, { batch.B, batch.T })
        assert.equal(4 + 2, batch.num_label_tokens)
        assert.equal("0 0 0 0 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0",
            table.concat(helpers.list(batch.token_type_ids, 36), " "))
        assert.equal(7, batch.input_ids[35]) -- the tokenizer's padding
        assert.same({ folder .. "/captions.jsonl row 1", folder .. "/captions.jsonl row 2" }, batch.names)
        assert.is_nil(batch.fields)
        batch = batch:finish()
        assert.equal(2, #batch.fields.pixel_values)
        assert.not_equal(batch.fields.pixel_values[1], batch.fields.pixel_values[2])
        batch = vlm.default_collate_fn({ dataset:get(1) }, processor, { max_length = 15, pad_seq_len_divisible = 8 })
        assert.same({ 16, 2 }, { batch.T, batch.num_label_tokens })
        assert.equal(vlm.default_collate_fn, vlm.collate_fn_for(processor))
        processor.class = "Qwen2_5_VLProcessor"
        assert.equal(vlm.qwen2_5_collate_fn, vlm.collate_fn_for(processor))
    end)

    it("may be of text alone", function()
        local processor = stand_in.new()
        local batch = vlm.default_collate_fn({ { { role = "user", content = "Hm?" },
                                                 { role = "assistant", content = "Ah." } } }, processor)
        assert.same({ {}, 0 }, { batch:finish().fields, processor.submitted })
        assert.equal(2, batch.num_label_tokens)
    end)
end)

describe("am.datasets.vlm.pack_dataset", function()
    it("puts samples with their pictures one behind the other", function()
        for _, types in ipairs { false, true } do
            local processor = stand_in.new { token_types = types }
            local rows = vlm.prepare(pictures(many(7)), processor)
            local packs = vlm.pack_dataset(rows, { packed_sequence_size = 40, padding_id = 7 })
            assert.equal(4, packs:len())
            assert.is_true(packs.has_pictures)
            local at = 0
            for i = 1, packs:len() do
                local pack, fill = packs:get(i), 0
                assert.equal(40, #pack.input_ids)
                assert.equal(types, pack.token_type_ids ~= nil)
                for s, length in ipairs(pack.seq_lens) do
                    at = at + 1
                    local row = rows:get(at)
                    assert.equal(row.name, pack.samples[s].name)
                    assert.equal(#row.input_ids, length)
                    for k = 1, length do
                        assert.equal(row.input_ids[k], pack.input_ids[fill + k])
                        assert.equal(row.labels[k], pack.labels[fill + k])
                        assert.equal(k - 1, pack.position_ids[fill + k])
                    end
                    fill = fill + length
                end
                local batch = vlm.default_collate_fn({ pack }, processor)
                assert.equal(#pack.samples, #batch.plans)
                assert.same({ batch.bounds[0], batch.bounds[1] }, { 0, pack.seq_lens[1] })
                assert.equal(#pack.samples, #batch:finish().fields.pixel_values)
            end
            assert.equal(7, at)
        end
    end)

    it("takes pack_size, keeps long samples out and splits none", function()
        local rows = vlm.prepare(pictures { { picture(40, 40) }, { picture(4, 4) } }, stand_in.new())
        local packs = vlm.pack_dataset(rows, { pack_size = 30, packing_strategy = "neat" })
        assert.equal(1, packs:len())
        assert.equal(1, packs:stats().skipped)
        assert.equal("answer 2", rows:example(2).conversation[2].content[1].text)
        assert.equal(folder .. "/captions.jsonl row 2", packs:get(1).samples[1].name)
        helpers.fails("usage", "split_across_pack: samples with images are not split", vlm.pack_dataset, rows,
            { pack_size = 30, split_across_pack = true })
    end)
end)

-- Batches of a loader as text: labels learnt, and what the pictures "are".
local function read(loader, n)
    local out = {}
    for batch in function() return (not n or #out < n) and loader:next() or nil end do
        out[#out + 1] = table.concat(helpers.list(batch.input_ids, batch.B * batch.T), " ") .. " | "
            .. table.concat(batch.fields.pixel_values or {}, " ")
    end
    return out
end

describe("am.datasets.vlm, a loader's batches ahead", function()
    local function new(dataset, processor, opts)
        opts = opts or {}
        opts.dataset, opts.processor, opts.collate_fn = dataset, processor, vlm.default_collate_fn
        opts.batch_size, opts.shuffle, opts.seed = 2, true, 5
        return dataloader.StatefulDataLoader(opts)
    end

    it("are the same as without, in order, position and after a resume", function()
        local dataset, processor = pictures(many(9)), stand_in.new()
        local plain = read(new(dataset, processor, { num_workers = 0 }))
        assert.equal(5, #plain)
        assert.same(plain, read(new(dataset, processor)))
        local loader = new(dataset, processor, { prefetch_factor = 3 })
        read(loader, 2)
        assert.equal(4, loader:state_dict().position)
        local other = new(dataset, processor, { prefetch_factor = 1 })
        read(other, 4)
        other:load_state_dict(loader:state_dict())
        assert.same({ plain[3], plain[4], plain[5] }, read(other))
        loader:set_epoch(1)
        local second = read(loader)
        assert.equal(5, #second)
        assert.not_equal(plain[1], second[1])
        loader:set_epoch(0)
        read(loader, 2)
        loader:set_epoch(1) -- in the middle of another
        assert.same(second, read(loader))
        loader:load_state_dict { epoch = 0, position = 2, done = false, num_rows = 9, seed = 5, shuffle = true }
        assert.same({ plain[2] }, read(loader, 1))
        loader:load_state_dict { epoch = 1, position = 4, done = false, num_rows = 9, seed = 5, shuffle = true }
        assert.same({ second[3] }, read(loader, 1))
        loader:load_state_dict { epoch = 0, position = 0, done = false, num_rows = 9, seed = 5, shuffle = true }
        assert.same(plain, read(loader))
        local count = 0
        for batch in loader:batches() do
            count = count + #batch.fields.pixel_values
        end
        assert.equal(9, count)
    end)

    it("are begun before they are asked for", function()
        local dataset, processor = pictures(many(9)), stand_in.new()
        local loader = new(dataset, processor, { prefetch_factor = 2 })
        loader:next()
        assert.same({ 6, 2 }, { processor.submitted, processor.collected })
        loader:next()
        assert.same({ 8, 4 }, { processor.submitted, processor.collected })
        processor = stand_in.new { n_floats = 2 ^ 27 } -- half a GiB each: a batch of two is enough
        loader = new(dataset, processor, { prefetch_factor = 3, num_workers = 2 })
        loader:next()
        assert.same({ 2, 2 }, { processor.submitted, processor.collected })
        loader:next()
        assert.same({ 4, 4 }, { processor.submitted, processor.collected })
        loader = new(dataset, stand_in.new(), { prefetch_factor = 2, num_workers = 0 })
        loader:next()
        assert.equal(2, loader.processor.submitted)
    end)
end)

describe("am.datasets.vlm, broken pictures", function()
    local cut_off = picture(8, 4):sub(1, -5) -- its header is whole

    it("end the run with the row's and the file's name", function()
        local dataset = pictures { { picture(4, 4) }, { "no picture" } }
        helpers.fails("data", "captions.jsonl row 2: broken picture: .*/2.png: no picture; repair or remove it, or set "
            .. "dataset.on_bad_image: skip", vlm.prepare, dataset, stand_in.new())
        dataset = pictures { { picture(4, 4) }, { nil } }
        helpers.fails("data", "row 2: broken picture: .*2.png: no such file", vlm.prepare, dataset, stand_in.new())
        local rows = vlm.prepare(pictures { { picture(4, 4) }, { picture(4, 4) }, { cut_off }, { picture(4, 4) } },
                                 stand_in.new())
        local loader = dataloader.StatefulDataLoader { dataset = rows, processor = stand_in.new(),
                                                       collate_fn = vlm.default_collate_fn }
        assert.is_table(loader:next())
        assert.is_table(loader:next())
        helpers.fails("data", "row 3: broken picture: .*/3.png: the picture is cut off", loader.next, loader)
        helpers.fails("data", "row 3: broken picture", loader.next, loader)
        assert.equal(2, loader:state_dict().position)
    end)

    it("may be damaged values in the rows themselves", function()
        local lines = { { image = "1.png" }, { image = "data:image/png;base64,****" }, { image = "" },
                        { image = json.null }, { image = { bytes = json.null, path = json.null } } }
        for i, line in ipairs(lines) do
            line.text = "answer " .. i
            lines[i] = json.encode(line)
        end
        local file = path.join(folder, "rows.jsonl")
        path.write_file(file, table.concat(lines, "\n"))
        path.write_file(path.join(folder, "1.png"), picture(4, 4))
        local said, rows = quietly(function()
            return vlm.prepare(vlm.make_rdr_dataset { path_or_dataset = file, on_bad_image = "skip" }, stand_in.new())
        end)
        assert.equal(1, rows:len())
        assert.matches("left out: .*rows.jsonl row 2 %(broken picture: .*holds no base64%); 1 so far", said)
        assert.matches("row 3 %(broken picture: an image has no file name", said)
        assert.matches("row 4 %(broken picture: an image has neither path", said)
        assert.matches("row 5 %(broken picture: an image has neither path", said)
        helpers.fails("data", "row 2: broken picture: .*holds no base64; repair or remove it", vlm.prepare,
            vlm.make_rdr_dataset { path_or_dataset = file }, stand_in.new())
    end)

    it("are left out, counted and named where the dataset says skip, the same after a resume", function()
        local rows = many(6)
        rows[2], rows[5] = { "no picture" }, { cut_off }
        local dataset, processor = pictures(rows, { on_bad_image = "skip" }), stand_in.new()
        local said, prepared = quietly(function() return vlm.prepare(dataset, processor) end)
        assert.equal(5, prepared:len())
        assert.matches("left out: .*captions.jsonl row 2 %(broken picture: .*2.png: no picture%); 1 so far", said)
        assert.same({ folder .. "/captions.jsonl row 3", 1 }, { prepared:name(2), prepared:stats().skipped })
        local function loader()
            return dataloader.StatefulDataLoader { dataset = prepared, processor = processor, batch_size = 2,
                                                   collate_fn = vlm.default_collate_fn }
        end
        local first = loader()
        local batches
        said, batches = quietly(function() return read(first) end)
        assert.equal(3, #batches)
        assert.matches("left out: .*row 5 %(broken picture: .*5.png: the picture is cut off%); 2 so far", said)
        assert.equal(2, dataset.broken.count)
        assert.equal(1, select(2, batches[2]:match("| (.*)$"):gsub("%d+", "")))
        local again = loader()
        again:load_state_dict { epoch = 0, position = 2, done = false, num_rows = 5, seed = 0, shuffle = false }
        assert.equal("", (quietly(function() assert.same({ batches[2], batches[3] }, read(again)) return true end)))
        assert.equal(2, dataset.broken.count)
    end)

    it("leave one token of padding where a batch loses all of its rows", function()
        local dataset = pictures({ { picture(4, 4) }, { cut_off }, { picture(4, 4) } }, { on_bad_image = "skip" })
        local loader = dataloader.StatefulDataLoader { dataset = dataset, processor = stand_in.new(),
                                                       collate_fn = vlm.default_collate_fn }
        quietly(function()
            loader:next()
            local batch = loader:next()
            assert.same({ 1, 1, 0, 7, {} }, { batch.B, batch.T, batch.num_label_tokens, batch.input_ids[0],
                                              batch.fields })
            assert.equal(1, #loader:next().fields.pixel_values)
            return true
        end)
    end)

    it("leave their pack", function()
        local rows = many(4)
        rows[2] = { cut_off }
        local processor = stand_in.new()
        quietly(function()
            local packs = vlm.pack_dataset(vlm.prepare(pictures(rows, { on_bad_image = "skip" }), processor),
                                           { packed_sequence_size = 100 })
            assert.equal(4, #packs:get(1).samples)
            local batch = vlm.default_collate_fn({ packs:get(1) }, processor):finish()
            assert.same({ 3, 100, 3 }, { #batch.fields.pixel_values, batch.T, #batch.rows[1].seq_lens })
            assert.equal(3 * 3, batch.num_label_tokens)
            return true
        end)
    end)

    it("end the run when there are too many", function()
        local dataset = pictures({ { "a" }, { picture(4, 4) }, { "b" }, { "c" } },
                                 { on_bad_image = "skip", max_bad_images = 2 })
        helpers.fails("data", "^3 rows have broken pictures, more than dataset.max_bad_images %(2%); the last: .*row 4",
            function() quietly(function() return vlm.prepare(dataset, stand_in.new()) end) end)
    end)

    it("are passed in a folder of 10,000", function()
        local rows, good = {}, picture(4, 4)
        for i = 1, 10000 do
            rows[i] = { good, "A" }
        end
        rows[17], rows[5000], rows[9999] = { "" }, { cut_off }, { nil }
        local dataset, processor = pictures(rows, { on_bad_image = "skip" }), stand_in.new()
        local said = quietly(function()
            local prepared = vlm.prepare(dataset, processor)
            assert.equal(9998, prepared:len())
            local loader = dataloader.StatefulDataLoader { dataset = prepared, processor = processor,
                                                           batch_size = 100, collate_fn = vlm.default_collate_fn,
                                                           shuffle = true }
            local count = 0
            for batch in function() return loader:next() end do
                count = count + #batch.fields.pixel_values
            end
            assert.equal(9997, count)
            return true
        end)
        assert.equal(3, dataset.broken.count)
        for k, i in ipairs { 17, 9999, 5000 } do
            assert.matches(("row %d %%(broken picture: .*/%d.png: .*%%); %d so far"):format(i, i, k), said)
        end
    end)
end)
