"""Named corpora: the default text, one that comes with Python, and one that is downloaded on first use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from fastlstm.errors import TextError

#: The corpora, each with a one-line description.
NAMES: Mapping[str, str] = MappingProxyType(
    {
        "input": "the default: original prose, dialogue and verse that come with fastlstm",
        "pydoc": "Python's own language help (pydoc_data.topics), on every machine with Python",
        "tinyshakespeare": "1,115,394 characters of Shakespeare, downloaded once and verified",
    }
)
DEFAULT = "input"

CACHE_VARIABLE = "FASTLSTM_CACHE_DIR"
URL_VARIABLE = "FASTLSTM_TINYSHAKESPEARE_URL"
TINYSHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

_CONNECT_SECONDS, _READ_SECONDS = 10, 30


def load(name: str) -> bytes:
    """The text of a named corpus, UTF-8 encoded.

    Parameters
    ----------
    name : a key of `NAMES`.

    Raises
    ------
    TextError
        When no corpus has this name, or its text cannot be read or downloaded.
    """
    if name == "input":
        return _read(default_text_path())
    if name == "pydoc":
        return _pydoc()
    if name == "tinyshakespeare":
        return _read(fetch_tinyshakespeare(os.environ.get(URL_VARIABLE) or TINYSHAKESPEARE_URL, cache_folder()))
    raise TextError(f"no corpus is named {name!r}: choose one of {', '.join(NAMES)}")


def default_text_path() -> Path:
    """Path of the default text: in the installed package, else beside the package in a source checkout.

    The file may be missing.
    """
    package = Path(__file__).resolve().parent
    installed = package / "data" / "input.txt"
    return installed if installed.is_file() else package.parent / "data" / "input.txt"


def cache_folder() -> Path:
    """The folder of downloaded texts: ``FASTLSTM_CACHE_DIR``, else the system's usual cache folder."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    import pooch  # type: ignore[import-untyped]

    return Path(pooch.os_cache("fastlstm"))


def fetch_tinyshakespeare(url: str, folder: Path, sha256: str = TINYSHAKESPEARE_SHA256) -> Path:
    """The path of tinyshakespeare in a cache folder; it is downloaded if it is not cached.

    Parameters
    ----------
    url : ``http`` or ``https`` address to download from.
    folder : the cache folder; created if missing. A cached file with the right hash is not downloaded again.
    sha256 : expected hash of the file, in hexadecimal. A download with another hash is not kept.

    Raises
    ------
    TextError
        When the download fails or has another hash, or when the folder cannot be used.
    """
    import pooch
    import requests
    import urllib3

    pooch.get_logger().setLevel("WARNING")
    # No streaming: it would leave the connection open after a failure, and the text is small.
    download = pooch.HTTPDownloader(timeout=(_CONNECT_SECONDS, _READ_SECONDS), stream=False)
    try:
        return Path(pooch.retrieve(url, f"sha256:{sha256}", "tinyshakespeare.txt", folder, downloader=download))
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise TextError(
            f"cannot download tinyshakespeare from {url!r} ({_reason(error)}): check the network,"
            f" or set {URL_VARIABLE} to another address"
        ) from None
    except OSError as error:
        raise TextError(
            f"cannot use the cache folder {str(folder)!r} ({error.strerror or type(error).__name__}):"
            f" set {CACHE_VARIABLE} to a writable folder"
        ) from None
    except ValueError:
        raise TextError(
            f"the file at {url!r} is not tinyshakespeare (its SHA-256 differs) and was not kept: try again,"
            f" or set {URL_VARIABLE} to another address"
        ) from None


def _reason(error: Exception) -> str:
    """A short reason why a request failed; the library's own message can have several lines."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return " ".join(str(error).split())


def _pydoc() -> bytes:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise TextError(
            "this Python installation lacks pydoc_data, the text of the corpus 'pydoc': name another corpus, or a file"
        ) from None
    return "\n".join(topics[key] for key in sorted(topics)).encode("utf-8")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TextError(
            f"cannot read the corpus in {str(path)!r} ({error.strerror}): install fastlstm again, or name a file"
        ) from None
