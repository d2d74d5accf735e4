-- am.loggers.console: lines as NeMo Automodel prints them, numbers as Python's format() does.
local console = require("am.loggers.console")

local function with(record, changes)
    local out = {}
    for _, set in ipairs { record, changes or {} } do
        for key, value in pairs(set) do
            out[key] = value
        end
    end
    return out
end

local function train(changes)
    return console.train_line(with({
        step = 3, epoch = 0, loss = 1.2345, grad_norm = 2, lr = 1.9e-06, mem = 0.5, tps = 1234.5,
        tps_per_gpu = 1234.5, num_label_tokens = 200,
    }, changes))
end

local function val(changes, name)
    return console.val_line(name or "default", with({
        step = 9, epoch = 1, val_loss = 0.125, lr = 1e-5, num_label_tokens = 7,
    }, changes))
end

-- The text of one field of a line.
local function field(name, line)
    return (line .. " |"):match(" ?" .. name .. " (.-) |")
end

describe("am.loggers.console", function()
    it("prints the lines of today's NeMo Automodel", function()
        assert.equal("step 3 | epoch 0 | loss 1.2345 | grad_norm 2.0000 | lr 1.90e-06 | mem 0.50 GiB | "
            .. "tps 1234.50(1234.50/gpu) | num_label_tokens 200", train())
        assert.equal('[val] name "default" | step 9 | epoch 1 | loss 0.1250 | lr 1.00e-05 | num_label_tokens 7', val())
    end)

    it("ends in the metrics of a validation", function()
        assert.matches(" | num_label_tokens 7 | accuracy 0%.5000 | f1 0%.2500$",
                       val { val_f1 = 0.25, val_accuracy = 0.5 })
    end)

    it("names the validation set", function()
        assert.matches('^%[val%] name "squad_dev" | step 9 ', val({}, "squad_dev"))
        assert.matches('^%[val%] name "" | ', val({}, ""))
    end)

    it("prints whole numbers whole, however large", function()
        local line = train { step = 123456789, epoch = 1000, num_label_tokens = 2 ^ 40 }
        assert.matches("^step 123456789 | epoch 1000 | ", line)
        assert.matches("num_label_tokens 1099511627776$", line)
        assert.matches("step 123456789 | epoch 0 ", val { step = 123456789, epoch = 0 })
    end)

    it("rounds decimals as Python does: halves that are exact to even", function()
        for value, text in pairs {
            [0.125] = "0.1250", [0.00005] = "0.0001", [0.00003] = "0.0000", [1.00005] = "1.0001",
            [12345.67891] = "12345.6789", [-0.5] = "-0.5000", [1e-300] = "0.0000", [0] = "0.0000",
            [0.99995] = "1.0000", [0.15625] = "0.1562", [0.46875] = "0.4688",
        } do
            assert.equal(text, field("loss", train { loss = value }))
            assert.equal(text, field("loss", val { val_loss = value }))
            assert.equal(text, field("grad_norm", train { grad_norm = value }))
        end
        for value, text in pairs { [0.125] = "0.12", [0.375] = "0.38", [2.675] = "2.67", [1024] = "1024.00" } do
            assert.equal(text .. " GiB", field("mem", train { mem = value }))
            assert.equal(text .. "(" .. text .. "/gpu)", field("tps", train { tps = value, tps_per_gpu = value }))
        end
        assert.equal("8.00(1.00/gpu)", field("tps", train { tps = 8, tps_per_gpu = 1 }))
        assert.equal("1" .. ("0"):rep(22) .. ".00(0.00/gpu)", field("tps", train { tps = 1e22, tps_per_gpu = 0 }))
    end)

    it("prints learning rates with two digits of exponent, or more", function()
        for value, text in pairs {
            [1e-5] = "1.00e-05", [0] = "0.00e+00", [1] = "1.00e+00", [0.00123456] = "1.23e-03", [9.999e-4] = "1.00e-03",
            [1e-100] = "1.00e-100", [123] = "1.23e+02", [1.125] = "1.12e+00", [1.375] = "1.38e+00",
        } do
            assert.equal(text, field("lr", train { lr = value }))
            assert.equal(text, field("lr", val { lr = value }))
        end
    end)

    it("prints what is not finite as Python does", function()
        for value, text in pairs { [math.huge] = "inf", [-math.huge] = "-inf" } do
            local line = train { loss = value, grad_norm = value, lr = value, mem = value, tps = value,
                                 tps_per_gpu = value }
            assert.equal(("step 3 | epoch 0 | loss X | grad_norm X | lr X | mem X GiB | tps X(X/gpu) | "
                .. "num_label_tokens 200"):gsub("X", text), line)
            assert.equal(text, field("loss", val { val_loss = value }))
        end
        for _, nan in ipairs { 0 / 0, -(0 / 0) } do
            assert.equal("nan", field("loss", train { loss = nan }))
            assert.equal("nan", field("loss", val { val_loss = nan }))
            assert.equal("nan", field("lr", val { lr = nan }))
            assert.equal("nan(nan/gpu)", field("tps", train { tps = nan, tps_per_gpu = nan }))
        end
    end)
end)
