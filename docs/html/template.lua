-- What every HTML page has around its text: head, style, navigation, search. Nothing is fetched from elsewhere.

local escape = dofile("docs/html/markdown.lua").escape

local M = {}

M.style = [[
:root { color-scheme: light dark; --text: #1c2024; --back: #fff; --soft: #f3f4f6; --line: #d9dce1; --link: #0b57d0;
        --faint: #626a73; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e3e5e8; --back: #16181b; --soft: #212529; --line: #363b41; --link: #8ab4f8; --faint: #9aa3ad; }
}
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.55 system-ui, sans-serif; color: var(--text); background: var(--back); display: flex; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
nav { width: 15rem; flex: none; height: 100vh; overflow-y: auto; position: sticky; top: 0; padding: 1rem;
      background: var(--soft); border-right: 1px solid var(--line); font-size: .9rem; }
nav h2 { font-size: .75rem; text-transform: uppercase; color: var(--faint); margin: 1.1rem 0 .2rem; border: 0; }
nav ul { list-style: none; margin: 0; padding: 0; }
nav a { display: block; padding: .1rem .4rem; border-radius: 4px; }
nav a[aria-current] { background: var(--line); color: var(--text); font-weight: 600; }
main { flex: 1; min-width: 0; max-width: 56rem; padding: 1.5rem 2.5rem 4rem; }
h1, h2, h3, h4 { line-height: 1.25; margin: 1.8em 0 .5em; overflow-wrap: anywhere; }
h1 { margin-top: 0; }
h2 { border-bottom: 1px solid var(--line); padding-bottom: .2em; }
h3 { font-size: 1.05rem; }
.anchor { visibility: hidden; font-weight: 400; }
:is(h1, h2, h3, h4):hover .anchor { visibility: visible; }
code, pre { font-family: ui-monospace, monospace; font-size: .875em; }
code { background: var(--soft); padding: .1em .3em; border-radius: 4px; overflow-wrap: anywhere; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem;
      overflow-x: auto; }
pre code { background: none; padding: 0; overflow-wrap: normal; font-size: inherit; }
.table { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; }
th, td { border: 1px solid var(--line); padding: .35rem .6rem; text-align: left; vertical-align: top; }
th { background: var(--soft); }
th code, td code { overflow-wrap: break-word; }
#search { width: 100%; padding: .4rem .6rem; font: inherit; color: inherit; background: var(--back);
          border: 1px solid var(--line); border-radius: 6px; }
#found { font-size: .85rem; }
#found a { padding: .3rem .4rem; }
#found small { display: block; color: var(--faint); }
@media (max-width: 50rem) {
  body { display: block; }
  nav { width: auto; height: auto; position: static; border-right: 0; border-bottom: 1px solid var(--line); }
  nav .pages { max-height: 8rem; overflow-y: auto; }
  main { padding: 1rem; }
}
@media print { nav, .anchor { display: none; } }
]]

-- INDEX: an array of [page's file, page's title, heading's id, heading, text].
M.script = [==[
(function () {
  "use strict";
  var box = document.getElementById("search"), list = document.getElementById("found");
  var pages = document.getElementById("pages"), root = document.body.dataset.root;
  function score(entry, words) {
    var sum = 0, heading = entry[3].toLowerCase(), title = entry[1].toLowerCase(), text = entry[4].toLowerCase();
    for (var i = 0; i < words.length; i++) {
      var w = words[i], exact = heading === w || heading.startsWith(w + "(");
      var s = exact ? 40 : heading.includes(w) ? 10 : title.includes(w) ? 4 : text.includes(w) ? 1 : 0;
      if (s === 0) return 0;
      sum += s;
    }
    return sum;
  }
  function excerpt(text, word) {
    var at = text.toLowerCase().indexOf(word), from = Math.max(0, at - 40);
    return (from > 0 ? "…" : "") + text.slice(from, from + 120) + (from + 120 < text.length ? "…" : "");
  }
  function search() {
    var words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    list.textContent = "";
    pages.hidden = words.length > 0;
    if (words.length === 0) return;
    var found = [];
    INDEX.forEach(function (entry, i) {
      var s = score(entry, words);
      if (s > 0) found.push([s, i]);
    });
    found.sort(function (a, b) { return b[0] - a[0] || a[1] - b[1]; });
    found.slice(0, 30).forEach(function (hit) {
      var entry = INDEX[hit[1]], item = document.createElement("li"), link = document.createElement("a");
      link.href = root + entry[0] + (entry[2] ? "#" + entry[2] : "");
      link.textContent = entry[3];
      var about = document.createElement("small");
      about.textContent = entry[1] + ": " + excerpt(entry[4], words[0]);
      link.appendChild(about);
      item.appendChild(link);
      list.appendChild(item);
    });
    if (found.length === 0) list.textContent = "Nothing found.";
  }
  box.addEventListener("input", search);
  document.addEventListener("keydown", function (e) {
    if (e.key === "/" && document.activeElement !== box) { e.preventDefault(); box.focus(); }
    if (e.key === "Escape") { box.value = ""; search(); }
  });
})();
]==]

-- The navigation: groups { title, pages = { { file, title } } }, the current page marked.
local function navigation(groups, current, root)
    local out = {}
    for _, group in ipairs(groups) do
        out[#out + 1] = "<h2>" .. escape(group.title) .. "</h2>\n<ul>"
        for _, page in ipairs(group.pages) do
            out[#out + 1] = ('<li><a href="%s"%s>%s</a></li>'):format(escape(root .. page.file),
                page.file == current and ' aria-current="page"' or "", escape(page.title))
        end
        out[#out + 1] = "</ul>"
    end
    return table.concat(out, "\n")
end

--- A whole page. file: its name below the output folder; body: HTML.
function M.page(groups, file, title, body)
    local root = ("../"):rep(select(2, file:gsub("/", "")))
    return table.concat({
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<title>" .. escape(title) .. " - amlua</title>",
        ('<link rel="stylesheet" href="%sstyle.css">'):format(root),
        ('</head>\n<body data-root="%s">\n<nav>'):format(root),
        '<input id="search" type="search" placeholder="Search ( / )" aria-label="Search">',
        '<ul id="found"></ul>\n<div id="pages" class="pages">',
        navigation(groups, file, root),
        "</div>\n</nav>\n<main>",
        body,
        "</main>",
        ('<script src="%sindex.js"></script>\n<script src="%ssearch.js"></script>'):format(root, root),
        "</body>\n</html>\n",
    }, "\n")
end

return M
