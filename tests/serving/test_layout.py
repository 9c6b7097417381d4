"""Meshes over any number of chips, and which layouts are choices of their own on them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import PaLMConfig
from model.errors import ConfigError
from model.layout_rules import Layout, all_layouts
from serving.layout import MeshShape, choose_mesh, exclusion, split

PALM = PaLMConfig.preset("palm-540b")
CUBE = MeshShape(x=4, y=4, z=4)


def layout_named(name: str) -> Layout:
    feed_forward, attention = name.split("/")
    return Layout(feed_forward=feed_forward, attention=attention)


@pytest.mark.parametrize(
    ("chips", "mesh"),
    # x = sqrt(n) / 2 (Pope et al. 2022, section 3.2.2); at 8 both neighbours of 1.4 tie.
    [(64, (4, 4, 4)), (256, (8, 4, 8)), (16, (2, 2, 4)), (8, (2, 2, 2)), (4, (2, 1, 2))],
)
def test_the_mesh_is_the_papers(chips, mesh):
    assert choose_mesh(PALM, chips) == MeshShape.of(mesh, chips)


@given(st.integers(1, 4096))
def test_every_number_of_chips_has_a_mesh(chips):
    mesh = choose_mesh(PALM, chips)
    assert mesh.chips == chips
    assert PALM.d_model % mesh.x == 0


def test_a_mesh_in_which_2d_would_be_1d_is_avoided():
    assert choose_mesh(PALM, 6).x > 1
    # 7 divides neither 7 chips further nor the model's width.
    assert choose_mesh(PALM, 7) == MeshShape(x=1, y=1, z=7)


def test_meshes_are_checked():
    with pytest.raises(ConfigError, match="chips=0 must be at least 1"):
        choose_mesh(PALM, 0)
    with pytest.raises(ConfigError, match="mesh axis y=0 must be at least 1"):
        MeshShape(x=1, y=0, z=1)
    for shape in ((4, 4), (4, 4, 3)):
        with pytest.raises(ConfigError, match=r"mesh=4,4.* must be 3 sizes .* chips=64"):
            MeshShape.of(shape, 64)


def test_an_axis_is_split_by_what_divides_it():
    assert split(64, ("x", "y", "z"), CUBE) == 64
    assert split(24, ("x", "y", "z"), CUBE) == 4
    assert split(3, ("x", "y", "z"), CUBE) == 1


def test_on_a_cube_with_enough_sequences_only_one_layout_is_double():
    reasons = {layout.name: exclusion(layout, CUBE, 64) for layout in all_layouts()}
    assert {name for name, reason in reasons.items() if reason} == {"gather-xyz/heads"}
    assert reasons["gather-xyz/heads"] == "the same as gather-xyz/batch: heads are not split"


@pytest.mark.parametrize(
    ("name", "mesh", "batch", "reason"),
    [
        ("2d/batch", (1, 2, 4), 64, "the same as 1d: mesh axis x is 1"),
        ("gather-x/heads", (1, 2, 4), 64, "the same as 1d: mesh axis x is 1"),
        ("gather-xy/heads", (2, 1, 4), 64, "the same as gather-x: mesh axis y is 1"),
        ("gather-xyz/batch", (2, 4, 1), 64, "the same as gather-xy: mesh axis z is 1"),
        ("gather-xy/batch", (2, 2, 2), 6, "batch=6 must be a multiple of the 4 chips"),
        ("2d/batch", (2, 2, 2), 1, "attention cannot split batch=1 further over mesh 2x2x2"),
        ("2d/heads", (1, 1, 1), 8, "one chip: nothing is split"),
    ],
)
def test_a_layout_that_is_no_choice_says_why(name, mesh, batch, reason):
    shape = MeshShape(x=mesh[0], y=mesh[1], z=mesh[2])
    assert reason in exclusion(layout_named(name), shape, batch)
