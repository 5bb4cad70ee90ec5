"""What paths name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dmnet.core import links
from dmnet.core.errors import MissingInputError
from dmnet.pipeline.predict.inputs import find_inputs


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def ids(*paths: Path | str) -> list[str]:
    return [each.id for each in find_inputs([str(path) for path in paths]).files]


def test_folders_are_searched_with_subfolders(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a/c.PNG", "a/d e'é.tif", ".hidden/x.jpg", "a/.y.jpg")
    assert ids(tmp_path) == ["a/c.PNG", "a/d e'é.tif", "b.jpg"]


def test_other_files_are_counted_not_blamed(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "b.txt", "c.txt", "readme")
    found = find_inputs([str(tmp_path)])
    assert found.problems == {}
    assert {suffix: len(paths) for suffix, paths in found.left_out.items()} == {
        ".txt": 2,
        "readme": 1,
    }


def test_files_globs_and_lists(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.jpg", "x/2.jpg", "x/y/3.jpg")
    assert ids(tmp_path / "x/1.jpg") == ["1.jpg"]
    assert ids(tmp_path / "x" / "*.jpg") == ["1.jpg", "2.jpg"]
    assert ids(tmp_path / "**" / "*.jpg") == ["x/1.jpg", "x/2.jpg", "x/y/3.jpg"]
    (tmp_path / "list.txt").write_text("x/1.jpg\n\nx/y/3.jpg\nx/none.jpg\n")
    found = find_inputs([str(tmp_path / "list.txt")])
    assert [each.id for each in found.files] == ["x/1.jpg", "x/y/3.jpg"]
    assert list(found.problems.values()) == ["no such file"]


def test_a_file_named_twice_counts_once(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    assert ids(tmp_path, tmp_path / "1.jpg", tmp_path / "*.jpg") == ["1.jpg"]


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "c/a/1.jpg")
    found = ids(tmp_path / "a", tmp_path / "b", tmp_path / "c/a")
    assert found[-1] == "b/1.jpg"
    assert len(set(found)) == 3
    assert all(name.endswith("a/1.jpg") for name in found[:2])


def test_stems_are_told_apart(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png", "b.c.jpg")
    stems = {each.id: each.stem for each in find_inputs([str(tmp_path)]).files}
    assert stems == {"a.jpg": "a.jpg", "a.png": "a.png", "b.c.jpg": "b.c"}


def test_odd_names_become_printable_and_short(tmp_path: Path) -> None:
    touch(tmp_path, "line\nbreak.jpg", "l" * 240 + ".jpg")
    (tmp_path / os.fsdecode(b"bad\xff.jpg")).write_bytes(b"x")
    found = ids(tmp_path)
    assert "line\N{REPLACEMENT CHARACTER}break.jpg" in found
    assert "bad\N{REPLACEMENT CHARACTER}.jpg" in found
    assert all(len(name.encode()) <= 120 and name.endswith(".jpg") for name in found)


def test_nothing_to_predict_on(tmp_path: Path) -> None:
    touch(tmp_path, "a.doc")
    with pytest.raises(MissingInputError, match="nothing to predict on"):
        find_inputs([str(tmp_path)])
    with pytest.raises(MissingInputError, match="no such file or folder"):
        find_inputs([str(tmp_path / "none")])
    with pytest.raises(MissingInputError, match="not a picture by its name"):
        find_inputs([str(tmp_path / "a.doc")])


def test_links_that_lead_out_of_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "given/a.jpg", "elsewhere/secret.jpg")
    folder = tmp_path / "given"
    (folder / "b.jpg").symlink_to(tmp_path / "elsewhere" / "secret.jpg")
    (folder / "sub").mkdir()
    (folder / "sub" / "c.jpg").symlink_to(folder / "a.jpg")
    found = find_inputs([str(folder)])
    assert [each.id for each in found.files] == ["a.jpg"]
    assert "--follow-links" in found.problems[str(folder / "b.jpg")]
    (tmp_path / "link").symlink_to(folder)  # the folder itself may be one
    assert ids(tmp_path / "link") == ["a.jpg"]
    token = links.ALLOWED.set(True)
    try:
        assert ids(folder) == ["a.jpg", "b.jpg"]
    finally:
        links.ALLOWED.reset(token)
