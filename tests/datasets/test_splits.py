"""Splits of one folder: which image goes where, that nothing moves, and what can be wrong."""

from __future__ import annotations

import hashlib
import logging
import random
import unicodedata
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cell_records import make_record
from cellseg.cells.records import ImageRecord
from cellseg.datasets.split_plans import (
    Grouping,
    SplitPlan,
    build_plan,
    find_plan_problems,
    is_grouping,
)
from cellseg.datasets.splits import (
    assign_splits,
    find_groups,
    hash_group,
    read_ids,
    select_split,
    split_of_group,
)
from cellseg.errors import DatasetError

NOWHERE = Path("nowhere")
CLASSES = ("long", "round")
SHARES = (("train", Fraction("0.8")), ("val", Fraction("0.1")), ("test", Fraction("0.1")))
PLATES = Grouping(pattern=r"^(plate\d+_well\w)")


def record(image_id: str, *classes: str) -> ImageRecord:
    numbers = [CLASSES.index(name) for name in classes]
    masks = np.ones((len(classes), 1, 1), bool)
    return make_record(image_id, Path(f"{image_id}.png"), masks, (1, 1), classes=numbers)


def plate_ids(rng: random.Random, count: int) -> list[str]:
    return sorted(
        {
            f"plate{rng.randrange(40)}_well{rng.choice('ABCD')}_t{rng.randrange(20)}"
            for _ in range(count)
        }
    )


def parse(text: str) -> tuple[SplitPlan | None, list[str]]:
    content = yaml.safe_load(text)
    problems = list(find_plan_problems(content, lambda source: isinstance(source, str)))
    return (None if problems else build_plan(content)), problems


def test_hash_is_the_one_that_is_documented() -> None:
    digest = hashlib.sha256(b'["v1", "plate1_wellA"]').hexdigest()
    assert hash_group("plate1_wellA", "v1") == int(digest[:16], 16)
    # As computed by `printf '["", "a"]' | sha256sum`: a change here would move everybody's images.
    assert hash_group("a") == 0xD2E886C4F2C60D73
    assert hash_group("a", "v2") != hash_group("a", "v1")


