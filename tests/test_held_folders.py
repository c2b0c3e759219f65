"""Folders of processes: kept while they live or are stopped, gone after they are killed."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from swefactory.held_folders import held_folder, own_temporary_files, sweep

_HOLDER = """
import sys, time, tempfile
from pathlib import Path
from swefactory.held_folders import own_temporary_files
with own_temporary_files(Path(sys.argv[1])):
    print(tempfile.mkdtemp(prefix="named-"), flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_stopped_one_holds_is_not(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    ) as holder:
        assert holder.stdout
        made = Path(holder.stdout.readline().strip())
        holder.send_signal(signal.SIGSTOP)
        assert sweep(tmp_path) == 0
        assert made.is_relative_to(tmp_path)
        assert made.exists()
        holder.kill()
    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []
    assert sweep(tmp_path) == 0


def test_it_ends_with_its_context_whatever_was_made_inside(tmp_path: Path) -> None:
    with held_folder(tmp_path) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").touch()
        (folder / "inner").chmod(0o500)
        assert sweep(tmp_path) == 0
        assert folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_go_where_they_were_before_afterwards(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    with own_temporary_files(tmp_path), tempfile.NamedTemporaryFile() as file:
        assert Path(file.name).is_relative_to(tmp_path)
    assert tempfile.gettempdir() == before
