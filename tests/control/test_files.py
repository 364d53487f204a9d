"""Whether a file has changed, as its states say."""

import os
from pathlib import Path

import pytest

from router.control.files import has_changed, look_at


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "router.yaml"
    path.write_text("one")
    return path


def test_a_file_that_was_left_alone_has_not_changed(file: Path):
    before = look_at(file)
    after = look_at(file, before)
    assert after is before
    assert not has_changed(before, after)


def test_other_content_is_a_change_even_of_the_same_size_and_time(file: Path):
    before = look_at(file)
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_text("two")
    os.utime(file, ns=times)
    assert has_changed(before, look_at(file, before))


def test_the_same_content_written_again_is_no_change(file: Path):
    before = look_at(file)
    partial = file.with_suffix(".new")
    partial.write_text("one")
    partial.replace(file)
    after = look_at(file, before)
    assert after is not before
    assert not has_changed(before, after)


def test_a_file_that_is_away_is_no_change_and_its_return_is_none_either(file: Path):
    before = look_at(file)
    file.unlink()
    away = look_at(file, before)
    assert not has_changed(before, away)


def test_a_swapped_link_is_a_change(tmp_path: Path):
    for name in ("first", "second"):
        (tmp_path / name).write_text(name)
    link = tmp_path / "link"
    link.symlink_to("first")
    before = look_at(link)
    (tmp_path / "next").symlink_to("second")
    (tmp_path / "next").replace(link)
    assert has_changed(before, look_at(link, before))
