"""detectron2.structures.Instances."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from detectron2.structures import Boxes, Instances


def three() -> Instances:
    return Instances(
        (20, 10),
        boxes=Boxes(torch.arange(12.0).reshape(3, 4)),
        scores=torch.tensor([0.1, 0.5, 0.9]),
        names=["a", "b", "c"],
    )


def test_fields() -> None:
    found = three()
    assert found.image_size == (20, 10)
    assert len(found) == 3
    assert found.names == ["a", "b", "c"]
    assert found.get("scores") is found.scores
    assert found.has("scores")
    assert not found.has("masks")
    found.remove("scores")
    assert set(found.get_fields()) == {"boxes", "names"}
    found.set("scores", [1, 2, 3])
    found.names = "xyz"
    assert (found.scores, found.names) == ([1, 2, 3], "xyz")


def test_missing_fields() -> None:
    with pytest.raises(AttributeError, match="masks"):
        three().masks  # noqa: B018
    with pytest.raises(KeyError):
        three().get("masks")
    with pytest.raises(KeyError):
        three().remove("masks")
    assert getattr(three(), "masks", None) is None


def test_fields_of_another_length_are_refused() -> None:
    with pytest.raises(AssertionError, match="2"):
        three().set("labels", [1, 2])
    with pytest.raises(AssertionError):
        Instances((1, 1), a=[1], b=[1, 2])


def test_without_fields_there_is_no_length() -> None:
    with pytest.raises(NotImplementedError):
        len(Instances((5, 5)))


def test_iteration_is_refused() -> None:
    with pytest.raises(NotImplementedError):
        iter(three())


def test_indexing() -> None:
    mask = torch.tensor([True, False, True])
    numeric = Instances((20, 10), boxes=three().boxes, scores=three().scores)
    assert numeric[mask].scores.tolist() == pytest.approx([0.1, 0.9])
    assert len(numeric[mask].boxes) == 2
    assert numeric[torch.tensor([2, 0, 0])].scores.tolist() == pytest.approx([0.9, 0.1, 0.1])
    assert len(numeric[torch.zeros(3, dtype=torch.bool)]) == 0
    assert numeric[mask].image_size == (20, 10)
    for index in (1, -2):
        one = three()[index]
        assert (one.names, one.boxes.tensor.shape) == (["b"], (1, 4))
    assert three()[1:].names == ["b", "c"]
    assert three()[-1].names == ["c"]
    for index in (3, -4):
        with pytest.raises(IndexError):
            three()[index]


def test_to_moves_what_can_be_moved() -> None:
    moved = three().to("cpu")
    assert moved.names == ["a", "b", "c"]
    assert moved.boxes.tensor.tolist() == three().boxes.tensor.tolist()
    doubles = Instances((1, 1), scores=torch.ones(2)).to(torch.float64)
    assert doubles.scores.dtype == torch.float64


def test_cat() -> None:
    joined = Instances.cat([three(), three()[:1]])
    assert joined.names == ["a", "b", "c", "a"]
    assert joined.scores.tolist() == pytest.approx([0.1, 0.5, 0.9, 0.1])
    assert len(joined.boxes) == 4
    single = three()
    assert Instances.cat([single]) is single
    assert len(Instances.cat([three()[3:], three()])) == 3


def test_cat_of_what_does_not_fit() -> None:
    other_size = Instances((9, 9), **three().get_fields())
    with pytest.raises(AssertionError):
        Instances.cat([])
    with pytest.raises(AssertionError):
        Instances.cat([three(), other_size])
    with pytest.raises(AssertionError):
        Instances.cat([three(), [1]])
    with pytest.raises(ValueError, match="type"):
        Instances.cat([Instances((1, 1), a=(1,)), Instances((1, 1), a=(2,))])


def test_text_names_count_size_and_fields() -> None:
    text = str(three())
    assert text == repr(three())
    for part in ("num_instances=3", "image_height=20", "image_width=10", "names: ['a', 'b', 'c']"):
        assert part in text


@pytest.mark.embedded_only
def test_text_without_fields() -> None:
    assert "num_instances=unknown" in str(Instances((1, 2)))


def test_copies() -> None:
    for duplicate in (copy.deepcopy(three()), pickle.loads(pickle.dumps(three()))):
        assert duplicate.names == ["a", "b", "c"]
        assert duplicate.image_size == (20, 10)
