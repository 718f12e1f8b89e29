"""HTML documents, for several tests: whether they are well formed, and refer to nothing outside of themselves."""

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Elements(HTMLParser):
    """The elements of a document; fails on an end that belongs to no start."""

    def __init__(self, document):
        super().__init__()
        self.attributes, self.open = [], []
        self.feed(document)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def assert_self_contained(document):
    elements = Elements(document)
    for tag, name, value in elements.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert value.startswith(("#", "data:")), (tag, name, value)
    assert not re.search(r"url\((?!#|'?data:)|@import", document)
    ids = [value for _, name, value in elements.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for _, name, value in elements.attributes:
        if name in ("href", "xlink:href") and value.startswith("#"):
            assert value[1:] in ids
    for target in re.findall(r"url\(#([^)]+)\)", document):
        assert target in ids
