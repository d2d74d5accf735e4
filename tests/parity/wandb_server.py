"""A stand-in for W&B's server on loopback: the GraphQL calls and the file stream that a run needs.

    python wandb_server.py FILE      prints its port; what it was told is in FILE (JSON) after every call

Runs are kept by name: config, display name, tags, lines of history by their place, summary, how it ended.
"""

import gzip
import json
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

runs, calls, keys = {}, [], set()
lock = threading.RLock()


def bucket(name, project="p", entity="me"):
    return runs.setdefault(name, {"name": name, "project": project, "entity": entity, "history": {}, "summary": {},
                                  "complete": None, "exitcode": None, "files": []})


def upsert(variables):
    name = variables.get("name") or "run1"
    known = name in runs
    run = bucket(name, variables.get("project") or "uncategorized", variables.get("entity") or "me")
    for key in ("config", "displayName", "tags", "notes", "groupName", "jobType", "host", "summaryMetrics"):
        if variables.get(key) is not None:
            run[key] = variables[key]
    return {"upsertBucket": {"bucket": {
        "id": "id-" + name, "name": name, "displayName": run.get("displayName") or name, "description": None,
        "config": run.get("config") or "{}", "sweepName": None, "historyLineCount": len(run["history"]),
        "project": {"id": "project-id", "name": run["project"], "internalId": "project-id",
                    "entity": {"id": "entity-id", "name": run["entity"]}}},
        "inserted": not known}}


def status(variables):
    run = runs.get(variables.get("name"))
    found = None
    if run:
        lines = [run["history"][key] for key in sorted(run["history"])]
        found = {"id": "id-" + run["name"], "name": run["name"], "displayName": run.get("displayName"),
                 "historyLineCount": len(lines), "eventsLineCount": 0, "logLineCount": 0,
                 "historyTail": json.dumps([json.dumps(line) for line in lines[-1:]]), "eventsTail": "[]",
                 "summaryMetrics": json.dumps(run["summary"]), "config": run.get("config") or "{}", "tags": [],
                 "wandbConfig": "{}", "runInfo": {"args": []}}
    return {"model": {"id": "project-id", "name": "p", "entity": {"id": "entity-id", "name": "me"}, "bucket": found}}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, body, code=200):
        with lock:  # before the answer: whoever has it may look
            self.keep()
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def keep(self):
        with open(sys.argv[1] + ".new", "w") as f:
            json.dump({"runs": runs, "calls": calls, "authorization": sorted(keys)}, f)
        os.replace(sys.argv[1] + ".new", sys.argv[1])

    def body(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw

    def do_GET(self):
        calls.append("GET " + self.path)
        self.answer({})

    def do_PUT(self):
        calls.append("PUT " + self.path)
        self.body()
        self.answer({})

    def do_POST(self):
        raw = self.body()
        with lock:
            keys.add(self.headers.get("Authorization") or "")
            self.told(raw)

    def told(self, raw):
        if self.path == "/graphql":
            return self.graphql(json.loads(raw))
        stream = re.match(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream$", self.path)
        calls.append("file_stream" if stream else "POST " + self.path)
        if not stream:
            return self.answer({}, 404)
        run, told = bucket(stream.group(3)), json.loads(raw)
        for name, part in (told.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                for i, line in enumerate(part["content"]):
                    run["history"][part["offset"] + i] = json.loads(line)
            elif name == "wandb-summary.json":
                run["summary"].update(json.loads(part["content"][0]))
        run["complete"] = told.get("complete", run["complete"])
        run["exitcode"] = told.get("exitcode", run["exitcode"])
        return self.answer({"exitcode": None, "limits": {}})

    def graphql(self, told):
        query, variables = told["query"], told.get("variables") or {}
        name = re.search(r"(query|mutation|fragment)\s+(\w+)", query)
        calls.append(name.group(2) if name else query[:40])
        if "upsertBucket" in query:
            return self.answer({"data": upsert(variables)})
        if "createRunFiles" in query:
            run = bucket(variables.get("run") or variables.get("runName") or "")
            files = variables.get("files") or []
            run["files"] += files
            base = "http://127.0.0.1:%d/upload/" % self.server.server_address[1]
            return self.answer({"data": {"createRunFiles": {"runID": "id", "uploadHeaders": [], "files": [
                {"name": f, "uploadUrl": base + f} for f in files]}}})
        if "RunResumeStatus" in query:
            return self.answer({"data": status(variables)})
        viewer = {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
        return self.answer({"data": {"viewer": viewer, "serverInfo": {"features": [], "cliVersionInfo": {}}, "model": None,
                                     "TypeInfo": {"fields": [], "inputFields": []}, "QueryType": {"fields": []},
                                     "MutationType": {"fields": []}}})


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
