-- Eigenvectors and QR as tensors: shapes, dtypes, devices, refusals. The arithmetic of every instruction set is
-- tested in tests/c/test_kernels_linalg.c.

local am = require("am")
local compare = require("tests.support.compare")
local linalg = require("am.core.linalg")
local tiny = require("tests.support.tiny")

local raised = tiny.raised

local function symmetric(n, opts)
    am.manual_seed(n)
    local a = am.randn({ n, n }, { dtype = "float64" })
    return (a + a:t()):to(opts)
end

describe("am.core.linalg", function()
    for _, device in ipairs { "cpu", "ref", "fence" } do
        it("decomposes on " .. device, function()
            for _, n in ipairs { 0, 1, 2, 5, 40 } do
                for dtype, tolerance in pairs { float64 = 1e-12, float32 = 1e-5 } do
                    local a = symmetric(n, { dtype = dtype, device = device })
                    local before = tiny.bits(a)
                    local values, vectors = linalg.eigh(a)
                    local q = linalg.qr(a)
                    assert.same({ { n }, { n, n }, { n, n } }, { values:size(), vectors:size(), q:size() })
                    assert.same({ dtype, dtype, device }, { values:dtype(), q:dtype(), vectors:device() })
                    assert.equal(before, tiny.bits(a))
                    if n > 0 then
                        local one = am.eye(n, { dtype = dtype, device = device })
                        compare.within("A V = V w", a:matmul(vectors), vectors * values, tolerance, n)
                        compare.within("orthogonal", vectors:t():matmul(vectors), one, tolerance, 1)
                        compare.within("Q", q:t():matmul(q), one, tolerance, 1)
                        local r, below = q:t():matmul(a):to("cpu"), 0
                        for i = 1, n - 1 do
                            below = math.max(below, r:narrow(0, i, 1):narrow(1, 0, i):abs():amax():item())
                        end
                        assert.is_true(below <= tolerance * n)
                    end
                end
            end
        end)
    end

    it("reads strides", function()
        local a = am.randn({ 6, 6 }, { dtype = "float64" })
        local q = linalg.qr(a:t())
        compare.same("a view", q, linalg.qr(a:t():contiguous()))
    end)

    it("frees what it makes in a scope", function()
        local a = symmetric(32, { dtype = "float32" })
        collectgarbage()
        collectgarbage()
        local before = am.memory().live_bytes
        am.scope(function()
            linalg.eigh(a)
            linalg.qr(a)
        end)
        assert.equal(before, am.memory().live_bytes)
    end)

    it("refuses what has no decomposition", function()
        for _, fn in ipairs { linalg.eigh, linalg.qr } do
            raised("shape", "square", fn, am.zeros({ 2, 3 }))
            raised("shape", "square", fn, am.zeros({ 4 }))
            raised("argument", "int32", fn, am.zeros({ 2, 2 }, { dtype = "int32" }))
            raised("argument", "tensor", fn, nil)
        end
        local bad = am.eye(3)
        bad:select(0, 1):fill_(0 / 0)
        raised("argument", "not finite", linalg.eigh, bad)
    end)
end)
