"""The process runner: caps, clocks, and nothing left behind."""

import time
from pathlib import Path

import pytest

from swefactory.errors import InfrastructureError
from swefactory.sandboxes.commands import CappedOutput, Stop, run_command


@pytest.mark.parametrize("step", [1, 3, 7, 50, 1000])
def test_what_is_kept_does_not_depend_on_how_it_arrives(step: int) -> None:
    data = bytes(range(100)) * 3
    output = CappedOutput(51)
    for at in range(0, len(data), step):
        output.add(data[at : at + step])
    assert output.value() == data[:26] + b"\n[... 249 bytes left out ...]\n" + data[-25:]
    assert output.dropped_bytes == 249


def test_output_within_the_cap_is_whole() -> None:
    output = CappedOutput(10)
    output.add(b"01234")
    output.add(b"56789")
    assert (output.value(), output.dropped_bytes) == (b"0123456789", 0)


def test_a_process_left_in_the_background_neither_delays_nor_survives(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    script = f"(while :; do echo x >> {beat}; sleep 0.05; done) & sleep 0.2; exit 3"
    result = run_command(["/bin/bash", "-c", script], timeout_s=20, output_bytes=1000)
    assert result.exit_code == 3
    assert result.duration_s < 5
    size = beat.stat().st_size
    time.sleep(0.3)
    assert beat.stat().st_size == size > 0


def test_a_process_that_closes_its_output_is_still_waited_for() -> None:
    script = "exec >&- 2>&-; sleep 0.5; exit 4"
    assert run_command(["/bin/bash", "-c", script], timeout_s=20, output_bytes=1000).exit_code == 4
    late = run_command(["/bin/bash", "-c", "exec >&- 2>&-; sleep 60"], timeout_s=0.5, output_bytes=1000)
    assert (late.timed_out, late.exit_code) == (True, None)


def test_input_that_is_not_read_harms_nothing() -> None:
    result = run_command(["/bin/true"], timeout_s=20, output_bytes=1000, stdin=b"x" * 1_000_000)
    assert result.exit_code == 0


def test_a_watcher_stops_a_command_and_its_note_is_the_last_line() -> None:
    killed: list[bool] = []
    result = run_command(
        ["/bin/bash", "-c", "echo begun; sleep 60"],
        timeout_s=20,
        output_bytes=1000,
        kill=lambda: killed.append(True),
        watch=lambda: Stop("too much", out_of_memory=True),
    )
    assert (result.output, result.exit_code, result.out_of_memory) == (b"begun\n\n[too much]\n", 137, True)
    assert killed == [True]


def test_a_program_that_is_not_there_is_our_fault() -> None:
    with pytest.raises(InfrastructureError, match="cannot start /no/such"):
        run_command(["/no/such"], timeout_s=1, output_bytes=10)
