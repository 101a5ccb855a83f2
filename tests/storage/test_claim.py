"""The claim on an output folder: refused, made, locked, given back."""

from __future__ import annotations

import pytest

from dask_dedup.errors import OutputError
from dask_dedup.storage.claim import Claim, remove_names
from dask_dedup.storage.folder_lock import FolderLock


def nothing() -> None:
    """Allow whatever is there."""


def refuse() -> None:
    raise OutputError("it is not yours")


def test_claim_makes_locks_and_leaves_no_empty_folder(tmp_path):
    with Claim(tmp_path / "a" / "out", nothing) as claim:
        assert FolderLock(tmp_path / "a" / "out").is_held()
        claim.check_own()
        claim.check_after_pause()
        with pytest.raises(OutputError, match="another run is writing"), Claim(claim.path, nothing):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_there", [True, False])
def test_claim_keeps_what_was_there_or_was_written(tmp_path, is_there):
    out = tmp_path / "out"
    if is_there:
        out.mkdir()
    with Claim(out, nothing):
        if not is_there:
            (out / "result").write_text("1")
    assert out.is_dir()
    assert [path.name for path in out.iterdir()] == ([] if is_there else ["result"])


def test_claim_refused_changes_nothing(tmp_path):
    with pytest.raises(OutputError, match="it is not yours"), Claim(tmp_path / "out", refuse):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="file: is a file; the output needs a folder"),
        Claim(tmp_path / "file", nothing),
    ):
        pass
    with (
        pytest.raises(OutputError, match=r"cannot be written \(Not a directory\)"),
        Claim(tmp_path / "file" / "out", nothing),
    ):
        pass


def test_claim_of_a_link_that_leads_nowhere_is_refused(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    with (
        pytest.raises(OutputError, match=r"out: is a link to .*gone, which is not there"),
        Claim(tmp_path / "out", nothing),
    ):
        pass
    assert not (tmp_path / "gone").exists()


def test_claim_given_back_never_removes_the_lock_of_the_next_owner(tmp_path):
    """The next owner may come as soon as the lock is released, before `__exit__` returns."""
    out = tmp_path / "out"
    second = Claim(out, nothing)

    class LetsTheNextIn(FolderLock):
        def release(self) -> None:
            super().release()
            second.__enter__()

    with Claim(out, nothing, LetsTheNextIn(out)):
        pass
    try:
        with pytest.raises(OutputError, match="another run is writing"), Claim(out, nothing):
            pass
    finally:
        second.__exit__(None, None, None)


def test_remove_names_takes_folders_files_and_links_but_not_what_they_lead_to(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "kept.txt").write_text("")
    out = tmp_path / "out"
    (out / "folder" / "more").mkdir(parents=True)
    (out / "file.json").write_text("")
    (out / "notes.txt").write_text("")
    (out / "link").symlink_to(tmp_path / "theirs")
    remove_names(out, ["folder", "file.json", "link", "absent"])
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    assert (tmp_path / "theirs" / "kept.txt").exists()
