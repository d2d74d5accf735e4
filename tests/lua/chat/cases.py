"""The templates and conversations that make_goldens.py renders: one line for each piece of the language."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather <now> & then, in \"quotes\" é",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "City's name"},
                "days": {"type": "integer", "enum": [1, 2], "default": 1},
            },
            "required": ["city"],
        },
    },
}

CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2}}}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


CONVERSATIONS = {
    "single": {"messages": [user("Hello there!")]},
    "single, prompt": {"messages": [user("  Grüß Gott\n ")], "add_generation_prompt": True},
    "several turns": {"messages": [user("Hi"), assistant(" Hello. "), user("1 < 2 & 'x'?"), assistant("yes\n\nno")]},
    "system": {
        "messages": [{"role": "system", "content": "Be brief. "}, user("Hi"), assistant("Hello"), user("Q")],
        "add_generation_prompt": True,
    },
    "tools": {
        "messages": [{"role": "system", "content": "sys"}, user("Weather?")],
        "tools": [WEATHER],
        "add_generation_prompt": True,
    },
    "tool call": {
        "messages": [
            user("Weather?"),
            assistant(None, tool_calls=[CALL]),
            {"role": "tool", "content": {"t": 21.5}},
            assistant("21."),
        ],
        "tools": [WEATHER],
    },
    "tool call, tools in system": {
        "messages": [{"role": "system", "content": "s"}, user("W?"), assistant("", tool_calls=[CALL])],
        "tools": [WEATHER],
        "tools_in_user_message": False,
    },
    "calls and reasoning": {
        "messages": [
            user("Weather?"),
            assistant("", reasoning_content="I ask.\nNow.", tool_calls=[CALL]),
            {"role": "tool", "name": "get_weather", "content": "21.5"},
            assistant("<think>\nSo.\n</think>\n\n21."),
            user("Thanks"),
            assistant("Welcome.", reasoning_content="Polite."),
        ],
        "tools": [WEATHER],
    },
    "parts": {
        "messages": [
            user([{"type": "text", "text": "What"}, {"type": "image"}]),
            assistant([{"type": "text", "text": "A cat."}]),
            user([{"type": "text", "text": "Sure?"}]),
            assistant([{"type": "text", "text": "Yes."}]),
        ]
    },
    "continued": {"messages": [user("Hi"), assistant(" Once upon ")], "continue_final_message": True},
    "empty": {"messages": []},
    "empty, prompt": {"messages": [], "add_generation_prompt": True},
}

DEFAULT_VARS = {
    "messages": [],
    "s": "Hello World",
    "u": "Ünïcödé ß 日本語 😀",
    "words": ["beta", "Alpha", "gamma", "alpha"],
    "numbers": [3, 1, 2],
    "d": {"b": 1, "a": [1, 2.5, None, True], "c": {"x": "y"}, "items": "shadowed"},
    "people": [
        {"name": "Ann", "age": 30, "tags": ["x"]},
        {"name": "bob", "age": 25, "tags": []},
        {"name": "Cid", "age": 30},
    ],
    "text": "line one\n  line two\n\nline four\n",
    "html": "<b>\"A\" & 'B'</b>",
    "n": 7,
    "f": 2.5,
    "none_value": None,
    "yes": True,
    "no": False,
}

EXPRESSIONS = [
    # literals and how they print
    "1", "-1", "+1", "1.0", "1e3", "1.5e-7", "1e16", "123456789012345680.0", "0.1 + 0.2", "1_000", "0x1F", "0b101", "0o17",
    "true", "True", "none", "None", "false", "'a' 'b'", "\"it's\"", "['it\\'s', \"q\\\"q\"]", "'\\n\\t\\x41\\u00e9\\\\'|length",
    "['\\n', '\\x00', 'é', '\\u200b', '😀', '\\\\']", "'\\q\\101'", "[]", "()", "(1,)", "(1, 2)", "1, 2", "{}", "{'a': 1, 2: 'b', none: true}",
    "[1, 'a', [2.0, (3,)], {'k': none}]", "{'a': 1,}", "[1, 2,]", "{1: 'int', true: 'bool', 1.0: 'float'}", "3.0e0", "1e100", "5e-324",
    # arithmetic
    "1 + 2 * 3", "(1 + 2) * 3", "7 / 2", "7 // 2", "-7 // 2", "7 % 3", "-7 % 3", "7.5 % 2", "2 ** 10", "2 ** -1", "2 ** 3 ** 2", "-2 ** 2",
    "10 / 5", "7 // 2.0", "true + 1", "'ab' * 3", "3 * 'ab'", "[1] * 2", "[1] + [2]", "(1,) + (2,)", "'a' + 'b'", "1 - -1", "0 * -1", "-0.0",
    "1 / 0", "1 % 0", "'a' + 1", "1 + 'a'", "[1] + (2,)", "none + 1", "'a' - 'b'", "'%s is %d' % ('x', 3)", "'%05.2f|%-5s|%+d|%x' % (3.14159, 'ab', 5, 255)",
    "'%(a)s-%(b)03d' % {'a': 'x', 'b': 7}", "'100%%' % ()", "'%s' % 'x'", "'%r' % 'x'", "'%s %s' % ('x',)", "'%s' % (1, 2)",
    # comparison, logic, membership
    "1 < 2 < 3", "1 < 3 < 2", "1 == 1.0", "1 == true", "'a' == 'a'", "[1, 2] == [1, 2]", "{'a': 1} == {'a': 1.0}", "(1,) == [1]", "none == false",
    "'a' < 'b'", "'Z' < 'a'", "[1, 2] < [1, 3]", "1 < 'a'", "2 >= 2", "1 != 2", "not true", "not not 0", "1 and 2", "0 and 2", "0 or 'x'", "'' or none",
    "not 1 == 2", "1 in [1, 2]", "3 not in [1, 2]", "'ell' in s", "'b' in d", "1 in 'abc'", "1 in 5", "none in [none]", "not 1 in [1]",
    "true and not false or false", "1 if true else 2", "1 if false else 2", "1 if false", "(1 if no else 2) + 1", "1 if no else 2 if no else 3",
    "s is string and n is number", "1 + 1 == 2 and 'x' ~ 1 == 'x1'",
    # concatenation
    "'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'x']", "s ~ undefined_thing ~ '!'", "1 ~ 2 + 3", "1 + 2 ~ 3",
    # undefined
    "nothing", "nothing.attribute", "nothing['x']", "nothing + 1", "nothing == nothing", "d.missing", "d.missing.deeper", "nothing()", "nothing|length",
    "nothing is defined", "d.b is defined", "nothing|default('dflt')", "''|default('e')", "''|default('e', true)", "none|d('x')", "none|d('x', boolean=true)",
    "nothing or 'alt'", "[nothing]", "nothing|tojson", "nothing|upper ~ '.'", "nothing|join('x')", "nothing in [1]", "1 in nothing", "-nothing", "nothing < 1",
    "none.x", "none['x']", "(none).x.y", "1.x is defined", "nothing|list", "nothing|first is defined", "nothing|string ~ '|'", "nothing ~ nothing",
    # subscripts, slices, attributes
    "s[0]", "s[-1]", "s[100]", "s[1:4]", "s[::-1]", "s[-3:]", "s[:-3]", "s[::2]", "s[4:1]", "s[4:1:-1]", "s[-100:100]", "u[1:4]", "u[-1]", "u[::-1]",
    "numbers[0]", "numbers[-1]", "numbers[1:]", "numbers[:2]", "numbers[::-1]", "numbers[5]", "numbers.0", "numbers['0']", "numbers[true]", "numbers[1.0]",
    "(1, 2, 3)[1:]", "numbers[::0]", "none_value[1:]", "n[0]", "n[1:]", "nothing[1:]", "numbers['x':]", "numbers[none:none]", "range(10)[2:5]", "d['a'][1]", "d.a[3]",
    "d['b']", "d.items is string", "d['items']", "d.c.x", "d['c']['x']", "people[0].name", "people[0]['tags'][0]", "people[2].tags", "{(1, 2): 'tuple'}[(1, 2)]", "{(1, 2): 'tuple'}[1, 2]",
    "s.upper", "s['upper']()", "s.__class__", "d.__class__", "d['__class__']", "s.__class__.__mro__", "[].append", "[].append(1)", "d.pop('b')", "d.update({})", "numbers.sort()",
    # methods of str
    "'  x '.strip() ~ '|'", "'xxaxx'.strip('x')", "'xyaxy'.lstrip('yx')", "'xya'.rstrip('a')", "'\\u00a0 x\\u3000'.strip()", "'a,b,,c'.split(',')", "' a  b c '.split()",
    "'a b c'.split(' ', 1)", "'a b c d'.split(none, 2)", "'a.b.c'.rsplit('.', 1)", "'a b  c'.rsplit(none, 1)", "'aaa'.rsplit('aa', 1)", "''.split()", "''.split(',')", "'a'.split('')",
    "text.splitlines()", "text.splitlines(true)", "'a\\r\\nb\\rc'.splitlines()", "s.upper()", "s.lower()", "s.title()", "'hELLO wORLD'.capitalize()", "s.swapcase()", "u.upper()", "u.lower()",
    "'they\\'re bill\\'s'.title()", "s.startswith('Hell')", "s.startswith(('x', 'H'))", "s.endswith('ld')", "s.endswith('')", "s.startswith('W', 6)", "s.find('o')", "s.find('o', 5)", "s.find('z')",
    "s.rfind('o')", "s.index('W')", "s.index('z')", "u.find('日')", "s.count('l')", "'aaaa'.count('aa')", "s.count('')", "s.replace('l', 'L')", "s.replace('l', 'L', 1)", "'ab'.replace('', '-')",
    "'-'.join(words)", "','.join([1])", "''.join(['a', 'b'])", "'ab'.center(7, '*')", "'abc'.center(6)", "'ab'.ljust(4) ~ '|'", "'ab'.rjust(4, '.')", "'-5'.zfill(4)", "'12'.isdigit()", "'1a'.isalnum()",
    "'ab'.isalpha()", "u.isalpha()", "' '.isspace()", "''.isspace()", "'A1'.isupper()", "'a1'.islower()", "'12'.isupper()", "'a-b-c'.partition('-')", "'a-b-c'.rpartition('-')", "'abc'.partition('x')",
    "'prefix-x'.removeprefix('prefix-')", "'x.py'.removesuffix('.py')", "'a\\tb'.expandtabs(4)", "'{} {1}'.format(1, 2)", "'{} and {}'.format('a', 'b')", "'{0}-{1}-{0}'.format('a', 'b')", "'{name}!'.format(name='x')",
    "'{:>5}|{:<5}|{:^5}|{:05d}|{:.2f}|{:,}'.format('a', 'b', 'c', 42, 3.14159, 1234567)", "'{0[a]} {1.b}'.format({'a': 1}, {'b': 2})", "'{{}}'.format()", "'{}'.format()", "'{0.__class__}'.format(1)",
    "'{!r}'.format('x')", "'{:%}'.format(0.25)", "'{:x} {:#x} {:b}'.format(255, 255, 5)", "'{:e} {:g}'.format(12345.678, 0.00001)", "s.nosuch()", "s.nosuch is defined", "'Title Case'.istitle()", "'x'.upper(1)",
    # methods of dict and list
    "d.get('b')", "d.get('zz')", "d.get('zz', 5)", "d.keys()", "d.keys()|list", "d.values()|list", "d['c'].items()", "d['c'].items()|list", "{'x': 1}.items()", "d['c'].items()[0] is defined", "d.get()",
    "numbers.index(1)", "numbers.index(9)", "numbers.count(3)", "numbers.copy()", "d['c'].copy()", "(1, 2, 1).count(1)", "dict(a=1, b=2)", "dict({'a': 1}, b=2)", "dict([('a', 1)])", "dict()", "d.copy() == d", "{**d} is defined",
    # filters on text
    "s|upper", "s|lower", "'hELLO'|capitalize", "'hello-world (foo) bar'|title", "'  x '|trim ~ '|'", "'xxyxx'|trim('x')", "s|length", "u|length", "s|replace('o', '0')", "s|replace('o', '0', 1)", "12|replace(1, 3)", "s|reverse", "u|reverse", "s|list",
    "s|first", "s|last", "text|indent", "text|indent(2, true)", "text|indent(2, first=true, blank=true)", "text|indent('> ')", "none|indent", "'foo bar baz qux'|truncate(9)", "'foo bar baz qux'|truncate(9, true)", "'foo bar baz qux'|truncate(11, leeway=0)",
    "'foo bar'|truncate(2)", "'a b  c-d'|wordcount", "u|wordcount", "d|truncate(5)", "(html * 9)|truncate(5)", "nothing|int", "nothing|float", "u.casefold()", "'' % [1]", "'%s' % [1]", "'x' % 1", "'x' % d", "'%(b)s' % d", "'%(no)s' % {'no': false}", "'x'|center(5) ~ '|'", "'%s, %s!'|format('a', 'b')", "'%(x)s'|format(x=1)", "html|e", "html|escape|upper", "html|safe", "html|safe|upper", "(html|safe) + '<'", "'<' + (html|safe)", "(html|safe) ~ '<'", "html|e|e",
    "html|forceescape", "(html|safe).split('&')", "(html|safe).replace('A', '<')", "(html|safe)[:3] + '<'", "('<%s>'|safe) % 'x'", "(html|safe) is string", "(html|safe) is escaped", "[html|safe]", "(html|safe)|tojson", "(html|safe)|length", "(html|safe)|string is escaped",
    "('a'|safe) == 'a'", "{'a': 1}['a'|safe]", "((['a']|tojson)|safe) + '<x>'", "'a b&c/d'|urlencode", "{'a': 'x y', 'b': 1}|urlencode", "u|upper", "u|title", "1|string + '2'", "none|string", "none|upper", "none|trim", "1.0|string",
    # filters on numbers
    "-3|abs", "-2.5|abs", "'3'|int", "'3.9'|int", "'x'|int", "'x'|int(5)", "'ff'|int(base=16)", "'0x1f'|int(0, 16)", "3.9|int", "-3.9|int", "none|int", "true|int", "'1_0'|int", "' 12 '|int", "'1.5'|float", "'x'|float", "'x'|float(1.5)", "3|float", "'1e3'|float",
    "2.567|round", "2.567|round(2)", "2.5|round", "3.5|round", "2.1|round(0, 'ceil')", "2.9|round(method='floor')", "3|round", "1234|round(-2)", "2.675|round(2)", "0.125|round(2)", "0.375|round(2)", "2.5|round(0)", "0.5|round", "-2.5|round", "'%.0f %.1f' % (2.5, 0.25)", "'{:.0f}'.format(3.5)", "25|round(-1)", "1000|filesizeformat", "1|filesizeformat", "123456789|filesizeformat", "1024|filesizeformat(true)", "'inf'|float", "'nan'|float",
    # filters on sequences
    "numbers|length", "numbers|count", "d|length", "n|length", "none|length", "numbers|first", "numbers|last", "[]|first", "[]|first is defined", "[]|last", "numbers|sort", "numbers|sort(reverse=true)", "words|sort", "words|sort(case_sensitive=true)", "people|sort(attribute='name')|map(attribute='name')|list",
    "people|sort(attribute='age,name')|map(attribute='name')|join(',')", "people|sort(attribute='age', reverse=true)|map(attribute='name')|join(',')", "[1, 'a']|sort", "d['c']|dictsort", "{'b': 1, 'A': 2}|dictsort", "{'b': 1, 'A': 2}|dictsort(true)", "{'b': 1, 'A': 2}|dictsort(by='value')", "{'b': 1, 'A': 2}|dictsort(reverse=true)",
    "words|unique|list", "words|unique(true)|list", "numbers|min", "numbers|max", "words|min", "people|max(attribute='age')", "[]|max is defined", "numbers|sum", "people|sum(attribute='age')", "numbers|sum(start=10)", "['a']|sum", "words|join(', ')", "numbers|join", "people|join('/', attribute='name')", "[1, none, true, 1.5]|join('|')",
    "numbers|reverse|list", "numbers|reverse", "d|list", "d['c']|items|list", "nothing|items|list", "numbers|items|list", "'abc'|list", "7|list", "range(5)|batch(2)|list", "range(5)|batch(2, 'x')|list", "range(7)|slice(3)|list", "range(7)|slice(3, 'x')|list",
    "people|groupby('age')", "people|groupby('age')|map(attribute='grouper')|list", "(people|groupby('age'))[0].list|length", "people|groupby('age')|map('first')|list", "words|map('upper')|list", "words|map('length')|join", "words|map('replace', 'a', 'A')|join(' ')", "people|map(attribute='tags', default='none')|list", "people|map(attribute='tags.0')|list", "words|map|list", "words|map('nosuch')|list",
    "numbers|select('odd')|list", "numbers|reject('odd')|list", "[0, 1, '', 'x']|select|list", "numbers|select('gt', 1)|list", "numbers|select('==', 2)|list", "people|selectattr('tags')|map(attribute='name')|list", "people|selectattr('age', 'equalto', 30)|list|length", "people|rejectattr('tags', 'defined')|map(attribute='name')|list", "people|selectattr('name', 'in', ['Ann', 'Cid'])|map(attribute='name')|list",
    "(numbers|select('odd')) is iterable", "(numbers|map('abs'))|length", "true if []|select else false", "(numbers|map('abs'))[0] is defined", "d|attr('b')", "s|attr('upper') is defined", "s|nosuchfilter", "numbers|first|string|upper", "[3, [1, 2]]|last|first", "{'a': 1}|first", "range(3)|last", "(range(3)|select)|last",
    # tojson
    "d|tojson", "d|tojson(indent=2)", "d|tojson(indent=0)", "[]|tojson(indent=2)", "[[], {}]|tojson(indent=1)", "u|tojson", "u|tojson(ensure_ascii=true)", "html|tojson", "'\\x00\\x1f\\x7f\"\\\\/'|tojson", "(1, 2)|tojson", "1.0|tojson", "1e20|tojson", "{1: 2, none: 3, true: 4, 1.5: 5}|tojson", "d|tojson(sort_keys=true)", "d|tojson(separators=(',', ':'))", "{(1, 2): 3}|tojson", "range(3)|tojson", "'nan'|float|tojson", "none|tojson", "d|tojson(indent='--')",
    # tests
    "1 is odd", "2 is even", "9 is divisibleby 3", "9 is divisibleby(2)", "1 is integer", "true is integer", "1.0 is float", "1 is float", "true is number", "'1' is number", "none is none", "0 is none", "true is true", "1 is true", "false is false", "true is boolean", "d is mapping", "[] is mapping", "[] is sequence", "s is sequence", "d is sequence",
    "1 is sequence", "[] is iterable", "s is iterable", "1 is iterable", "none is iterable", "nothing is iterable", "nothing is sequence", "nothing is undefined", "s is not none", "s is not defined", "'abc' is lower", "'ABC' is upper", "'aBc' is lower", "1 is eq 1", "1 is ne(2)", "2 is gt 1", "1 is lt 1", "1 is in [1]", "1 is not in [1]", "'a' is in 'abc'",
    "1 is sameas 1", "none is sameas none", "1 is sameas true", "range is callable", "s is callable", "'upper' is filter", "'nope' is filter", "'odd' is test", "1 is nosuch", "s is string", "none is string", "'odd' is odd", "1 is odd and 2 is even or nothing.x", "n is divisibleby 7 and true", "d.keys() is sequence", "d.keys() is iterable", "none is mapping", "not s is string", "s is string is true",
    # functions
    "10 // 0.1", "10 % 0.1", "-7 // 2.0", "1e16 // -3", "z // -1.5", "7 % -3.5", "-7 % 2.5", "1e16 is divisibleby 3", "(-1)|round(-1)",
    "(2.0 / -1)|round(method='ceil')", "0.2|round(method='ceil')", "'%-4s|' % missing", "'%d' % missing", "'%s' % [1, 2]", "'%c' % 'ab'", "'%c' % 1114112",
    "'{:>8}'.format([1])", "'{:+}'.format('a')", "'{:,}'.format('a')", "'{:05}'.format('a')", "'{:>5}'.format(true)", "'{:>5}'.format(none)",
    "range(5).count(2)", "range(5).index(2)", "[1] is filter", "'upper' is filter", "'ß'.title()", "'ß'|capitalize", "'aXbXc'.rsplit('X', 1)", "' a  b c '.split(none, 1)", "' a  b c '.rsplit(none, 1)", "' a '.split(none, 0)", "' a '.rsplit(none, 0)", "'a '.split(none, 1)",
    "'XaX'.rsplit('X')", "'a b  c'.rfind(' ')", "'éaé'.strip('é')", "'xéx'.strip('x')", "'a\\r\\nb\\u2028c\\x85d'.splitlines(true)", "'é\\u00c2'.splitlines()",
    "'héllo'[1:]", "'hello'[-3:]", "'hello'[3:1]", "1|nofilter", "1 is notest", "1|nofilter if no else 2",
    "range(3)", "range(3)|list", "range(1, 7, 2)|list", "range(5, 0, -2)|list", "range(1000000)|list", "range('a')", "range(1, 4)", "range()", "namespace(a=1).a", "namespace({'a': 2}, b=3)", "namespace().x", "namespace(_x=1)", "raise_exception('custom message')", "cycler('a', 'b').next()", "strftime_now('%Y') is string", "strftime_now('!%H')[0]",
    # precedence and oddities
    "-1|abs", "(-1)|abs", "-s|length", "2 * 3|string", "'a' ~ 'b'|upper", "not nothing is defined", "s.split(' ')[1][0]|lower", "s|upper|lower|title", "[1, 2, 3][0] + 1", "{'a': {'b': [10, 20]}}.a.b[1]", "'x' if s is defined and s|length > 3 else 'y'", "(s|length) > 5", "s|length > 5", "[s, n][n > 3]", "'%d' % n|abs", "words|sort|first ~ '!'", "s.replace('l', 'L').split('L')|length",
]

STATEMENTS = [
    # if
    "{% if n %}a{% endif %}", "{% if no %}a{% elif n == 7 %}b{% else %}c{% endif %}", "{% if no %}a{% elif no %}b{% else %}c{% endif %}", "{% if no %}a{% endif %}", "{% if (1, 2) %}t{% endif %}", "{% if [] %}x{% else %}empty{% endif %}", "{% if nothing %}x{% else %}undef{% endif %}",
    # for
    "{% for x in numbers %}{{ x }},{% endfor %}", "{% for x in [] %}x{% else %}none{% endfor %}", "{% for x in numbers if x > 1 %}{{ loop.index }}:{{ x }} {% endfor %}", "{% for x in numbers if x > 5 %}x{% else %}none{% endfor %}", "{% for k, v in d.c.items() %}{{ k }}={{ v }}{% endfor %}", "{% for k in d %}{{ k }} {% endfor %}", "{% for c in 'añ😀' %}[{{ c }}]{% endfor %}", "{% for a, b in [(1, 2), [3, 4]] %}{{ a }}-{{ b }} {% endfor %}", "{% for a, b in [(1, 2, 3)] %}x{% endfor %}",
    "{% for x in numbers %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}", "{% for x in numbers %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}", "{% for x in numbers %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }} {% endfor %}", "{% for x in [false, false] %}{{ loop.nextitem }} {% endfor %}",
    "{% for x in numbers %}{{ loop.cycle('odd', 'even') }} {% endfor %}", "{% for x in [1, 1, 2] %}{{ loop.changed(x) }} {% endfor %}", "{% for x in numbers %}{% for y in numbers %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}", "{% for x in numbers %}{% set outer = loop %}{% for y in [1] %}{{ outer.index }}{% endfor %}{% endfor %}", "{% for x in numbers recursive %}{{ x }}{% if loop.depth < 3 %}({{ loop([x + 1]) }}){% endif %}{% endfor %}",
    "{% for p in people recursive %}{{ p.name }}{% endfor %}", "{% for x in numbers %}{{ loop([1]) }}{% endfor %}", "{% for x in none %}x{% endfor %}", "{% for x in nothing %}x{% else %}undef{% endfor %}", "{% for x in 5 %}x{% endfor %}", "{{ loop }}", "{% for x in numbers %}{% endfor %}{{ x }}", "{% for x in 1, 2 %}{{ x }}{% endfor %}", "{% for x in range(3) if x is odd %}{{ x }}{% endfor %}", "{% for x in numbers %}{{ loop.nosuch }}{% endfor %}", "{% for x in (numbers|map('string')) %}{{ x ~ loop.last }}{% endfor %}",
    "{% for g in people|groupby('age') %}{{ g.grouper }}:{{ g.list|length }} {% endfor %}", "{% for age, group in people|groupby('age') %}{{ age }}:{{ group|map(attribute='name')|join(',') }} {% endfor %}", "{% for x in {'a': 1}.values() %}{{ x }}{% endfor %}",
    # break and continue
    "{% for x in range(10) %}{% if x == 3 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in range(5) %}{% if x is odd %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in range(3) %}{% for y in range(3) %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}", "{% break %}", "{% for x in [1] %}{% break %}{% else %}else{% endfor %}", "{% for x in [1, 2] %}{% continue %}{% else %}else{% endfor %}", "{% for x in [1, 2] %}{% if x == 2 %}{% break %}{% endif %}{% else %}else{% endfor %}", "{% for x in [1, 2] %}{% with %}{% break %}{% endwith %}{% endfor %}done",
    # set and scopes
    "{% set a = 1 %}{{ a }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a = 1, 2 %}{{ a }}", "{% set (a, b) = (1, 2) %}{{ a }}", "{% set a, b = [1] %}", "{% set a = 1 %}{% for x in [1] %}{% set a = 2 %}{{ a }}{% endfor %}{{ a }}", "{% set a = 1 %}{% if yes %}{% set a = 2 %}{% endif %}{{ a }}", "{% set a = 0 %}{% for x in [1, 2] %}{{ a }}{% set a = a + x %}{{ a }} {% endfor %}", "{% if yes %}{% set inside = 1 %}{% endif %}{{ inside }}", "{% set s = s ~ '!' %}{{ s }}", "{% for s in [1] %}{{ s }}{% endfor %}{{ s }}",
    "{% set a %}x{{ n }}y{% endset %}{{ a }}", "{% set a | upper | replace('X', 'z') %}x{{ n }}y{% endset %}{{ a }}", "{% set a %}{% set b = 1 %}{% endset %}{{ b is defined }}", "{% set 1 = 2 %}", "{% set none = 2 %}", "{% set a.b = 1 %}", "{% set nothing.x = 1 %}", "{% set d.x = 1 %}",
    "{% set ns = namespace(found=false, n=0) %}{% for x in numbers %}{% set ns.found = true %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.found }}{{ ns.n }}{{ ns.zz }}", "{% set ns = namespace() %}{% set ns.x = [1] %}{% set ns.x = ns.x + [2] %}{{ ns.x }} {{ ns }}", "{% set ns = namespace() %}{% set ns._x = 1 %}", "{% set ns = namespace(a=1) %}{% set ns.a, b = 5, 6 %}{{ ns.a }}{{ b }}", "{% set ns = namespace() %}{% set ns.t %}body{% endset %}{{ ns.t }}", "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}", "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}",
    # macros and call
    "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c='z') }} {{ m(b=1, a=0) }}", "{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m() }}", "{% macro m(a) %}{{ a.b }}{% endmacro %}{{ m() }}", "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}", "{% macro m() %}x{% endmacro %}{{ m(1) }}", "{% macro m() %}x{% endmacro %}{{ m(a=1) }}", "{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(5) }}", "{% macro m(f=false) %}{{ f }}{% endmacro %}{{ m() }}",
    "{% macro m(x) %}{% if x > 0 %}{{ x }}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(3) }}", "{% set g = 1 %}{% macro m() %}{{ g }}{% endmacro %}{% set g = 2 %}{{ m() }}", "{% macro m() %}{% set q = 1 %}{% endmacro %}{{ m() }}{{ q is defined }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m }} {{ m.name }} {{ m.arguments }}", "{% macro m() %} x {% endmacro %}{{ m()|trim|upper }}", "{{ m() }}{% macro m() %}late{% endmacro %}", "{% macro m(a, b) %}{{ a }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}", "{% macro m(a=1, b) %}{% endmacro %}",
    "{% macro box() %}<{{ caller() }}>{% endmacro %}{% call box() %}in{{ n }}{% endcall %}", "{% macro each(xs) %}{% for x in xs %}{{ caller(x) }},{% endfor %}{% endmacro %}{% call(v) each(numbers) %}{{ v * 2 }}{% endcall %}", "{% macro box() %}x{% endmacro %}{% call box() %}y{% endcall %}", "{% macro box() %}{{ caller is defined }}{% endmacro %}{{ box() }}", "{% macro box() %}{{ caller() }}{% endmacro %}{{ box() }}", "{% for x in numbers %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}", "{% call nothing() %}{% endcall %}", "{% call 1 %}{% endcall %}", "{% macro m() %}{% for x in [1] %}{% break %}{% endfor %}{% endmacro %}ok{{ m() }}",
    # filter blocks, print, raw, comments
    "{% filter upper %}a{{ s }}b{% endfilter %}", "{% filter replace('l', 'L') | trim %} {{ s }} {% endfilter %}", "{% print n, s %}", "{% raw %}{{ n }}{% if %}{% endraw %}", "{% raw -%}  x  {%- endraw %}|", "a {#- comment -#} b", "a {# {{ n }} {% if %} #} b", "{# open", "{% raw %}x", "{#-#}x", "a{##}b", "{{ '{{' }}{{ '}}' }}", "{{ '{%' }} %} }} #}", "{ { n } }", "{% raw %}\n{{ x }}\n{% endraw %}\nend",
    # whitespace
    "{% if yes %}\n  a\n{% endif %}\nb", "  {% if yes %}\n  a\n  {% endif %}\nb", "x  {% if yes %}  a  {% endif %}  b", "x \n {%- if yes %} a {%- endif %} b", "x {% if yes -%} \n a {% endif -%} \n b", "x\n  {%+ if yes %}a{% endif %}\n", "{% if yes +%}\na{% endif %}", "a {{- n -}} b", "a {{+ n }} b", "\n\na\n\n", "a\n", "a\r\nb\rc\n", "{% for x in numbers %}\n  {{ x }}\n{% endfor %}", "{% for x in numbers -%}\n  {{ x }}\n{%- endfor %}", "\t{% if yes %}a{% endif %}", "a\n\t {# c #}\n b", "{{ n }}\n{{ n }}\n", "{{ n -}}\n\n x", "{% set a = 1 %}  {% set b = 2 %}\n{{ a }}",
    "\u00a0{% if yes %}a{% endif %}", "x\u00a0{%- if yes %}a{% endif %}", "{% if yes %}{% endif %}\n\n{% if yes %}{% endif %}\nx", "  {{ n }}  ", "{%if yes%}a{%endif%}", "{%-if yes-%} a {%-endif-%}", "{{n}}{{-n}}{{n-1}}{{n -1}}", "{{ [1,{'a':{}}] }}", "{{{'a':1}.a}}", "{{ {'a': {'b': 1}} }}",
    # names that are not there, and loops that are left from within a block
    "{% if no %}{{ 1|nofilter }}{% endif %}ok", "{% if no %}{% for x in numbers %}{{ 1|nofilter }}{% endfor %}{% endif %}", "{% for x in numbers %}{% set q %}a{% if x == 1 %}{% continue %}{% endif %}{% endset %}{{ q }}{{ x }}{% endfor %}", "{% for x in numbers %}{% filter upper %}a{% if x == 1 %}{% break %}{% endif %}{% endfilter %}{{ x }}{% endfor %}", "{% for x in numbers %}{{ loop is iterable }}{% endfor %}", "{% set a = no %}{{ a.b.c }}", "{{ no.b + 'x' }}",
    # generation blocks
    "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}", "{% generation %}{% set q = 1 %}é{{ u }}{% endgeneration %}{{ q is defined }}", "a{% generation %}{% endgeneration %}b{% generation %}c{% endgeneration %}", "{% macro m() %}x{% generation %}y{% endgeneration %}{% endmacro %}ab{{ m() }}", "{% for x in [1] %}{% generation %}{% break %}{% endgeneration %}{% endfor %}", "{%- generation -%} x {%- endgeneration -%} y",
    # mistakes
    "{% if n %}", "{% endif %}", "{% for x in numbers %}{% endif %}", "{% nosuchtag %}", "{{ n", "{{ 'abc }}", "{{ }}", "{% %}", "{{ 1 + }}", "{{ (1 }}", "{{ [1 }}", "{{ 1) }}", "{{ a b }}", "{{ n | }}", "{{ n is }}", "{{ n. }}", "{{ n.'x' }}", "{{ $ }}", "{{ n ! }}", "{% set %}", "{% set a = %}", "{% for in x %}{% endfor %}", "{% for x %}{% endfor %}", "{{ f(a=1, 2) }}", "{{ f(a=1, a=2) }}", "{{ d[] }}", "{{ n = 1 }}", "{% if n %}{% else %}{% else %}{% endif %}", "{{ {'a' 1} }}", "{{ {[1]: 2} }}", "{% macro %}{% endmacro %}", "{% block b %}x{% endblock %}{% include 'x' %}", "{% if n % }x{% endif %}", "{{ '\\x4' }}", "{{ 08 }}", "{% endfor %}", "{{ n }}}", "{% raw %}{% endraw", "{%", "{{", "{#",
]

TURNS = {"messages": [user("q"), assistant("ä"), user("r"), assistant("")]}

REASONING = {
    "messages": [
        {"role": "assistant", "content": "a", "reasoning": "why"},
        {"role": "assistant", "content": "b", "thinking": "hm", "reasoning_content": None},
        {"role": "assistant", "content": "c"},
    ]
}

CASES = ["{{ " + expression + " }}" for expression in EXPRESSIONS]
CASES += [(statement, TURNS) if "generation" in statement else statement for statement in STATEMENTS]
CASES += [
    ("{% for m in messages %}{{ m }}\n{% endfor %}", REASONING),
    ("{{ tools }}{{ documents }}{{ add_generation_prompt }}{{ messages }}", {}),
    ("{{ tools is defined }}{{ tools is none }}{{ bos_token is defined }}{{ bos_token }}", {}),
    ("{{ tools|tojson(indent=4) }}{{ tools[0].function.name }}", {"tools": [WEATHER]}),
    ("{{ documents[0]['title'] }}", {"documents": [{"title": "T", "text": "x"}]}),
    ("{{ messages[0].content|map(attribute='type')|list }}", {"messages": [user([{"type": "image"}, {"type": "text"}])]}),
]
