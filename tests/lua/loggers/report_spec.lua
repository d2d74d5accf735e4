-- am.loggers.report: what the page holds, that it stays small, and that text in it stays text.
local chart = require("am.loggers.report_chart")
local helpers = require("tests.lua.loggers.helpers")
local json = require("am.utils.json")
local path = require("am.utils.path")
local report = require("am.loggers.report")
local series = require("am.loggers.series")

local dir, remove, clock
before_each(function()
    dir, remove = helpers.folder()
    clock = helpers.clock(0)
end)
after_each(function() remove() end)

local function open(run, state)
    run = run or {}
    run.dir, run.clock, run.time = dir, clock, function() return 1700000000 end
    return report.open({}, run, state)
end

local function page()
    return helpers.read(path.join(dir, "report.html"))
end

local function count(text, pattern)
    local _, n = text:gsub(pattern, "")
    return n
end

describe("a series", function()
    it("keeps every point while there are few", function()
        local s = series.new()
        s:add(0, 1)
        s:add(5, 3)
        assert.same({ { first = 0, last = 0, sum = 1, n = 1, min = 1, max = 1 },
                      { first = 5, last = 5, sum = 3, n = 1, min = 3, max = 3 } }, s:buckets())
    end)

    it("has a bounded number of points for a million steps, and their extremes", function()
        local s = series.new()
        for step = 0, 999999 do
            s:add(step, step == 123456 and 99 or step % 10)
        end
        local n, sum, at, greatest = 0, 0, -1, 0
        for _, b in ipairs(s:buckets()) do
            assert.equal(at + 1, b.first)
            n, sum, at, greatest = n + b.n, sum + b.sum, b.last, math.max(greatest, b.max)
        end
        assert.same({ 1000000, 999999, 99 }, { n, at, greatest })
        assert.equal(4500000 + 99 - 6, sum)
        assert.truthy(#s:buckets() <= series.LIMIT and #s:buckets() > series.LIMIT / 4)
    end)

    it("counts what is no number", function()
        local s = series.new()
        s:add(0, 0 / 0)
        s:add(1, math.huge)
        s:add(2, -1e308)
        assert.equal(3, s.not_finite)
        assert.equal(0, #s:buckets())
    end)
end)

describe("numbers for people", function()
    it("have four digits", function()
        assert.same({ "0", "1", "1.235", "12.35", "123.5", "1234", "1.23e-5", "1e-5", "2.5e8", "-0.5", "0.7", "1e6" }, {
            chart.number(0), chart.number(1), chart.number(1.23456), chart.number(12.3456), chart.number(123.456),
            chart.number(1234), chart.number(1.23e-5), chart.number(1e-5), chart.number(2.5e8), chart.number(-0.5),
            chart.number(0.69999), chart.number(1e6) })
    end)
end)

describe("a chart", function()
    local function svg(points)
        local s = series.new()
        for _, p in ipairs(points) do
            s:add(p[1], p[2])
        end
        return chart.svg { title = "t", series = { { name = "n", class = "s1", data = s } } }
    end

    it("is none without points", function()
        assert.is_nil(svg {})
    end)

    it("draws whatever the values are", function()
        for _, points in ipairs { { { 0, 0 } }, { { 5, 3 }, { 6, 3 } }, { { 0, -1e100 }, { 1, 1e100 } },
                                  { { 0, 1 }, { 1, 1 + 2e-16 } }, { { 0, 5e-324 }, { 2 ^ 53, 1e-320 } },
                                  { { 0, -1 }, { 1e6, 1e-9 } } } do
            local text = svg(points)
            assert.falsy(text:find("nan", 1, true), text)
            assert.falsy(text:find("inf", 1, true), text)
            assert.truthy(count(text, 'class="grid"') < 15)
            assert.equal(#points, count(text, "<circle"))
        end
    end)

    it("puts points where they belong", function()
        local text = svg { { 0, 0 }, { 10, 100 } }
        local x0, y0, x1, y1 = text:match('points="([%d.]+),([%d.]+) ([%d.]+),([%d.]+)"')
        assert.equal(62, tonumber(x0))
        assert.equal(546, tonumber(x1))
        assert.equal(226, tonumber(y0))
        assert.truthy(tonumber(y1) > 12 and tonumber(y1) < 30)
    end)
end)

describe("the page", function()
    it("has curves, facts, samples, the configuration and how it ended", function()
        local r = open { name = "n", model_name = "org/model", total_steps = 50, config_text = "seed: 42",
                         facts = { { "Data", "a.jsonl" } }, environment = { { "amlua", "1.0" } } }
        r:sample(0, "What?", "first")
        for step = 0, 49 do
            r:train { step = step, epoch = 0, loss = 50 - step, lr = 1e-5, grad_norm = 1, tps = 100, mem = 1.5,
                      num_tokens_per_step = 200, num_label_tokens = 50 }
        end
        r:validation("default", { step = 20, val_loss = 2 })
        r:validation("default", { step = 49, val_loss = 3 })
        r:validation("squad", { step = 49, val_loss = 4 })
        r:sample(49, "What?", "last")
        r:finish("failed", "out of memory")
        local text = page()
        assert.equal(6, count(text, "<svg"))
        for _, expected in ipairs { "<dd>org/<wbr>model</dd>", "<dd>50 of 50</dd>", "<dd>2 at step 20</dd>",
                                    "<dt>Best validation, squad</dt><dd>4 at step 49</dd>", "<dd>0:01:40</dd>",
                                    "<dd>1.50 GiB</dd>", "<dd>a.jsonl</dd>", "<pre>seed: 42</pre>", "<pre>first</pre>",
                                    "<pre>last</pre>", "After, at step 49", 'class="status failed">failed</span>',
                                    ": out of memory", "<th>amlua</th><td>1.0</td>" } do
            assert.truthy(text:find(expected, 1, true), expected)
        end
    end)

    it("shows a prompt's pictures and what the answer should be, and nothing else as a picture", function()
        local picture = "data:image/png;base64,aGk="
        local r = open {}
        r:sample(0, "row 1: What?", "a fish", { truth = "a <cat>", images = { picture, "data:image/png;base64,\"x",
                 "https://host/a.png", "data:image/png;base64," .. ("A"):rep(70000), 3 } })
        r:sample(9, "row 1: What?", "a cat")
        r:finish("finished")
        local text = page()
        assert.equal(1, count(text, "<img"))
        for _, expected in ipairs { '<img src="' .. picture .. '" alt="picture 1 of the prompt">', "a &lt;cat&gt;",
                                    "<pre>a cat</pre>", "img-src data:;" } do
            assert.truthy(text:find(expected, 1, true), expected)
        end
        local state = json.decode(json.encode(r:state_dict()))
        state.samples[2] = { prompt = "p", first = { step = 0, text = "t" }, images = { 'data:image/png;base64,"' } }
        state.samples[3] = { prompt = "p", first = { step = 0, text = "t" }, truth = {} }
        r = open({ resumed_from = "x", start_step = 10 }, state)
        r:finish("finished")
        assert.equal(1, count(page(), "<img"))
        assert.equal(2, #r.samples)
    end)

    it("shows text as text", function()
        local evil = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\0\27[31m\"'&"
        local r = open { name = evil, model_name = evil, config_text = evil, environment = { { evil, evil } } }
        r:sample(0, evil, evil)
        r:train { step = 0, loss = 1 }
        r:validation(evil, { step = 0, val_loss = 1 })
        r:finish("finished", evil)
        local text = page()
        assert.equal(1, count(text, "<script"))
        assert.falsy(text:find("<img", 1, true))
        assert.falsy(text:find("[%z\1-\8\27]"))
        assert.truthy(text:find("&lt;img src=x onerror=alert(1)&gt;", 1, true))
        local policy = text:match('Content%-Security%-Policy" content="([^"]*)"')
        local nonce = policy:match("script%-src 'nonce%-(%x+)'")
        assert.truthy(policy:find("default-src 'none'", 1, true))
        assert.equal(32, #nonce)
        assert.truthy(text:find('<script nonce="' .. nonce .. '">', 1, true))
    end)

    it("loads nothing", function()
        open({}):finish("finished")
        local text = page():gsub("http://www%.w3%.org/2000/svg", "")
        assert.falsy(text:find("https?://"))
        assert.falsy(text:find("url%("))
        assert.falsy(text:find("@import"))
    end)

    it("stays small for a million steps", function()
        local r = open {}
        for step = 0, 199999 do
            r:train { step = step, loss = math.sin(step), lr = 1 / (step + 1), grad_norm = step % 7, tps = step % 1000,
                      mem = step }
        end
        for i = 1, 500 do
            r:validation("set" .. i % 30, { step = i, val_loss = i })
        end
        for i = 1, 100 do
            r:sample(0, "prompt " .. i, ("x"):rep(100000))
        end
        r:finish("finished")
        assert.truthy(#page() < 400000, #page())
    end)

    it("is written every half minute, by one rename", function()
        local r = open {}
        local written = 0
        for second = 0, 100 do
            clock:set(second)
            r:train { step = second, loss = 1 }
            os.remove(path.join(dir, "report.html"))
            r:poll()
            written = written + (path.exists(path.join(dir, "report.html")) and 1 or 0)
        end
        assert.equal(4, written)
        assert.equal(0, #path.names(dir) - (path.exists(path.join(dir, "report.html")) and 1 or 0))
    end)

    it("of a resumed run has what was before it", function()
        path.write_file(path.join(dir, "training.jsonl"),
                        '{"step": 0, "loss": 9.0, "tps": 10.0, "num_tokens_per_step": 50}\nno json\n{"step": "x"}\n'
                        .. '{"step": 1, "loss": NaN}\n{"step": 2, "loss": 5.0}\n{"step": 3, "loss": 1')
        path.write_file(path.join(dir, "validation.jsonl"), '{"step": 1, "val_loss": 7.0}\n')
        path.write_file(path.join(dir, "validation_squad.jsonl"), '{"step": 1, "val_loss": 8.0}\n')
        local r = open({ resumed_from = "x", start_step = 2 },
                       { samples = { { prompt = "p", first = { step = 0, text = "old" } } } })
        r:train { step = 2, loss = 4 }
        r:sample(2, "p", "new")
        r:finish("finished")
        local text = page()
        assert.equal(2, r.series.loss.count)
        assert.equal(1, r.series.loss.not_finite)
        for _, expected in ipairs { "<dd>7 at step 1</dd>", "<dd>8 at step 1</dd>", "<pre>old</pre>", "<pre>new</pre>",
                                    "1 values are no finite numbers", "<dd>50</dd>" } do
            assert.truthy(text:find(expected, 1, true), expected)
        end
    end)
end)
