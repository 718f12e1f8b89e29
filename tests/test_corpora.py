"""Named corpora: each has the documented content, and one that is not available is reported in one clear line."""

import hashlib
import http.server
import re
import sys
import threading
from pathlib import Path

import pytest

from fastlstm import corpora
from fastlstm.errors import TextError

CONTENT = b"First Citizen:\nA stand-in, small and quick to serve.\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "tinyshakespeare.txt"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `CONTENT` at /right, something else at /wrong, and closes the connection in the middle of /broken."""

    def do_GET(self):
        body = {"/right": CONTENT, "/wrong": b"not it", "/broken": CONTENT}.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:10] if self.path == "/broken" else body)

    def log_message(self, *args):
        """Write nothing to standard error."""


class Server:
    """A web server on this machine that can be shut down; `url` is its root."""

    def __init__(self):
        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self):
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    yield server
    server.stop()


def assert_refused(message, function, *args):
    with pytest.raises(TextError, match=message) as caught:
        function(*args)
    assert len(str(caught.value).splitlines()) == 1


def test_a_download_is_kept_and_served_from_the_cache_without_the_server(server, tmp_path, capfd):
    folder = tmp_path / "new" / "cache"
    path = corpora.fetch_tinyshakespeare(f"{server.url}/right", folder, SHA256)
    assert path.read_bytes() == CONTENT
    server.stop()
    assert corpora.fetch_tinyshakespeare(f"{server.url}/right", folder, SHA256) == path
    assert list(folder.iterdir()) == [path]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("wrong", "SHA-256 differs.*was not kept: try again"),
        ("missing", "HTTP status 404.*check the network, or set FASTLSTM_TINYSHAKESPEARE_URL"),
        ("broken", "cannot download.*check the network"),
    ],
)
def test_a_failed_download_is_one_line_and_leaves_nothing(server, tmp_path, page, message):
    assert_refused(message, corpora.fetch_tinyshakespeare, f"{server.url}/{page}", tmp_path, SHA256)
    assert list(tmp_path.iterdir()) == []


def test_no_server_is_one_line(server, tmp_path):
    server.stop()
    assert_refused("no connection.*check the network", corpora.fetch_tinyshakespeare, server.url, tmp_path, SHA256)


def test_a_server_that_does_not_answer_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(corpora, "_READ_SECONDS", 0.05)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as deaf:
        url = f"http://127.0.0.1:{deaf.server_port}/right"
        assert_refused("no answer in time", corpora.fetch_tinyshakespeare, url, tmp_path, SHA256)


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/x", "http://", "http://" + "x" * 100 + "/"])
def test_an_invalid_address_is_one_line(tmp_path, url):
    assert_refused("cannot download tinyshakespeare", corpora.fetch_tinyshakespeare, url, tmp_path, SHA256)


def test_a_damaged_file_in_the_cache_is_fetched_again(server, tmp_path):
    url = f"{server.url}/right"
    corpora.fetch_tinyshakespeare(url, tmp_path, SHA256).write_bytes(b"damaged")
    assert corpora.fetch_tinyshakespeare(url, tmp_path, SHA256).read_bytes() == CONTENT


def test_a_cache_folder_that_cannot_be_made_is_one_line(server, tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    message = "cannot use the cache folder.*set FASTLSTM_CACHE_DIR"
    assert_refused(message, corpora.fetch_tinyshakespeare, f"{server.url}/right", folder, SHA256)


def test_a_cache_folder_that_cannot_be_written_is_one_line(server, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)  # root may write to a folder of any mode
    message = r"cannot use the cache folder.*set FASTLSTM_CACHE_DIR"
    assert_refused(message, corpora.fetch_tinyshakespeare, f"{server.url}/right", tmp_path, SHA256)


def test_the_environment_names_the_mirror_and_the_cache_folder(server, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTLSTM_TINYSHAKESPEARE_URL", f"{server.url}/wrong")
    monkeypatch.setenv("FASTLSTM_CACHE_DIR", str(tmp_path / "cache"))
    assert_refused(re.escape(f"the file at '{server.url}/wrong' is not"), corpora.load, "tinyshakespeare")
    assert (tmp_path / "cache").is_dir()


def test_the_default_cache_folder_is_named_after_the_program(monkeypatch):
    monkeypatch.delenv("FASTLSTM_CACHE_DIR", raising=False)
    assert "fastlstm" in corpora.cache_folder().parts


def test_the_recorded_hash_is_that_of_the_real_text():
    if not REAL.is_file():
        pytest.skip("the real tinyshakespeare is not beside this checkout")
    assert hashlib.sha256(REAL.read_bytes()).hexdigest() == corpora.TINYSHAKESPEARE_SHA256


def test_pydoc_is_a_text_of_some_hundred_thousand_characters():
    text = corpora.load("pydoc").decode("utf-8")
    assert 300_000 < len(text) < 1_000_000
    assert text == corpora.load("pydoc").decode("utf-8")


def test_a_python_without_pydoc_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    assert_refused("lacks pydoc_data", corpora.load, "pydoc")


def test_an_unknown_name_is_one_line():
    assert_refused("choose one of input, pydoc, tinyshakespeare", corpora.load, "shakespear")


def test_every_corpus_has_one_line_of_description():
    assert all(text and "\n" not in text for text in corpora.NAMES.values())
    assert corpora.DEFAULT in corpora.NAMES


def test_a_missing_default_text_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "__file__", str(tmp_path / "fastlstm" / "corpora.py"))
    assert_refused("install fastlstm again", corpora.load, "input")


def test_the_text_inside_the_package_comes_before_the_one_beside_it(tmp_path, monkeypatch):
    package = tmp_path / "fastlstm"
    (package / "data").mkdir(parents=True)
    monkeypatch.setattr(corpora, "__file__", str(package / "corpora.py"))
    assert corpora.default_text_path() == tmp_path / "data" / "input.txt"
    (package / "data" / "input.txt").write_text("inside")
    assert corpora.load("input") == b"inside"


def test_the_default_text_is_long_plain_and_does_not_repeat_itself():
    text = corpora.load("input").decode("ascii")
    assert len(text) >= 100_000
    sentences = [" ".join(sentence.split()) for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n", text)]
    long = [sentence for sentence in sentences if len(sentence) > 40]
    assert [sentence for sentence in set(long) if long.count(sentence) > 1] == []
