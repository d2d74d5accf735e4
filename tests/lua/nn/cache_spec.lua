-- The key/value cache: attention in pieces equals attention at once, bit for bit in a row.

local ffi = require("ffi")
local am = require("am.core")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local Attention = require("am.nn.attention")
local Cache = require("am.nn.cache")
local rope = require("am.nn.rope")
local ops = am.ops

local function live()
    local s = ffi.new("am_mem_stats")
    edge.check(edge.C.am_mem_get(0, s))
    return tonumber(s.live_bytes)
end

describe("a key/value cache", function()
    it("gives what attending to everything at once gives", function()
        local t = 9
        local attention = Attention.new { hidden_size = 16, num_heads = 4, num_kv_heads = 2, head_dim = 4 }
        for _, module, slot in attention:parameter_slots() do module[slot.name] = am.randn(slot.shape) end
        local x, positions = am.randn { 2, t, 16 }, {}
        for i = 1, t do positions[i] = i - 1 end
        local inv_freq, scaling = rope.inv_freq { theta = 10000, dim = 4, max_position_embeddings = 64 }
        local rotary = ops.rope_table(am.tensor({ positions }, { dtype = "int32" }), inv_freq, scaling)
        local whole = attention:forward(x, rotary, {})
        local largest = ops.abs(whole):amax():item()
        for _, pieces in ipairs { { 9 }, { 1, 1, 1, 1, 1, 1, 1, 1, 1 }, { 4, 1, 3, 1 } } do
            local cache, at = Cache.new(12), 0
            for _, n in ipairs(pieces) do
                local out = attention:forward(x:narrow(1, at, n), rotary:narrow(1, at, n), { cache = cache, layer = 2 })
                cache:advance(n)
                local off = ops.abs(out - whole:narrow(1, at, n)):amax():item()
                assert.is_true(off <= 2e-6 * largest, ("off by %g in a piece of %d at %d"):format(off, n, at))
                at = at + n
            end
            assert.equal(t, cache.used)
            cache:release()
        end
    end)

    it("says when it is full", function()
        local cache = Cache.new(3)
        local k = am.ones { 1, 2, 2, 4 }
        local keys, values = cache:append(1, k, k * 2)
        assert.same({ 1, 2, 2, 4 }, keys:size())
        assert.equal(2, values:amin():item())
        cache:advance(2)
        local ok, e = pcall(cache.append, cache, 1, k, k)
        assert.is_false(ok)
        assert.is_true(err.is(e))
        assert.equal("state", e.code)
        assert.is_truthy(tostring(e):find("3 tokens"), tostring(e))
        cache:release()
    end)

    it("outlives scopes and frees its memory when released", function()
        collectgarbage()
        collectgarbage()
        local before, cache = live(), nil
        am.scope(function()
            cache = Cache.new(100)
            cache:append(1, am.ones { 1, 1, 2, 4 }, am.ones { 1, 1, 2, 4 })
        end)
        assert.is_true(live() >= before + 2 * 100 * 2 * 4 * 4)
        assert.equal(1, cache.layers[1].k:narrow(1, 0, 1):amin():item())
        cache:release()
        collectgarbage()
        collectgarbage()
        assert.equal(before, live())
    end)
end)
