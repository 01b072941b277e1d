"""A substitution of the Hugging Face hub on loopback: as much of its protocol as is used here.

That is `push_to_hub`, `from_pretrained`, `HfFileSystem` and commits, large files by plain LFS. The
hub itself takes large files by its protocol Xet, which is not here.
"""

import json
import threading
from base64 import b64decode
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote

from tests.web_server import LoopbackServer


class HubServer(LoopbackServer):
    """Holds the files of models and data sets by "owner/name"; `asked` lists the requests.

    large: how the names of files end that go by LFS. token: who does not send it sees nothing.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.models: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.large: tuple[str, ...] = ()
        self.token: str | None = None
        self.uploads: dict[str, bytes] = {}  # by LFS, by SHA-256
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
        path, _, query = self.path.partition("?")
        match unquote(path).removeprefix("/datasets").strip("/").split("/"):
            case ["api", "models" | "datasets", owner, name, *rest] if self.knows(
                f"{owner}/{name}"
            ):
                self.describe(f"{owner}/{name}", rest, "recursive=true" in query.lower())
            case [owner, name, "resolve", _, *file] if self.knows(f"{owner}/{name}"):
                self.send_file(f"{owner}/{name}", "/".join(file))
            case _:
                self.answer(b"", 404, **{"X-Error-Code": "RepoNotFound"})

    def send_file(self, model: str, name: str) -> None:
        data = self.server.models[model].get(name)
        if data is None:
            self.answer(b"", 404, **{"X-Error-Code": "EntryNotFound"})
            return
        tags = {"ETag": sha1(data).hexdigest(), "X-Repo-Commit": self.server.commit_of(model)}
        start, _, end = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if start:
            data = data[int(start) : int(end) + 1 if end else None]
        self.answer(data, 206 if start else 200, **tags)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.is_allowed():
            self.answer(b"", 401)
            return
        match self.path.removeprefix("/datasets").strip("/").split("/"):
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
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if self.is_large(file["path"]) else "regular",
                        "shouldIgnore": False,
                    }
                    for file in files
                ]
                self.answer_json({"files": modes})
            case [_, _, "info", "lfs", "objects", "batch"]:
                objects = [
                    {**asked, "actions": {"upload": {"href": f"{self.server.url}/{asked['oid']}"}}}
                    for asked in json.loads(body)["objects"]
                ]
                self.answer_json({"transfer": "basic", "objects": objects})
            case ["api", "models" | "datasets", owner, name, "commit", _]:
                self.commit(f"{owner}/{name}", [json.loads(line) for line in body.splitlines()])
            case _:
                self.answer(b"", 404)

    def do_PUT(self) -> None:
        """A large file by LFS."""
        self.server.asked.append(f"{self.command} {self.path}")
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.uploads[sha256(data).hexdigest()] = data
        self.answer(b"")

    def is_large(self, name: str) -> bool:
        return name.endswith(self.server.large)

    def knows(self, model: str) -> bool:
        """As the hub: what is private is not there for who may not see it."""
        return model in self.server.models and self.is_allowed()

    def is_allowed(self) -> bool:
        token = self.server.token
        return token is None or self.headers.get("Authorization") == f"Bearer {token}"

    def describe(self, model: str, rest: list[str], recursive: bool) -> None:
        files = self.server.models[model]
        if rest[:1] == ["tree"]:
            self.list_folder(files, "".join(f"{part}/" for part in rest[2:]), recursive)
            return
        siblings = [{"rfilename": name} for name in files]
        self.answer_json({"id": model, "sha": self.server.commit_of(model), "siblings": siblings})

    def list_folder(self, files: dict[str, bytes], folder: str, recursive: bool) -> None:
        below = {name: data for name, data in files.items() if name.startswith(folder)}
        if folder and not below:
            self.answer(b"", 404, **{"X-Error-Code": "EntryNotFound"})
            return
        folders = {}
        entries = []
        for name, data in below.items():
            parent, _, _ = name[len(folder) :].rpartition("/")
            if parent:
                path = folder + parent.partition("/")[0]
                folders[path] = {"type": "directory", "path": path, "size": 0, "oid": "0" * 40}
            if recursive or not parent:
                digest = sha256(data).hexdigest()
                lfs = {"oid": digest, "size": len(data), "pointerSize": 130}
                entry = {"type": "file", "path": name, "size": len(data), "oid": digest[:40]}
                entries.append({**entry, **({"lfs": lfs} if self.is_large(name) else {})})
        self.answer_json([*folders.values(), *entries])

    def commit(self, model: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["key"] == "file":
                data = b64decode(line["value"]["content"])
                self.server.models[model][line["value"]["path"]] = data
            elif line["key"] == "lfsFile":
                data = self.server.uploads[line["value"]["oid"]]
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
