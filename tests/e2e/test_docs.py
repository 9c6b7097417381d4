"""The page /docs, which must work where there is no internet."""

import re

import pytest


@pytest.fixture
def page(http):
    response = http.get("/docs")
    assert response.status_code == 200
    return response.text


def test_it_loads_nothing_from_elsewhere(http, page):
    urls = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(urls) >= 3
    for url in urls:
        assert url.startswith("/"), url
        assert http.get(url).status_code == 200


def test_it_shows_our_openapi_document(http, page):
    (url,) = re.findall(r"url: '([^']+)'", page)
    document = http.get(url).json()
    assert document["info"]["title"] == "Talipot"
    assert "/v1/completions" in document["paths"]
