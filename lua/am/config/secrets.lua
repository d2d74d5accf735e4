-- Which keys hold secrets, for everything that prints a configuration or a value of it.
-- Holds no printing. Booleans (`use_auth: true`) and null are shown.

local strings = require("am.utils.strings")

local M = {}

M.REDACTED = "<redacted>"

local secret_words = {
    password = true, passwd = true, passphrase = true, secret = true, secrets = true, apikey = true,
    authorization = true, auth = true, credential = true, credentials = true,
}
-- `hf_token` is a secret, `pad_token` is vocabulary: what stands before the word decides.
local vocabulary = {}
for word in ([[bos eos pad unk sep cls mask turn response image audio video vision start end stop special num max
    min new first last next prev label boi eoi newline placeholder]]):gmatch("%S+") do
    vocabulary[word] = true
end
local secret_keys = { api = true, access = true, private = true, wandb = true, account = true, ssh = true }

local function words_of(key)
    key = key:gsub("(%l)(%u)", "%1_%2"):lower()
    local words = {}
    for word in key:gmatch("[%a%d]+") do
        words[#words + 1] = word
    end
    return words
end

--- True when text under `key` (the last part of a path) should not be shown.
function M.is_secret_key(key)
    if type(key) ~= "string" then
        return false
    end
    local words = words_of(key)
    for i, word in ipairs(words) do
        if secret_words[word] or (word == "key" and secret_keys[words[i - 1]]) then
            return true
        end
    end
    return words[#words] == "token" and not vocabulary[words[#words - 1]]
end

--- The text with what is surely a secret replaced: tokens of known form, users and passwords in URLs.
function M.redact_text(text)
    return (strings.redact_urls(text):gsub("%f[%w]hf_%w%w%w%w%w%w%w%w%w%w+", M.REDACTED))
end

-- The leaf's own key or one above it: `auth: {name: x}` hides x.
local function under_secret_key(node)
    while node do
        if M.is_secret_key(node.key) then
            return true
        end
        node = node.parent
    end
    return false
end

--- What to show of a leaf: its template when it came from the environment, "<redacted>" for text and numbers
--- under a secret key (also for what a template has there for a variable that is not set), else its value.
function M.shown(node)
    local secret = under_secret_key(node)
    if node.template then
        local text = secret and node.template:gsub("(%${[^{},]*,)[^{}]*}", "%1" .. M.REDACTED .. "}") or node.template
        return M.redact_text(text)
    elseif secret and (type(node.value) == "number" or (type(node.value) == "string" and node.value ~= "")) then
        return M.REDACTED
    end
    return type(node.value) == "string" and M.redact_text(node.value) or node.value
end

return M
