-- am.utils.strings.
local strings = require("am.utils.strings")

describe("am.utils.strings", function()
    it("splits on plain text", function()
        assert.same({ "a", "", "b" }, strings.split("a..b", "."))
        assert.same({ "" }, strings.split("", "."))
        assert.same({ "a", "b" }, strings.split("a->b", "->"))
    end)

    it("trims, and compares ends", function()
        assert.equal("a b", strings.trim(" \t a b\n"))
        assert.equal("", strings.trim("  "))
        local wide, started = "a" .. (" "):rep(1e5) .. "b", os.clock()
        assert.equal(wide, strings.trim(wide .. " "))
        assert.is_true(os.clock() - started < 1) -- not the square of the length
        assert.is_true(strings.ends_with("ab", ""))
        assert.is_true(strings.ends_with("ab", "b") and not strings.ends_with("b", "ab"))
        assert.is_true(strings.starts_with("ab", "a") and not strings.starts_with("a", "ab"))
    end)

    it("matches wildcards", function()
        local cases = {
            { "*q_proj", "model.layers.0.self_attn.q_proj", true }, { "*q_proj", "q_proj", true },
            { "q_proj", "a.q_proj", false }, { "*.q_proj", "q_proj", false }, { "*", "", true },
            { "a*a", "a", false }, { "a*b*c", "axxbyyc", true }, { "a*b*c", "acb", false },
            { "*layers.1.*", "model.layers.1.mlp", true }, { "*layers.1.*", "model.layers.11.mlp", false },
            { "a%d*", "a%d1", true }, { "a.c", "abc", false }, { "**", "x", true }, { "a*bc", "abc", true },
            { "ab*bc", "abc", false },
        }
        for _, case in ipairs(cases) do
            assert.equal(case[3], strings.wildcard(case[1], case[2]), case[1] .. " ~ " .. case[2])
        end
        assert.is_false(strings.wildcard(("a*"):rep(2000) .. "b", ("a"):rep(20000)))
    end)

    it("says where a text stops being UTF-8", function()
        for _, text in ipairs { "", "plain", "\195\169", "\226\130\172x", "\240\159\152\128", "\237\159\191",
                                "a\0b" } do
            assert.is_nil(strings.utf8_error(text))
        end
        for text, at in pairs {
            ["\255"] = 1, ["ab\128"] = 3, ["\192\128"] = 1, ["\195"] = 1, ["\195x"] = 1, ["x\224\128\128"] = 2,
            ["\237\160\128"] = 1, ["\244\144\128\128"] = 1, ["\245\128\128\128"] = 1, ["\195\169\240\159\152"] = 3,
        } do
            assert.equal(at, strings.utf8_error(text))
        end
    end)

    it("redacts what may be secret in URLs", function()
        for text, shown in pairs {
            ["https://hf_token@host/x"] = "https://<redacted>@host/x",
            ["https://u:p@ss@host"] = "https://<redacted>@host",
            ["no answer from s3+http://:pw@host:80/a@b, git://@h"] =
                "no answer from s3+http://<redacted>@host:80/a@b, git://<redacted>@h",
            ["http://a/b,http://u:p@c"] = "http://a/b,http://<redacted>@c",
            ["https://host/@user me@host"] = "https://host/@user me@host",
        } do
            assert.equal(shown, strings.redact_urls(text))
        end
    end)

    it("measures and finds the nearest name", function()
        assert.equal(3, strings.distance("kitten", "sitting"))
        assert.equal(4, strings.distance("", "four"))
        assert.equal(1, strings.distance("bf61", "bf16"))
        assert.equal(0, strings.distance("same", "same"))
        local names = { "lr", "betas", "eps", "weight_decay", "foreach" }
        assert.equal("lr", strings.nearest("lrr", names))
        assert.equal("weight_decay", strings.nearest("weight-decay", names))
        assert.equal("weight_decay", strings.nearest("WeightDecay", names))
        assert.equal("betas", strings.nearest("beta", names))
        assert.equal("weight_decay", strings.nearest("decay", names))
        assert.is_nil(strings.nearest("gradient_checkpointing", names))
        assert.equal(' (did you mean "eps"?)', strings.did_you_mean("epss", names))
        assert.equal("", strings.did_you_mean("zzzzz", names))
        assert.is_nil(strings.nearest(("x"):rep(1e6), names))
    end)
end)
