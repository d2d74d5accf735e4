-- Base64: RFC 4648's own vectors, and every byte.
local base64 = require("am.utils.base64")

describe("base64", function()
    it("is what RFC 4648 says", function()
        for text, expected in pairs { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==",
                                      fooba = "Zm9vYmE=", foobar = "Zm9vYmFy", ["\0\255\254"] = "AP/+" } do
            assert.equal(expected, base64.encode(text))
            assert.equal(text, base64.decode(expected))
        end
        local all = {}
        for i = 0, 255 do
            all[i + 1] = string.char(i)
        end
        all = table.concat(all)
        assert.equal(all, base64.decode(base64.encode(all)))
    end)

    it("may lack padding and hold white space, and nothing else", function()
        assert.equal("ABC", base64.decode(" QU\nJD\r\n"))
        assert.equal("AB", base64.decode("QUI"))
        for _, bad in ipairs { "QUJDR", "Q", "QU*D", "QU-D", "Q=Q=", "\0" } do
            assert.is_nil(base64.decode(bad))
        end
    end)
end)
