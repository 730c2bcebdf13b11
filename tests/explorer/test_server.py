"""The explorer over HTTP: its answers, what it refuses, and that no request ends the server."""

import http.client
import io
import json
import socket
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import nibabel
import numpy as np
import pytest
from helper import npy_bytes, write_explorable
from PIL import Image

from hyperrecon_jax.explorer import receiving, server, widget

pytestmark = pytest.mark.usefixtures("small_network")


class Answer(NamedTuple):
    status_code: int
    headers: http.client.HTTPMessage
    content: bytes

    def json(self):
        return json.loads(self.content)


class Client:
    """Sends requests unchanged to a server in a thread, which the widget for notebooks starts."""

    def __init__(self, run):
        self.widget = widget(run)
        self.host = urllib.parse.urlsplit(self.widget.address).netloc
        self.token = urllib.parse.parse_qs(urllib.parse.urlsplit(self.widget.address).query)["token"][0]

    def get(self, path, params=(), **options):
        return self._send("GET", path, params, **options)

    def post(self, path, params=(), **options):
        return self._send("POST", path, params, **options)

    def _send(self, method, path, params, content=None, headers=None):
        connection = http.client.HTTPConnection(self.host, timeout=120)
        query = "?" + urllib.parse.urlencode(dict(params), doseq=True) if params else ""
        connection.request(method, path + query, content, {"X-Token": self.token, **(headers or {})})
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        return answer


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    client = Client(write_explorable(tmp_path_factory.mktemp("runs"), conditioning="dense") / "run")
    yield client
    client.widget.close()


@pytest.fixture
def engine(client):
    return client.widget.engine


def test_planes_come_as_float32_with_their_information(engine, client):
    answer = client.get("/api/reconstruct", params={"volume": "test", "index": 1, "lam": "0.4"})
    assert answer.status_code == 200
    image, expected = engine.reconstruct("test", 1, [0.4])
    np.testing.assert_array_equal(np.frombuffer(answer.content, "<f4").reshape(16, 16), image)
    info = json.loads(answer.headers["x-info"])
    assert (info["height"], info["width"], info["lam"]) == (16, 16, [0.4])
    assert info["metrics"] == pytest.approx(expected["metrics"])
    answer = client.get("/api/slice", params={"volume": "test", "index": 1})
    assert np.frombuffer(answer.content, "<f4").shape == (2 * 16 * 16,)


