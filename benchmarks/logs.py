"""Logs of a server, generated: everybody can make the same ones, and they contain nobody's data.

Their structure is that of real logs: a time that only moves forward, clients that return, frequent and rare lines, and
fields that depend on each other. Only `random.Random.random` is used, whose sequence Python guarantees for a seed.
"""

from __future__ import annotations

import datetime
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_START = datetime.datetime(2024, 3, 4, tzinfo=datetime.UTC)

_PAGES = [
    "/", "/index.html", "/static/css/site.css", "/static/js/app.js", "/favicon.ico", "/img/logo.png", "/login",
    "/products", "/products/{}", "/products/{}/reviews", "/cart", "/cart/items/{}", "/api/v1/session",
    "/api/v1/products?page={}", "/api/v1/orders/{}", "/search?q={}&sort=price", "/blog/{}", "/about", "/robots.txt",
    "/feed.xml", "/wp-login.php", "/.env",
]  # fmt: skip
_WORDS = ["lamp", "oak+table", "chair", "blue+rug", "mirror", "shelf", "desk", "curtain", "kettle", "vase"]
_AGENTS = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.3",
    "Mozilla/5.0 (X11; Linux x86_64; rv:123.0) Gecko/20100101 Firefox/123.0",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "curl/8.5.0",
    "python-requests/2.31.0",
]
_USERS = ["root", "admin", "deploy", "backup", "postgres", "test", "maria", "git"]
_JOBS = ["run-parts /etc/cron.hourly", "/usr/local/bin/backup --incremental", "test -x /usr/sbin/anacron"]
_UNITS = ["nginx", "postgresql", "logrotate", "backup", "certbot", "fwupd-refresh", "apt-daily"]


class _Source:
    """Seeded random choices."""

    def __init__(self, seed: int) -> None:
        self.uniform = random.Random(seed).random

    def below(self, n: int) -> int:
        return int(n * self.uniform())

    def pick(self, values: Sequence[Any]) -> Any:
        """One of the values; the first is the most frequent, as by Zipf's law."""
        return values[int((len(values) + 1) ** self.uniform()) - 1]

    def waiting(self, mean: float) -> float:
        """Seconds between two events that are independent of each other."""
        return -mean * math.log(1.0 - self.uniform())

    def address(self) -> str:
        """An address of the ranges that are reserved for documentation."""
        return f"{self.pick(['203.0.113', '198.51.100', '192.0.2'])}.{1 + self.below(254)}"


def access_log(size: int) -> bytes:
    """Requests to a web server in the "combined" format: whole lines, at most ``size`` bytes."""
    return _lines(_requests(_Source(1)), size)


def system_log(size: int) -> bytes:
    """Messages of a system's services in the format of syslog: whole lines, at most ``size`` bytes."""
    return _lines(_messages(_Source(2)), size)


def _lines(lines: Iterator[str], size: int) -> bytes:
    made: list[bytes] = []
    left = size
    for line in lines:
        encoded = f"{line}\n".encode("ascii")
        if len(encoded) > left:
            break
        made.append(encoded)
        left -= len(encoded)
    return b"".join(made)


def _requests(source: _Source) -> Iterator[str]:
    now = _START
    clients = [(source.address(), source.pick(_AGENTS)) for _ in range(200)]
    while True:
        now += datetime.timedelta(seconds=source.waiting(2.0))
        address, agent = source.pick(clients)
        page = source.pick(_PAGES)
        path = page.format(source.pick(_WORDS) if "q=" in page else 1 + source.below(400))
        method = "POST" if page in ("/login", "/cart") and source.uniform() < 0.5 else "GET"
        status, length = _answer(source, page, method)
        came_from = "-" if source.uniform() < 0.4 else "https://shop.example.org" + source.pick(_PAGES[:8])
        yield (
            f'{address} - - [{now:%d/%b/%Y:%H:%M:%S} +0000] "{method} {path} HTTP/1.1" {status} {length}'
            f' "{came_from}" "{agent}"'
        )


def _answer(source: _Source, page: str, method: str) -> tuple[int, int]:
    """Status and length of the answer to a request."""
    if page in ("/wp-login.php", "/.env"):
        return 404, 153
    if method == "POST":
        return 302, 0
    if page.startswith(("/static", "/img", "/favicon")):
        return (304, 0) if source.uniform() < 0.5 else (200, 1000 + 317 * len(page))
    if source.uniform() < 0.01:
        return 500, 177
    return 200, 2000 + source.below(9000)


def _messages(source: _Source) -> Iterator[str]:
    now, up = _START, 0.0
    kinds: list[Callable[[_Source, float], list[str]]] = [_ssh, _unit, _cron, _kernel, _mail]
    while True:
        passed = source.waiting(20.0)
        now, up = now + datetime.timedelta(seconds=passed), up + passed
        for message in source.pick(kinds)(source, up):
            yield f"{now:%b} {now.day:>2} {now:%H:%M:%S} web1 {message}"


def _ssh(source: _Source, up: float) -> list[str]:
    name, origin = source.pick(_USERS), f"{source.address()} port {32768 + source.below(28000)}"
    begin = f"sshd[{1000 + source.below(30000)}]:"
    if name in ("deploy", "maria", "git"):
        return [
            f"{begin} Accepted publickey for {name} from {origin} ssh2",
            f"{begin} pam_unix(sshd:session): session opened for user {name}"
            f"(uid={1000 + _USERS.index(name)}) by (uid=0)",
        ]
    return [
        f"{begin} Failed password for {'' if name == 'root' else 'invalid user '}{name} from {origin} ssh2",
        f"{begin} Connection closed by authenticating user {name} {origin} [preauth]",
    ]


def _unit(source: _Source, up: float) -> list[str]:
    unit = source.pick(_UNITS)
    begin = f"systemd[1]: {unit}.service:"
    ends = ["Deactivated successfully.", f"Consumed {source.waiting(2.0):.3f}s CPU time."]
    if source.uniform() < 0.05:
        ends = ["Main process exited, code=exited, status=1/FAILURE", "Failed with result 'exit-code'."]
    return [f"systemd[1]: Starting {unit}.service...", *(f"{begin} {end}" for end in ends)]


def _cron(source: _Source, up: float) -> list[str]:
    return [f"CRON[{1000 + source.below(30000)}]: (root) CMD ({source.pick(_JOBS)})"]


def _kernel(source: _Source, up: float) -> list[str]:
    return [
        f"kernel: [{up:12.6f}] [UFW BLOCK] IN=eth0 OUT= SRC={source.address()} DST=192.0.2.10"
        f" LEN={40 + source.below(20)}"
        f" TTL={source.pick([64, 128, 244, 51])} PROTO=TCP SPT={1024 + source.below(60000)}"
        f" DPT={source.pick([22, 23, 445, 3389, 8080, 5432])} WINDOW=1024 SYN"
    ]


def _mail(source: _Source, up: float) -> list[str]:
    name, message = source.pick(_USERS), f"{source.below(16**10):010X}"
    begin = f"postfix/smtp[{1000 + source.below(30000)}]: {message}:"
    delay = source.waiting(1.5)
    return [f"{begin} to=<{name}@example.org>, relay=mx.example.org[192.0.2.25]:25, delay={delay:.2g}, status=sent"]
