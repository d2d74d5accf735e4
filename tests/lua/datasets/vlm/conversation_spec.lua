-- am.datasets.vlm.conversation and sources: one form of all that conversations are written in.
local conversation = require("am.datasets.vlm.conversation")
local sources = require("am.datasets.vlm.sources")
local helpers = require("tests.lua.datasets.helpers")
local json = require("am.utils.json")

-- "user: <a.png> What?|assistant: A cat." of a conversation in JSON.
local function read(text, opts)
    local messages, images = conversation.read(json.decode(text), opts or { base = "d" }, "row 1")
    local out, at = {}, 0
    for i, message in ipairs(messages) do
        local parts = { message.role .. ":" }
        for _, part in ipairs(message.content) do
            if part.type == "image" then
                at = at + 1
                parts[#parts + 1] = "<" .. (images[at].path or images[at].url or images[at].data) .. ">"
            else
                parts[#parts + 1] = part.text
            end
        end
        out[i] = table.concat(parts, " ")
    end
    assert.equal(#images, at)
    return table.concat(out, "|")
end

local answer = [[, {"role": "assistant", "content": "Yes."}] ]]

describe("am.datasets.vlm.conversation", function()
    it("reads NeMo Automodel's and transformers' parts", function()
        assert.equal("user: <d/a.png> What?|assistant: A cat.", read [[
            [{"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]},
             {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}] ]])
        for _, part in ipairs {
            [[{"type": "image", "path": "a.png"}]], [[{"type": "image", "url": "a.png"}]],
            [[{"type": "image_url", "image_url": {"url": "a.png"}}]], [[{"image": "a.png"}]],
            [[{"type": "image", "image": {"bytes": null, "path": "a.png"}, "text": null}]],
        } do
            assert.equal("user: <d/a.png>|assistant: Yes.", read([=[[{"role": "user", "content": []=] .. part .. "]}"
                .. answer), part)
        end
        assert.equal("user: <PNG>|assistant: Yes.", read([[ [{"role": "user", "content": [{"type": "image",
            "base64": "UE5H"}]}]] .. answer))
        assert.equal("system: Brief.|user: Is it?|assistant: Yes.", read([[ [{"role": "system", "content": "Brief."},
            {"role": "user", "content": "Is it?"}]] .. answer))
    end)

    it("gives places without an image those that stand beside the conversation, in order", function()
        local two = { images = { "a", "b" } }
        assert.equal("user: <a> and <b>|assistant: Yes.", read([[ [{"role": "user", "content": [{"type": "image"},
            {"type": "text", "text": "and"}, {"type": "image"}]}]] .. answer, two))
        assert.equal("user: Before <a> between <b> after|assistant: Yes.",
            read([[ [{"role": "user", "content": "Before\n<image> between <image>\nafter"}]] .. answer, two))
        local one = { images = { "a" } }
        for _, text in ipairs { "<image>\\nWhat is it?", "What is it?\\n<image>", "What <image>is it?" } do
            local written = read([=[[{"from": "human", "value": "]=] .. text .. [["},
                {"from": "gpt", "value": "A <image> cat."}] ]], one)
            assert.equal("user: <a> What is it?|assistant: A <image> cat.", written)
        end
        assert.equal("user: <a>|assistant: Yes.|user: <a> So?|assistant: Yes.", read([[ [{"from": "human", "value":
            "<image>"}, {"from": "gpt", "value": "Yes."}, {"from": "human", "value": "<image> So?"}]] .. answer,
            { images = { "a" }, repeated = true }))
    end)

    it("refuses numbers of images that do not agree, naming the row", function()
        local text = [[ [{"role": "user", "content": "<image> <image>"}]] .. answer
        helpers.fails("data", "^row 1: message 1: more places for images than images: there is 1$", read, text,
            { images = { "a" } })
        helpers.fails("data", "^row 1: 3 images beside the conversation, but 2 places", read, text,
            { images = { "a", "b", "c" } })
        helpers.fails("data", "^row 1: 1 images beside", read, [=[[{"role": "user", "content": "Hm."}]=] .. answer,
            { images = { "a" } })
    end)

    it("refuses audio, video, and what is no conversation", function()
        local function part(text)
            return read([=[[{"role": "user", "content": []=] .. text .. "]}" .. answer)
        end
        for _, kind in ipairs { "audio", "input_audio", "audio_url", "video" } do
            helpers.fails("unsupported", "row 1: message 1, part 1: %l+ in a conversation is not read", part,
                ('{"type": "%s", "audio": "a.wav"}'):format(kind))
        end
        helpers.fails("data", 'a part of type "smell"', part, '{"type": "smell"}')
        helpers.fails("data", "no object with a type", part, '"text"')
        helpers.fails("data", "text part's text is no text", part, '{"type": "text", "text": 3}')
        helpers.fails("data", "not a number", part, '{"type": "image", "image": 3}')
        helpers.fails("data", "no list of messages", read, "[]")
        helpers.fails("data", "no list of messages", read, '{"role": "user"}')
        helpers.fails("data", "an object with role", read, "[1]")
        helpers.fails("data", 'a message of "tool"', read, '[{"role": "tool", "content": "x"}]')
        helpers.fails("data", "no message of the assistant", read, '[{"role": "user", "content": "x"}]')
        helpers.fails("data", "neither text nor a list", read, '[{"role": "user", "content": {"a": 1}}]')
    end)
end)

describe("am.datasets.vlm.sources", function()
    it("take a damaged value for a broken picture", function()
        for value, why in pairs {
            [""] = "no file name", ["a\0.png"] = "a zero byte", ["data:image/png,abc"] = "no base64",
            ["data:;base64,a"] = "no base64", ["data:;base64,?%"] = "no base64", [{}] = "neither path nor url",
            [{ base64 = "a b?" }] = "should be base64", [{ bytes = json.null, path = json.null }] = "neither path",
        } do
            local source = sources.of(value, "folder", "row 1")
            helpers.fails("data", "^an image.*" .. why, sources.here, source)
        end
    end)

    it("knows paths, bytes, base64 and URLs", function()
        local function of(value)
            return sources.of(value, "folder", "row 1")
        end
        assert.same({ path = "folder/a.png" }, of "a.png")
        assert.same({ path = "/a.png" }, of "/a.png")
        assert.same({ url = "https://host/a.png" }, of "https://host/a.png")
        assert.same({ data = "PNG!", name = "an embedded picture" }, of "data:image/png;base64,UE5HIQ==")
        assert.same({ data = "PNG", name = "a.png" }, of { bytes = "PNG", path = "a.png" })
        assert.same({ path = "folder/a.png" }, of { bytes = json.null, path = "a.png" })
        for _, bad in ipairs { json.null, json.array { 1 }, { bytes = 3 }, { base64 = 3 }, { path = 3 }, 7, true } do
            helpers.fails("data", "^row 1: ", of, bad)
        end
    end)
end)