def test_hash_of_an_accent_does_not_depend_on_the_file_system() -> None:
    composed, decomposed = (unicodedata.normalize(form, "Zürich_é") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert hash_group(composed) == hash_group(decomposed)


def test_intervals_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = {
        0: "train",
        (8 * 2**64 - 1) // 10: "train",  # the last below 0.8
        8 * 2**64 // 10 + 1: "val",
        9 * 2**64 // 10 + 1: "test",
        2**64 - 1: "test",
    }
    for place, split in ends.items():
        monkeypatch.setattr("cellseg.datasets.splits.hash_group", lambda *_, at=place: at)
        assert split_of_group("x", SHARES) == split
        assert split_of_group("x", SHARES[:2]) == (None if split == "test" else split)


@pytest.mark.parametrize("seed", range(20))
def test_adding_images_moves_no_old_one_and_no_group_straddles(seed: int) -> None:
    rng = random.Random(seed)
    ids = plate_ids(rng, 600)
    some = sorted(rng.sample(ids, rng.randrange(1, len(ids))))
    plan = SplitPlan("all", SHARES, seed=f"v{seed}", grouping=PLATES)
    of_all, of_some = (assign_splits(chosen, plan, NOWHERE) for chosen in (ids, some))
    assert set(of_all) == set(ids)  # the shares add up to 1
    assert of_some == {image_id: of_all[image_id] for image_id in some}
    by_group: dict[str, set[str]] = {}
    for image_id, split in of_all.items():
        by_group.setdefault(image_id.rsplit("_", 1)[0], set()).add(split)
    assert all(len(splits) == 1 for splits in by_group.values())


@pytest.mark.parametrize("seed", range(5))
def test_order_of_images_and_another_split_behind_change_nothing(seed: int) -> None:
    ids = plate_ids(random.Random(seed), 300)
    two, three = (SplitPlan("all", SHARES[:count], grouping=PLATES) for count in (2, 3))
    before = assign_splits(ids, two, NOWHERE)
    after = assign_splits(ids[::-1], three, NOWHERE)
    assert before.items() < after.items()
    assert {after[image_id] for image_id in set(ids) - set(before)} == {"test"}


def test_every_image_is_in_one_split_and_shares_are_met_on_average() -> None:
    records = [record(f"image_{number}") for number in range(4000)]
    plan = SplitPlan("all", SHARES)
    parts = {split: select_split(records, plan, split, NOWHERE, CLASSES) for split, _ in SHARES}
    ids = [one.image_id for part in parts.values() for one in part]
    assert sorted(ids) == sorted(one.image_id for one in records)
    for split, share in SHARES:
        expected = 4000 * share
        deviation = float(expected * (1 - share)) ** 0.5
        assert abs(len(parts[split]) - expected) < 4 * deviation


def test_another_seed_deals_anew() -> None:
    ids = [f"image_{number}" for number in range(200)]
    first, second = (
        assign_splits(ids, SplitPlan("all", SHARES, seed=s), NOWHERE) for s in ("1", "2")
    )
    assert first != second


def test_plan_of_a_declaration() -> None:
    plan, problems = parse(
        r"""
splits:
  train: {from: all, share: 0.7}
  val: {from: all, share: 0.2}
  test: {from: all, share: 0.1}
  other: day_2
split_seed: 3
group_by: '^(plate\d+)'
"""
    )
    assert problems == []
    assert plan == SplitPlan(
        "all",
        (("train", Fraction(7, 10)), ("val", Fraction(2, 10)), ("test", Fraction(1, 10))),
        seed="3",
        grouping=Grouping(pattern=r"^(plate\d+)"),
    )
    plan, problems = parse(
        "{splits: {train: {from: all, ids: [a, b]}, val: {from: all, ids: val.txt}},"
        " group_by: {csv: wells.csv, column: well, id: image}}"
    )
    assert problems == []
    assert plan == SplitPlan(
        "all",
        lists=(("train", ("a", "b")), ("val", "val.txt")),
        grouping=Grouping(csv="wells.csv", id_column="image", group_column="well"),
    )
    assert parse("splits: [train, val]") == (None, [])
    assert parse("splits: {train: day_1}") == (None, [])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "splits: {a: {from: all, share: 0.8}, b: {from: all, share: 0.3}}",
            "splits: the shares add up to 1.1; they may add up to 1 at most",
        ),
        ("splits: {a: {from: all, share: 0}}", "splits.a.share: found 0, expected a number above"),
        ("splits: {a: {from: all, share: 80}}", "splits.a.share: found 80"),
        ("splits: {a: {from: all, share: true}}", "splits.a.share: found True"),
        ("splits: {a: {from: all, share: half}}", "splits.a.share: found 'half'"),
        ("splits: {a: {from: all, share: .nan}}", "splits.a.share: found nan"),
        ("splits: {a: {from: all}}", "splits.a: expected either share or ids beside from"),
        ("splits: {a: {from: all, share: 1, ids: [x]}}", "splits.a: expected either share or ids"),
        (
            "splits: {a: {from: all, shares: 1}}",
            "splits.a.shares: unknown key; did you mean share?",
        ),
        ("splits: {a: {from: all, share: 1, xyz: 1}}", "splits.a.xyz: unknown key; known are"),
        ("splits: {a: {from: 3, share: 1}}", "splits.a.from: 3 is nothing that this format reads"),
        ("splits: {a: {from: all, ids: [1, 2]}}", "splits.a.ids: found [1, 2], expected a list"),
        ("splits: {a: {from: all, ids: [x, x]}}", "splits.a.ids: found ['x', 'x'], expected a"),
        ("splits: {a: {from: all, ids: []}}", "splits.a.ids: found []"),
        ("splits: {a: {from: all, ids: x}}", "splits.a.ids: found 'x'"),
        (
            "splits: {a: {from: all, ids: [x]}, b: {from: all, share: 0.1}}",
            "splits: shares (b) and lists of ids cannot be mixed",
        ),
        (
            "splits: {a: {from: all, share: 0.1}, b: {from: more, share: 0.1}}",
            'splits: taken from several places ("all", "more"); declare one dataset for each',
        ),
        (
            "splits: {a: {from: all, share: 0.1}, b: all}",
            "splits.b: is all of 'all', which other splits are parts of",
        ),
        ("{splits: [a], split_seed: v1}", "split_seed: is for splits such as {from: all, share"),
        ("{splits: {a: a}, group_by: '(x)'}", "group_by: is for splits such as"),
    ],
)
def test_plans_that_cannot_be(text: str, says: str) -> None:
    plan, problems = parse(text)
    assert plan is None
    assert len(problems) == 1
    assert problems[0].startswith(says)