def test_the_other_answers(client):
    assert client.get("/api/run").json()["volumes"][0]["id"] == "test"
    diverse = client.get("/api/diverse", params={"volume": "test", "index": 0, "count": 3}).json()
    assert len(diverse["lams"]) == 3
    assert 0 <= client.get("/api/best", params={"volume": "test", "index": 0, "metric": "ssim"}).json()["lam"][0] <= 1
    answer = client.get("/api/export", params={"volume": "test", "index": 0, "lam": ["0", "1"], "format": "png"})
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''test_images_0.zip"
    added = client.post(
        "/api/volumes", params={"name": "two.npy"}, content=npy_bytes(np.eye(16, dtype=np.float32)[None].repeat(2, 0))
    ).json()
    assert (added["name"], added["slices"]) == ("two.npy", 2)
    assert client.get("/api/slice", params={"volume": added["id"], "index": 1}).status_code == 200
    content = nibabel.Nifti1Image(np.random.default_rng(0).random((16, 16, 24)), np.diag([1.0, 3, 2, 1])).to_bytes()
    for plane, size in (("acquired", (16, 24, 16, 2)), ("axial", (24, 16, 16, 3)), ("sagittal", (16, 24, 16, 2 / 3))):
        scan = client.post("/api/volumes", params={"name": "scan.nii", "plane": plane}, content=content).json()
        assert tuple(scan[key] for key in ("slices", "height", "width", "aspect")) == pytest.approx(size)
    exported = client.get("/api/export", params={"volume": scan["id"], "index": 0, "lam": "0", "format": "png"})
    assert exported.status_code == 200, exported.content
    assert Image.open(io.BytesIO(exported.content)).size == (24, 24)
    head, pixels = json.dumps([["a.npy", 384], ["b.npy", 384]]).encode(), npy_bytes(np.eye(16, dtype=np.uint8)[None])
    (both,) = client.post("/api/volumes", params={"files": 2}, content=head + b"\n" + pixels + pixels).json()
    assert (both["name"], both["slices"]) == ("a.npy and 1 more", 2)
    for wrong in (head, head + b"\n" + pixels, b"[1]\n", b"[]\n", b'[["a", -1]]\n'):
        assert "error" in client.post("/api/volumes", params={"files": 2}, content=wrong).json()
    page = client.get("/")
    assert "text/html" in page.headers["content-type"]
    assert "default-src 'self'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("path", "params", "sentence"),
    [
        ("reconstruct", {"volume": "test", "index": "0"}, "must have a lam"),
        ("reconstruct", {"volume": "test", "index": "0", "lam": "x"}, "must be numbers"),
        ("reconstruct", {"volume": "test", "index": "0", "lam": "2"}, "in [0, 1]"),
        ("reconstruct", {"volume": "test", "index": "-1", "lam": "1"}, "whole number"),
        ("slice", {"volume": "test", "index": "9" * 30}, "whole number"),
        ("slice", {"volume": "../../config.json", "index": "0"}, "no volume"),
        ("diverse", {"volume": "test", "index": "0", "count": "1000"}, "in [2, 24]"),
        ("best", {"volume": "test", "index": "0", "metric": ""}, "must be one of"),
        ("export", {"volume": "test", "index": "0", "lam": "1", "format": "exe"}, "must be one of"),
        (
            "export",
            {"volume": "test", "index": "0", "lam": "1", "format": "png", "window": "wide"},
            "window must be a number",
        ),
    ],
)
def test_mistakes_get_a_sentence(client, path, params, sentence):
    answer = client.get(f"/api/{path}", params=params)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]


def test_files_that_are_too_large_or_malformed(client, monkeypatch):
    for content in (
        b"",
        b"\x93NUMPY broken",
        b"\x1f\x8b\x08 broken",
        b"\x89PNG\r\n\x1a\n broken",
        b"\x89HDF\r\n\x1a\n broken",
    ):
        answer = client.post("/api/volumes", params={"name": "broken"}, content=content)
        assert answer.status_code == 400, content
        assert len(answer.json()["error"]) > 20
    monkeypatch.setattr(receiving, "MAX_BYTES", 1000)
    assert client.post("/api/volumes", params={"name": "large"}, content=b"x" * 1001).status_code == 413
    assert client.get("/api/run").status_code == 200


def test_a_volume_is_cut_again_taken_away_and_removed(engine, client):
    """Each tab has its own list; another site cuts and removes nothing."""
    image = nibabel.Nifti1Image(np.random.default_rng(0).random((14, 13, 12)).astype(np.float32), np.diag([1, 2, 3, 1]))
    added = client.post("/api/volumes", params={"name": "a.nii", "tab": "one"}, content=image.to_bytes()).json()
    assert (added["plane"], added["height"], added["width"]) == ("acquired", 13, 14)

    def ids(tab):
        return [volume["id"] for volume in client.get("/api/run", params={"tab": tab}).json()["volumes"]]

    assert ids("one") == ["test", added["id"]]
    assert ids("two") == ["test"]
    fields = {"volume": added["id"], "plane": "sagittal", "tab": "one"}
    for path in ("/api/cut", "/api/remove"):
        assert client.post(path, params=fields, headers={"origin": "http://elsewhere.org"}).status_code == 403
    (cut,) = client.post("/api/cut", params=fields).json()
    assert (cut["files"], cut["plane"], cut["height"], cut["width"]) == (added["files"], "sagittal", 12, 13)
    assert ids("one") == ["test", cut["id"]]
    place = {"volume": cut["id"], "lam": "0.5"}
    plane = client.get("/api/contradiction", params={**place, "index": 3})
    expected, info = engine.contradiction(cut["id"], 3, [0.5])
    np.testing.assert_array_equal(np.frombuffer(plane.content, "<f4").reshape(12, 13), expected)
    assert json.loads(plane.headers["x-info"]) == {"height": 12, "width": 13, **info}
    volume_file = client.get("/api/export-volume", params={**place, "format": "nii"})
    assert "a_all_lambda_0.5.nii.gz" in volume_file.headers["content-disposition"]
    assert client.get("/api/export-scores", params=place).content.startswith(b"slice,subject,image,psnr")
    assert client.post("/api/remove", params={"volume": cut["id"], "tab": "one"}).status_code == 200
    assert ids("one") == ["test"]
    assert client.get("/api/run").json()["max_upload_bytes"] == receiving.MAX_BYTES


