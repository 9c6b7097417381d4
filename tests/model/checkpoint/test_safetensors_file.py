"""Our safetensors reading and writing against the library, and against damage."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from model.checkpoint.safetensors_file import (
    TensorSource,
    have_same_bytes,
    read_header,
    read_tensor,
    write_safetensors,
)
from model.errors import CheckpointError

TENSORS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b.c": np.array([-128, 0, 127], np.int8),
    "half": np.array([[0.5], [-2.0]], np.float16),
    "brain": np.array([1.5, -3.0], ml_dtypes.bfloat16),
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 5), np.float32),
}


def write(path, tensors=TENSORS, metadata=None):
    sources = {
        name: TensorSource(dtype=array.dtype, shape=array.shape, load=lambda array=array: array)
        for name, array in tensors.items()
    }
    write_safetensors(path, sources, metadata)
    return path


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def read_all(path):
    return {name: read_tensor(entry) for name, entry in read_header(path).items()}


def test_the_library_reads_what_we_write(tmp_path):
    path = write(tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert_same(safetensors.numpy.load_file(path), TENSORS)
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_we_read_what_the_library_writes(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(TENSORS, path, metadata={"format": "pt"})
    assert_same(read_all(path), TENSORS)


def test_views_are_written_by_value(tmp_path):
    path = write(tmp_path / "x.safetensors", {"t": TENSORS["a"].T})
    assert_same(read_all(path), {"t": TENSORS["a"].T.copy()})


@pytest.mark.parametrize("kept", [0, 4, 8, 40, -1])
def test_a_truncated_file_is_refused_by_name(tmp_path, kept):
    path = write(tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        read_header(path)


def test_trailing_bytes_are_refused(tmp_path):
    path = write(tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes() + b"?")
    with pytest.raises(CheckpointError, match="trailing bytes"):
        read_header(path)


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_header(tmp_path / "absent.safetensors")


@given(noise=st.binary(max_size=200))
def test_noise_is_refused(tmp_path_factory, noise):
    path = tmp_path_factory.mktemp("noise") / "x.safetensors"
    path.write_bytes(noise)
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        read_header(path)


@given(position=st.integers(min_value=0), value=st.integers(0, 255))
def test_a_changed_header_byte_never_escapes_as_another_error(tmp_path_factory, position, value):
    path = write(tmp_path_factory.mktemp("flip") / "x.safetensors")
    raw = bytearray(path.read_bytes())
    raw[position % (8 + int.from_bytes(raw[:8], "little"))] = value
    path.write_bytes(raw)
    try:
        outcome = len(read_all(path))
    except CheckpointError as error:
        outcome = "x.safetensors" in str(error)
    assert outcome in (len(TENSORS), True)


def with_header(path, header):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(16))
    return path


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "expected an object"),
        (b'{"a": {}, "a": {}}', "'a' appears twice"),
        ({"a": 3}, "'a' has no description"),
        ({"a": F32 | {"dtype": "Q4"}}, "unknown dtype 'Q4'"),
        ({"a": F32 | {"shape": [-2]}}, "malformed shape"),
        ({"a": F32 | {"shape": [True]}}, "malformed shape"),
        ({"a": F32 | {"data_offsets": [0]}}, "malformed"),
        ({"a": F32 | {"data_offsets": [0, 4]}}, "takes 8 bytes"),
        ({"a": F32, "b": F32}, "starts at byte"),
        ({"a": F32 | {"data_offsets": [8, 16]}}, "starts at byte"),
        ({"a": F32}, "trailing bytes"),
    ],
)
def test_a_malformed_header_is_refused(tmp_path, header, message):
    path = with_header(tmp_path / "x.safetensors", header)
    with pytest.raises(CheckpointError, match=message):
        read_header(path)


def test_a_sound_file_of_a_foreign_type_is_refused_when_read(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"a": np.arange(3)}, path)
    with pytest.raises(CheckpointError, match="dtype I64"):
        read_tensor(read_header(path)["a"])


def test_a_wrong_shape_from_a_source_is_refused(tmp_path):
    source = TensorSource(dtype=np.dtype(np.float32), shape=(2,), load=lambda: np.zeros(3))
    with pytest.raises(CheckpointError, match="found shape"):
        write_safetensors(tmp_path / "x.safetensors", {"a": source})


def test_same_bytes(tmp_path):
    values = {"a": 1, "b": 1, "c": 2}
    arrays = {name: np.full(9, value, np.float32) for name, value in values.items()}
    entries = read_header(write(tmp_path / "x.safetensors", arrays))
    assert have_same_bytes(entries["a"], entries["b"])
    assert not have_same_bytes(entries["a"], entries["c"])
