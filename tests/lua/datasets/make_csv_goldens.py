#!/usr/bin/env python3
"""Write csv_goldens.json: CSV texts, and the rows that `datasets` makes of them.
usage: python make_csv_goldens.py   in an environment with datasets
"""
import json
import math
import os
import tempfile

import datasets

here = os.path.dirname(os.path.abspath(__file__))

TEXTS = [
    "a,b\n1,x\n2,y\n", "a,b\r\n1,x\r\n2,y\r\n", "a,b\r1,x\r2,y", "\ufeffa,b\n1,é😀\n", 'a,b\n"x\r\ny",1\r\n2,3\r4,5',
    'a,b\n"one, two","say ""hi"""\n"",""""\n', 'a\n"x"y\nx"y"\n"""x"""\n', "\n \na,b\n\n1,2\n   \n3,4\n\n", "a,b\n  x , y\n",
    "a,b\n1\n2,3\n", 'a,a,,b\n1,2,3,4\n', "a,a,a.1\n1,2,3\n", "a,a,a\n1,2,3\n", ' a , b\n1,2\n', '"a,b",c\n1,2\n',
    "i,f,b,s,n\n1,1.5,true,x,\n-2,,False,,NA\n3,2e3,TRUE,NULL,null\n", "a\n1\n2\nx\n", "a\n1\n2.5\n", "a\n1\n\"\"\n2\n",
    "a\ntrue\n1\n", "a\ntrue\n\n\"\"\nFalse\n", "a\nTrue\n1.5\n", "a\n true\n", "a\n 1\n2 \n", "a\n 1.5\n2\n", "a\n007\n+3\n-0\n",
    "a\n1e5\n.5\n5.\n-1E-3\n", "a\n1e\n", "a\n0x10\n", "a\n1_0\n", "a\n1 2\n", "a\n+\n", "a\n.\n", "a\n1.2.3\n", "a\n1-2\n", "a\n٣\n",
    "a\ninf\n-Infinity\n1\nINF\n", "a\n1e400\n1e-400\n", "a\nnan\n1\n", "a\n NA\nx\n", 'a\n"None"\n"NA"\nx\n', "a\nNONE\nNa\n",
    "a\n9223372036854775807\n-9223372036854775808\n", "a\n1\n18446744073709551615\n", "a\n-1\n18446744073709551615\n",
    "a\n1\n99999999999999999999999.5\n", "a\n-9223372036854775809.0\n", "a,b\n,\n", "a\n#N/A\n<NA>\nn/a\n-nan\n1.#IND\n",
    "question,answer\n\"What is 2 + 2?\n(think)\",\"4\"\nWhy?,\"Because \"\"so\"\", he said.\"\n", "1,1\n2,3\n",
    "a\n" + "\n".join(str(i) for i in range(150)) + "\n", "a,b\n" + "\n".join('%d,"%s"' % (i, 'x,""\n' * (i % 20)) for i in range(70)),
]
TABS = ["a\tb\n1\tx y\n\t\n \t \n", 'a\tb\n"1\t2"\t,\n', "a\tb\n\t2\n"]
REFUSED = ['a\n"x\n', "a,b\n1,2\n1,2,3\n", "", "\n\n"]


def finite(row):
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def rows_of(text, extension):
    with tempfile.TemporaryDirectory() as folder:
        name = os.path.join(folder, "x." + extension)
        with open(name, "wb") as out:
            out.write(text.encode())
        separator = "\t" if extension == "tsv" else ","
        return [finite(row) for row in datasets.Dataset.from_csv(name, cache_dir=folder, sep=separator)]


def main():
    datasets.disable_progress_bars()
    cases = [{"extension": e, "text": t, "rows": rows_of(t, e)} for e, texts in (("csv", TEXTS), ("tsv", TABS)) for t in texts]
    for text in REFUSED:
        try:
            rows_of(text, "csv")
        except Exception:
            continue
        raise SystemExit("not refused: %r" % text)
    with open(os.path.join(here, "csv_goldens.json"), "w") as out:
        json.dump(cases, out, ensure_ascii=False, indent=0)
        out.write("\n")


main()
