import hashlib

import pytest

from api.keys import ApiKeys
from model.errors import ConfigError


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_keys_are_known_by_their_digest(tmp_path):
    digest = hashlib.sha256(b"secret").hexdigest()
    keys = ApiKeys.from_file(write(tmp_path / "keys", "# ours", f"{digest}  -", ""))
    assert keys.accept(b"secret")
    assert not keys.accept(b"secret ")
    assert not keys.accept(digest.encode())


@pytest.mark.parametrize(("lines", "named"), [(["# none"], "no key"), (["", "abc"], "line 2")])
def test_a_file_without_good_keys_is_refused(tmp_path, lines, named):
    with pytest.raises(ConfigError, match=named):
        ApiKeys.from_file(write(tmp_path / "keys", *lines))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="api_key_file"):
        ApiKeys.from_file(tmp_path / "none")
