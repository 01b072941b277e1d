"""A Hugging Face hub on loopback, as small as `push_to_hub` and `from_pretrained` allow."""

import json
import threading
from base64 import b64decode
from hashlib import sha1
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.web_server import LoopbackServer


class HubServer(LoopbackServer):
    """Holds the files of models by "owner/name"; `asked` lists the requests."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.models: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.silent = threading.Event()  # set: no request is answered any more

    def commit_of(self, model: str) -> str:
        content = b"".join(sha1(data).digest() for data in self.models[model].values())
        return sha1(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if self.server.silent.is_set():
            self.server.closing.wait(60)
            return
        match self.path.partition("?")[0].strip("/").split("/"):
            case ["api", "models" | "datasets", owner, name, *rest] if self.knows(
                f"{owner}/{name}"
            ):
                self.describe(f"{owner}/{name}", rest)
            case [owner, name, "resolve", _, file] if self.knows(f"{owner}/{name}", file):
                model = f"{owner}/{name}"
                data = self.server.models[model][file]
                tags = {
                    "ETag": sha1(data).hexdigest(),
                    "X-Repo-Commit": self.server.commit_of(model),
                }
                self.answer(data, **tags)
            case _:
                self.answer(b"", 404, **{"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        match self.path.strip("/").split("/"):
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                self.server.models.setdefault(name, {})
                self.answer_json({"url": f"{self.server.url}/{name}", "name": name})
            case ["api", "validate-yaml"]:  # of the model card
                self.answer_json({"errors": [], "warnings": []})
            case ["api", "models" | "datasets", _, _, "preupload", _]:
                files = json.loads(body)["files"]
                modes = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in files
                ]
                self.answer_json({"files": modes})
            case ["api", "models" | "datasets", owner, name, "commit", _]:
                self.commit(f"{owner}/{name}", [json.loads(line) for line in body.splitlines()])
            case _:
                self.answer(b"", 404)

    def knows(self, model: str, file: str | None = None) -> bool:
        files = self.server.models.get(model)
        return files is not None and (file is None or file in files)

    def describe(self, model: str, rest: list[str]) -> None:
        files = self.server.models[model]
        if rest[:1] == ["tree"]:
            self.answer_json(
                [
                    {"type": "file", "path": n, "size": len(d), "oid": sha1(d).hexdigest()}
                    for n, d in files.items()
                ]
            )
            return
        siblings = [{"rfilename": name} for name in files]
        self.answer_json({"id": model, "sha": self.server.commit_of(model), "siblings": siblings})

    def commit(self, model: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["key"] == "file":
                data = b64decode(line["value"]["content"])
                self.server.models[model][line["value"]["path"]] = data
        commit = self.server.commit_of(model)
        url = f"{self.server.url}/{model}/commit/{commit}"
        self.answer_json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def answer_json(self, content: Any) -> None:
        self.answer(json.dumps(content).encode(), Content_Type="application/json")

    def answer(self, data: bytes, code: int = 200, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
