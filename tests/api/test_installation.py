import sys

import pytest

from api.errors import StartupError
from api.installation import check_packages


def test_our_own_packages_pass():
    check_packages()


def test_a_missing_package_is_named():
    with pytest.raises(StartupError, match="no_such_package"):
        check_packages(["no_such_package"])


def test_a_package_from_elsewhere_is_named_with_both_paths(tmp_path, monkeypatch):
    foreign = tmp_path / "foreign_safety"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(StartupError, match=str(foreign)) as refused:
        check_packages(["foreign_safety"])
    assert "expected" in str(refused.value)
    sys.modules.pop("foreign_safety", None)