def test_only_the_page_is_served_and_only_to_itself(client):
    for path in (
        "/engine.py",
        "/../engine.py",
        "/%2e%2e/engine.py",
        "/..%2fengine.py",
        "//etc/passwd",
        "/static/index.html",
    ):
        assert client.get(path).status_code == 404, path
    assert client.get("/api/run", headers={"host": "evil.example"}).status_code == 400
    content = npy_bytes(np.eye(16, dtype=np.float32))
    refused = client.post("/api/volumes", params={"name": "a"}, content=content, headers={"origin": "http://evil.example"})
    assert refused.status_code == 403
    own_origin = {"origin": f"http://{client.host}"}
    assert client.post("/api/volumes", params={"name": "a.npy"}, content=content, headers=own_origin).status_code == 200


def test_a_bug_is_reported_and_the_server_goes_on(engine, client, monkeypatch, caplog):
    def broken(*args, **options):
        raise RuntimeError("on purpose")

    monkeypatch.setattr(engine, "input_and_reference", broken)
    answer = client.get("/api/slice", params={"volume": "test", "index": 0})
    assert (answer.status_code, "on purpose" in answer.json()["error"]) == (500, True)
    assert "RuntimeError: on purpose" in caplog.text
    assert client.get("/api/run").status_code == 200


def test_simultaneous_requests_get_their_own_answers(engine, client):
    lams = np.linspace(0, 1, 16).round(4)

    def ask(lam):
        answer = client.get("/api/reconstruct", params={"volume": "test", "index": 0, "lam": str(lam)})
        return np.frombuffer(answer.content, "<f4").reshape(16, 16)

    with ThreadPoolExecutor(8) as pool:
        for lam, image in zip(lams, pool.map(ask, lams), strict=True):
            np.testing.assert_array_equal(image, engine.reconstruct("test", 0, [lam])[0])


def test_a_notebook_shows_the_page_in_a_frame(client):
    assert f'<iframe src="{client.widget.address}"' in client.widget._repr_html_()
    assert "?token=" in client.widget.address


def test_a_file_that_breaks_off_and_malformed_origins(client, caplog):
    with socket.create_connection(client.host.split(":")) as broken:
        broken.sendall(
            f"POST /api/volumes?name=a&token={client.token} HTTP/1.1\r\nHost: {client.host}\r\n".encode()
            + b"Content-Length: 999\r\n\r\nab"
        )
    assert client.get("/api/run").status_code == 200
    assert caplog.text == ""
    for origin in ("http://[::1", "null", "http://localhost:1", "http://127.0.0.1"):
        assert (
            client.post("/api/volumes", params={"name": "a"}, content=b"x", headers={"origin": origin}).status_code == 403
        )


def test_an_address_in_use():
    listener = server.listen("127.0.0.1", 0)
    with listener, pytest.raises(server.InputError, match="cannot listen at 127.0.0.1, port"):
        server.listen("127.0.0.1", listener.getsockname()[1])
    with pytest.raises(server.InputError, match="port 99999"):
        server.listen("127.0.0.1", 99999)


@pytest.mark.parametrize("host", ["", " ", "a\0b", 300 * "x", "nowhere.invalid"])
def test_a_host_that_is_none(host):
    """A socket with an empty host would listen at all addresses."""
    with pytest.raises(server.InputError, match=r"The explorer (needs a host|cannot listen at)"):
        server.check_address(host, 0)
