"""As much of Google's storage service as a run asks of it, on a port of this machine: objects by name, whole
uploads and resumable ones, lists, and the condition that an object is not there yet.
"""

import json
import logging
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    uploads: dict[str, bytearray]

    def do_GET(self):
        path, asked = self._asked()
        if (found := re.fullmatch(r"/(?:download/)?storage/v1/b/[^/]+/o/(.+)", path)) is None:
            prefix = asked.get("prefix", "")
            items = [self._resource(name) for name in sorted(self.objects) if name.startswith(prefix)]
            if asked.get("delimiter"):  # gcsfs asks so what stands in a folder
                rest = {item["name"][len(prefix) :] for item in items}
                folders = sorted({prefix + name.split("/")[0] + "/" for name in rest if "/" in name})
                items = [item for item in items if "/" not in item["name"][len(prefix) :]]
                return self._answer(200, {"items": items, "prefixes": folders})
            return self._answer(200, {"items": items})
        name = unquote(found[1])
        if name not in self.objects:
            return self._answer(404, {"error": {"code": 404, "message": "No such object"}})
        if asked.get("alt") != "media":
            return self._answer(200, self._resource(name))
        content, headers = self.objects[name], {"X-Goog-Generation": "1"}
        if (wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))) is None:
            return self._answer(200, content, headers)
        first = int(wanted[1])
        part = content[first : int(wanted[2]) + 1 if wanted[2] else None]
        place = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        return self._answer(206, part, {**headers, "Content-Range": place})

    def do_POST(self):
        _, asked = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if asked.get("uploadType") == "resumable":
            name = asked.get("name") or json.loads(body)["name"]
            self.uploads[name] = bytearray()
            place = f"http://{self.headers['Host']}/resume?name={name}"
            return self._answer(200, {}, {"Location": place, "X-GUploader-UploadID": "1"})
        if asked.get("uploadType") == "multipart":
            boundary = re.search('boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            _, *parts, _ = body.split(b"--" + boundary)
            head, content = (part.split(b"\n\n", 1)[1].removesuffix(b"\n") for part in parts)
            name = json.loads(head)["name"]
        else:
            name, content = asked["name"], body
        if asked.get("ifGenerationMatch") == "0" and name in self.objects:
            return self._answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})
        self.objects[name] = content
        return self._answer(200, self._resource(name))

    def do_PUT(self):
        _, asked = self._asked()
        name = asked["name"]
        self.uploads[name] += self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Range", "/*").endswith("/*"):
            return self._answer(308, b"", {"Range": f"bytes=0-{len(self.uploads[name]) - 1}"})
        self.objects[name] = bytes(self.uploads.pop(name))
        return self._answer(200, self._resource(name))

    def do_DELETE(self):
        name = unquote(self._asked()[0].partition("/o/")[2])
        known = self.objects.pop(name, None) is not None
        return self._answer(204 if known else 404, b"")

    def _asked(self) -> tuple[str, dict[str, str]]:
        url = urlsplit(self.path)
        return url.path, {key: values[-1] for key, values in parse_qs(url.query).items()}

    def _resource(self, name: str) -> dict:
        times = dict.fromkeys(("timeCreated", "updated"), "2026-01-01T00:00:00.000Z")
        size = str(len(self.objects[name]))
        return {
            "name": name,
            "bucket": "bucket",
            "size": size,
            "generation": "1",
            "metageneration": "1",
            **times,
        }

    def _answer(self, status: int, content: dict | bytes, headers: dict[str, str] | None = None) -> None:
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Content-Type", "application/json")
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_) -> None:
        pass


def settings(url: str) -> dict[str, str]:
    """What sends gcsfs and Orbax to a service, in the environment of a process."""
    return {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it warns of every operation without credentials
    }


@contextmanager
def serving_here(monkeypatch):
    """The objects of a service that this process is sent to."""
    import gcsfs
    from etils.epath import backend

    def forget():
        gcsfs.GCSFileSystem.clear_instance_cache()
        type(backend.fsspec_backend)._get_filesystem.cache_clear()

    logging.getLogger("gcsfs").setLevel(logging.ERROR)  # it misses the credentials that are not asked for
    forget()
    with serving() as (url, objects):
        for name, value in settings(url).items():
            monkeypatch.setenv(name, value)
        yield objects
    forget()


@contextmanager
def serving():
    """(the URL of a service that holds nothing yet, its objects)."""

    class Own(Service):
        objects, uploads = {}, {}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    server.handle_error = lambda *_: None  # a client that leaves in the middle of an answer
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", Own.objects
    finally:
        server.shutdown()
        server.server_close()
