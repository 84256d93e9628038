"""Files and folders that are whole or absent: failures, kills, and two processes at once."""

import contextlib
import os
import subprocess
import sys
import tempfile

import pytest

from ssl_lens.errors import InputError
from ssl_lens.files import check_folder, remove_abandoned, remove_folder, whole_file, whole_folder


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_at_the_end_or_left(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("first", "second"):
        with whole_file(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    with contextlib.suppress(OSError), whole_file(path) as temporary:
        temporary.write_text("half")
        raise OSError("full")
    assert (path.read_text(), _names(tmp_path)) == ("second", ["a.txt"])


def test_a_folder_appears_at_the_end_or_not(tmp_path):
    path = tmp_path / "deep" / "a"
    for fails in (True, False):
        try:
            with whole_folder(path) as made:
                (made / "x").write_text("x")
                assert not path.exists()
                if fails:
                    raise OSError("full")
        except OSError:
            assert fails
        assert _names(path.parent) == ([] if fails else ["a"])
    assert _names(path) == ["x"]
    with pytest.raises(OSError, match="not empty"), whole_folder(path) as made:
        (made / "y").write_text("y")
    assert (_names(path.parent), _names(path)) == (["a"], ["x"])


def test_what_killed_processes_left_is_removed_and_what_others_use_is_not(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from ssl_lens.files import whole_folder\n"
        "with whole_folder(Path(sys.argv[1])) as made:\n"
        "    (made / 'half').write_text('x'); print(made, flush=True); sys.stdin.read()"
    )
    others = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("killed", "alive")
    ]
    for other in others:
        assert other.stdout.readline().startswith(str(tmp_path))
    assert len(_names(tmp_path)) == 2  # both at work
    others[0].kill()
    others[0].communicate()
    assert len(_names(tmp_path)) == 2
    with whole_folder(tmp_path / "ours") as made:
        (made / "x").write_text("x")
    assert len(_names(tmp_path)) == 2  # ours, and what is in use
    others[1].communicate("", timeout=20)
    assert _names(tmp_path) == ["alive", "ours"]
    assert _names(tmp_path / "alive") == ["half"]


def test_a_folder_that_is_just_being_made_is_left_alone(tmp_path):
    for name in ("no_lock", "not_yet_locked"):
        (tmp_path / f".making-{name}").mkdir()
    (tmp_path / ".making-not_yet_locked" / "lock").touch()
    with whole_folder(tmp_path / "a"):
        pass
    assert _names(tmp_path) == [".making-no_lock", ".making-not_yet_locked", "a"]


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)])
def test_who_may_read_is_decided_by_the_umask(tmp_path, umask, file_mode, folder_mode):
    before = os.umask(umask)
    try:
        with whole_file(tmp_path / "a") as temporary:
            _replace_by_a_private_file(temporary)
        with whole_folder(tmp_path / "b") as made:
            (made / "deep").mkdir()
            _replace_by_a_private_file(made / "deep" / "c")
    finally:
        os.umask(before)
    modes = {path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"a": file_mode, "b": folder_mode, "b/deep": folder_mode, "b/deep/c": file_mode}


def _replace_by_a_private_file(path):
    """As libraries do that write through `tempfile`."""
    descriptor, private = tempfile.mkstemp(dir=path.parent)
    os.close(descriptor)
    os.replace(private, path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_is_looked_at_before_hours_are_spent(tmp_path, monkeypatch):
    check_folder(tmp_path / "new" / "deeper")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/new"):
        with pytest.raises(InputError, match=f"{folder} cannot be written: {tmp_path / 'file'} is not a folder; give"):
            check_folder(tmp_path / folder)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # a user's; root may write everywhere
    with pytest.raises(InputError, match=f"there is no right to write in {tmp_path}; give another place"):
        check_folder(tmp_path / "new")


def test_a_folder_is_gone_from_the_first_moment_of_its_removal(tmp_path):
    """Stopped half-way it leaves nothing of its name, and the next process removes the rest."""
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "x").write_text("x")
    code = (
        "import os, signal, shutil, sys; from pathlib import Path; from ssl_lens import files\n"
        "shutil.rmtree = lambda *given, **how: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.remove_folder(Path(sys.argv[1]))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")]).returncode == -9
    assert not (tmp_path / "a").exists()
    assert len(_names(tmp_path)) == 1
    remove_abandoned(tmp_path)
    assert _names(tmp_path) == []
    (tmp_path / "b").mkdir()
    remove_folder(tmp_path / "b")
    assert _names(tmp_path) == []


def test_an_empty_folder_is_removed_once_it_cannot_be_about_to_be_locked(tmp_path):
    (tmp_path / ".making-old").mkdir()
    (tmp_path / ".making-new").mkdir()
    os.utime(tmp_path / ".making-old", (0, 0))
    remove_abandoned(tmp_path)
    assert _names(tmp_path) == [".making-new"]
