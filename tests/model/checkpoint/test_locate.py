"""Models by name and by path."""

import pytest

from model.checkpoint import embedded_names, embedded_path, resolve_model, save_pretrained
from model.errors import CheckpointError


def test_a_folder_is_its_own_path(make_model, palm, folder):
    save_pretrained(folder, palm, make_model(palm).params, None)
    assert resolve_model(folder) == folder
    assert resolve_model(str(folder)) == folder


def test_an_embedded_model_goes_by_name():
    for name in embedded_names():
        assert resolve_model(name) == embedded_path(name)
        assert (embedded_path(name) / "model.safetensors").is_file()


def test_what_was_tried_is_listed(tmp_path):
    with pytest.raises(CheckpointError, match=r"no model 'nothing': tried the embedded .*/nothing"):
        resolve_model("nothing")
    with pytest.raises(CheckpointError, match=r"which has no config\.json"):
        resolve_model(tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(CheckpointError, match="which is a file, not a folder"):
        resolve_model(file)
    with pytest.raises(CheckpointError, match="no embedded model 'nothing'"):
        embedded_path("nothing")