@pytest.mark.parametrize(
    ("value", "usable"),
    [
        (r"^(plate\d+)", True),
        ({"csv": "a.csv", "column": "well"}, True),
        ({"csv": "a.csv", "column": "well", "id": "image"}, True),
        (r"plate\d+", False),  # no group
        ("(plate", False),
        (3, False),
        ({"csv": "a.csv"}, False),
        ({"csv": "a.csv", "column": "well", "key": "x"}, False),
        ({"csv": "", "column": "well"}, False),
    ],
)
def test_group_by(value: Any, usable: bool) -> None:
    assert is_grouping(value) == usable


def test_groups_by_pattern() -> None:
    one = Grouping(pattern=r"^(plate\d+)_")
    assert find_groups(["plate1_a", "plate1_b", "plate2_a"], one, NOWHERE) == {
        "plate1_a": "plate1",
        "plate1_b": "plate1",
        "plate2_a": "plate2",
    }
    two = find_groups(["1_a_x", "1_ax", "1_a_y"], Grouping(pattern=r"(\d)_(\w)"), NOWHERE)
    assert len(set(two.values())) == 1
    ends = find_groups(["1_a", "12_", "1_2"], Grouping(pattern=r"^(\d).*(.)$"), NOWHERE)
    assert len(set(ends.values())) == 3  # ("1", "a"), ("1", "_"), ("1", "2")


def test_pattern_that_does_not_match_some_ids() -> None:
    ids = ["plate1_a", "plait2_a", "plate_b"]
    with pytest.raises(DatasetError) as caught:
        find_groups(ids, Grouping(pattern=r"^plate(\d*)"), Path("cells"))
    assert r"cells: group_by '^plate(\\d*)' finds no group in these ids (2)" in str(caught.value)
    assert "  - plait2_a\n  - plate_b\n" in str(caught.value)
    assert "docs/splits.md" in str(caught.value)


