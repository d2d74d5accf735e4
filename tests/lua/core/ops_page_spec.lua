-- docs/ops.md is what docs/ops.lua makes of the registry.

describe("docs/ops.md", function()
    local page = dofile("docs/ops.lua")()

    it("is up to date; if not, run: luajit docs/ops.lua", function()
        local file = assert(io.open("docs/ops.md", "rb"))
        local text = file:read("*a")
        file:close()
        assert.equal(page, text)
    end)

    it("has every op of the engine with its text", function()
        local ffi = require("ffi")
        local C = require("am.core.ffi").C
        for op = 0, C.AM_OP_COUNT - 1 do
            local name, doc = ffi.string(C.am_op_name(op)), ffi.string(C.am_op_doc(op))
            local row = page:match("\n(| `" .. name .. "` [^\n]*)")
            assert.is_truthy(row, name)
            assert.is_truthy(row:find(doc:gsub("|", "\\|"), 1, true), name)
        end
    end)
end)
