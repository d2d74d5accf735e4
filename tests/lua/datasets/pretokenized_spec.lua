-- am.datasets.pretokenized: labels of either kind, masks, bad rows.
local pretokenized = require("am.datasets.pretokenized")
local helpers = require("tests.lua.datasets.helpers")

describe("am.datasets.pretokenized", function()
    local function with_file(text, fn)
        local name = helpers.file(text)
        local ok, e = pcall(fn, name)
        os.remove(name)
        if not ok then
            error(e, 0)
        end
    end

    local function first(text, opts)
        local row
        with_file(text, function(name)
            opts = opts or {}
            opts.path_or_dataset_id = name
            row = pretokenized.PretokenizedDataset(opts):get(1)
        end)
        return row
    end

    it("takes shifted labels as they are", function()
        local row = first '{"input_ids":[5,6,7],"labels":[-100,7,8]}'
        assert.same({ 5, 6, 7 }, { unpack(row.input_ids) })
        assert.same({ -100, 7, 8 }, { unpack(row.labels) })
    end)

    it("shifts transformers' labels, and makes them when there are none", function()
        local row = first('{"input_ids":[5,6,7],"labels":[-100,-100,7],"position_ids":[4,5,6]}', {
            labels_shifted = false,
        })
        assert.same({ { 5, 6 }, { -100, 7 }, { 4, 5 } }, {
            { unpack(row.input_ids) }, { unpack(row.labels) }, { unpack(row.position_ids) },
        })
        row = first '{"input_ids":[5,6,7,0],"attention_mask":[1,1,1,0]}'
        assert.same({ { 5, 6, 7 }, { 6, 7, -100 }, { 1, 1, 1 } }, {
            { unpack(row.input_ids) }, { unpack(row.labels) }, { unpack(row.attention_mask) },
        })
    end)

    it("leaves out the labels where loss_mask is 0, which lies as they do", function()
        local row = first '{"input_ids":[1,2,3],"labels":[2,3,4],"loss_mask":[0,0,1]}'
        assert.same({ -100, -100, 4 }, { unpack(row.labels) })
        row = first '{"input_ids":[5,6,7],"loss_mask":[0,0,1]}'
        assert.same({ { 5, 6 }, { -100, 7 } }, { { unpack(row.input_ids) }, { unpack(row.labels) } })
        local ok, e = pcall(first, '{"input_ids":[1,2],"labels":[2,3],"loss_mask":[1]}')
        assert.is_false(ok)
        assert.matches('"loss_mask" has 1 entries, "input_ids" 2', tostring(e))
    end)

    it("skips rows without labels and limits", function()
        local text = '{"input_ids":[5],"labels":[-100]}\n{"input_ids":[5],"labels":[6]}\n{"input_ids":[]}\n'
        with_file(text, function(name)
            local ds = pretokenized.PretokenizedDataset { path_or_dataset_id = name }
            assert.same({ 1, 2, 1 }, { ds:len(), ds:stats().skipped, ds:stats().label_tokens })
            assert.equal(name .. " row 2", ds:name(1))
            helpers.fails("data", "no row has a label", pretokenized.PretokenizedDataset, {
                path_or_dataset_id = name, limit_dataset_samples = 1,
            })
        end)
    end)

    it("refuses bad rows by number", function()
        for text, pattern in pairs {
            ['{"labels":[1]}'] = '"input_ids" must be an array', ['{"input_ids":"x"}'] = "must be an array",
            ['{"input_ids":{"a":1}}'] = "must be an array", ['{"input_ids":[1,-1]}'] = "holds %-1 at position 1",
            ['{"input_ids":[1.5]}'] = "holds 1.5", ['{"input_ids":[99]}'] = "not a number from 0 to 49",
            ['{"input_ids":[1,2],"labels":[1]}'] = '"labels" has 1 entries',
            ['{"input_ids":[1],"labels":[-1]}'] = "holds %-1",
            ['{"input_ids":[1],"labels":null}'] = "must be an array", ['{"input_ids":[null]}'] = "position 0",
            ['{"input_ids":[1],"attention_mask":[2]}'] = '"attention_mask" holds 2',
        } do
            helpers.fails("data", "row 1: .*" .. pattern, first, text, { vocab_size = 50 })
        end
    end)
end)