def test_groups_of_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "wells.csv").write_text("\ufeffimage,well,more\na, A1 ,x\nb,A1,x\nc,B2\nd,B2,x\n")
    grouping = Grouping(csv="wells.csv", id_column="image", group_column="well")
    assert find_groups(["a", "b", "c"], grouping, tmp_path) == {"a": "A1", "b": "A1", "c": "B2"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file or directory; expected a table with id, group"),
        ("", "no column id, group; the first line is []"),
        ("id,groop\na,1\n", "no column group; the first line is ['id', 'groop']"),
        ("id,group\na,1\n", "no row for 'image_b'"),
        ("id,group\na,1\nimage_d,1\n", "no row for 'image_b'; near names: image_d"),
        ("id,group\na,1\nimage_b,\n", "line 3: no group for 'image_b'"),
        ("id,group\na,1\nimage_b\n", "line 3: no group for 'image_b'"),
        ("id,group\na,1\nimage_b,1\na,2\n", "line 4: 'a' is in '1' and '2'"),
        ('id,group\n"a,1\n', "cannot be read as a CSV file"),
        (b"id,group\n\xff,1\n", "cannot be read as a CSV file"),
    ],
)
def test_csv_files_of_groups_that_do_not_fit(
    tmp_path: Path, content: str | bytes | None, says: str
) -> None:
    path = tmp_path / "groups.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError) as caught:
        find_groups(["a", "image_b"], Grouping(csv="groups.csv"), tmp_path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_lists_inline_and_in_files(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("# held back\nb\n\n  c \n")
    (tmp_path / "table.csv").write_text("id,split,note\nd,test,x\ne,more,y\nf,test,z\n")
    (tmp_path / "plain.csv").write_text("id\ng\n")
    lists = (
        ("train", ("a",)),
        ("val", "val.txt"),
        ("test", "table.csv"),
        ("plain", "plain.csv"),
    )
    assert assign_splits(list("abcdefgh"), SplitPlan("all", lists=lists), tmp_path) == {
        "a": "train",
        "b": "val",
        "c": "val",
        "d": "test",
        "f": "test",
        "g": "plain",
    }


def test_everything_wrong_with_lists_in_one_message(tmp_path: Path) -> None:
    lists = (
        ("train", ("plate1_a", "plate2_a", "plate3_c")),
        ("val", ("plate2_a", "plate1_b", "xyz")),
    )
    ids = ["plate1_a", "plate1_b", "plate2_a", "plate3_b"]
    plan = SplitPlan("all", lists=lists, grouping=Grouping(pattern=r"(plate\d)"))
    with pytest.raises(DatasetError) as caught:
        assign_splits(ids, plan, tmp_path)
    text = str(caught.value)
    assert f"{tmp_path}: lists of ids (4)" in text
    assert "train: no image for 'plate3_c'; near names: plate3_b" in text
    assert "val: 'plate2_a' is in train as well" in text
    assert "val: no image for 'xyz'\n" in text
    assert "group 'plate1' straddles: 'plate1_a' in train, 'plate1_b' in val" in text


def test_long_lists_of_strangers_are_fast_to_refuse() -> None:
    ids = [f"image_{number:05d}" for number in range(3000)]
    strangers = tuple(f"{image_id}.png" for image_id in ids)
    with pytest.raises(DatasetError, match=r"(?s)\(3000\).*near names.*and 2950 more"):
        assign_splits(ids, SplitPlan("all", lists=(("train", strangers),)), NOWHERE)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", None, "No such file or directory"),
        ("a.txt", b"", "no ids for 'val' in it"),
        ("a.txt", b"# only this\n", "no ids for 'val' in it"),
        ("a.txt", b"x\ny\nx\n", "ids that occur twice: x"),
        ("a.txt", b"\xff\xfe\xfa", "cannot be read as text"),
        ("a.csv", b"name\nx\n", "no column id; the first line is ['name']"),
        ("a.csv", b"id,split\nx,train\n", "no ids for 'val' in it"),
    ],
)
def test_files_of_ids_that_do_not_fit(
    tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        read_ids(tmp_path / name, "val")
    assert says in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_split_that_nothing_falls_into() -> None:
    plan = SplitPlan("all", (("train", Fraction(1, 2**40)),))
    with pytest.raises(DatasetError) as caught:
        select_split([record("a"), record("b")], plan, "train", Path("cells"), CLASSES)
    for part in ("cells: no image falls into train", "2 images in 2 groups", "split_seed"):
        assert part in str(caught.value)


def test_images_in_no_list_and_classes_that_a_split_lacks_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    records = [record("a", "round"), record("b", "long"), record("c")]
    plan = SplitPlan("all", lists=(("train", ("a",)), ("val", ("b",))))
    with caplog.at_level(logging.WARNING):
        assert select_split(records, plan, "train", NOWHERE, CLASSES) == records[:1]
    assert caplog.messages == [
        "nowhere: 1 images are in no list",
        "nowhere: train has no cell of long",
    ]
