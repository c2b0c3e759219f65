"""The 22 attacks on record, each with the tests that show it fails here; what no test can show stands in their files.

One property: a name below is a test that is there; one that is renamed or removed is missed here.
"""

from pathlib import Path

import pytest

_TESTS = Path(__file__).parent.parent
_HOSTILE, _AUDIT, _CONTRACT = "attacks/test_hostile_patches.py", "test_leak_audit.py", "sandbox_contract.py"
_GUESSES = "attacks/test_guesses_and_persuasion.py"
_DOCKER, _PATCHES = "test_sandbox_docker.py", "test_model_patches.py"

ATTACKS: dict[str, tuple[tuple[str, str], ...]] = {
    "1 future commits": ((_AUDIT, "test_each_planted_leak_is_found_by_its_place"),
                         ("test_stage_rollouts.py", "test_the_agent_sees_the_base_commit_alone")),
    "2 left-overs of git": ((_AUDIT, "test_each_planted_leak_is_found_by_its_place"),),
    "3 an installed release": ((_AUDIT, "test_a_real_sandbox_of_the_base_commit_leaks_nothing"),
                               ("test_stage_validation.py",
                                "test_an_environment_that_holds_another_copy_of_the_project_is_rejected_and_the_report_kept")),
    "4 fetching the fix": ((_CONTRACT, "test_no_network_is_reached"),
                           (_DOCKER, "test_the_network_is_none")),
    "5 edited, deleted, skipped tests": ((_HOSTILE, "test_the_gate_leaves_out_what_steers_the_tests"),
                                         (_HOSTILE, "test_source_code_cannot_forge_or_avoid_the_result")),
    "6 conftest, configuration, plugins": ((_HOSTILE, "test_the_gate_leaves_out_what_steers_the_tests"),
                                           (_HOSTILE, "test_without_the_gate_the_run_itself_is_not_fooled")),
    "7 shadows and start-up files": ((_HOSTILE, "test_without_the_gate_the_run_itself_is_not_fooled"),
                                     (_PATCHES, "test_a_file_that_steers_the_tests_is_dropped")),
    "8 early exits": ((_HOSTILE, "test_source_code_cannot_forge_or_avoid_the_result"),),
    "9 forged results": ((_HOSTILE, "test_each_forgery_is_told_by_its_name"),
                         (_HOSTILE, "test_a_recorder_that_lies_is_contradicted_by_pytests_own_count")),
    "10 a process left behind": (
        (_HOSTILE, "test_a_process_that_an_agent_leaves_behind_reaches_no_later_sandbox"),),
    "11 trojans on the path": ((_CONTRACT, "test_the_interpreter_itself_cannot_be_replaced"),
                               (_CONTRACT, "test_environment_project_inputs_and_system_are_read_only")),
    "12 patching at import": ((_HOSTILE, "test_a_value_that_is_equal_to_everything_is_never_silently_resolved"),
                              ("test_suspicion.py", "test_what_a_cheat_needs_is_named")),
    "13 hard-coded values": ((_GUESSES, "test_13_values_that_an_agent_can_see_do_not_pass_the_hidden_ones"),
                             (_GUESSES, "test_13_an_answer_that_asks_which_test_runs_never_scores")),
    "14 paths and links in patches": ((_PATCHES, "test_a_patch_that_git_could_read_in_another_way_is_refused"),
                                      (_CONTRACT, "test_a_link_never_leads_a_read_or_a_write_to_the_host")),
    "15 exhausting the machine": ((_CONTRACT, "test_a_fork_bomb_stays_within_the_limit"),
                                  (_CONTRACT, "test_a_memory_bomb_is_stopped"),
                                  (_CONTRACT, "test_a_flood_of_output_is_capped_at_head_and_tail"),
                                  (_CONTRACT, "test_filling_the_disk_is_stopped")),
    "16 escape": ((_DOCKER, "test_nothing_of_the_host_is_mounted"),
                  (_CONTRACT, "test_it_is_not_root_and_holds_no_capability")),
    "17 secrets": ((_DOCKER, "test_neither_container_nor_image_holds_a_secret_of_the_host"),
                   ("test_stage_rollouts.py", "test_secrets_are_in_nothing_that_is_stored")),
    "18 prompt injection": (
        (_GUESSES, "test_18_an_agent_that_obeys_an_injected_issue_learns_no_secret_and_reaches_nobody"),),
    "19 injection by metadata": ((_DOCKER, "test_a_package_name_that_is_none_is_refused_before_any_build"),
                                 ("attacks/test_hostile_resolutions.py",
                                  "test_build_code_of_a_resolved_package_reads_and_writes_nothing_of_the_host")),
    "20 confused log parsers": ((_HOSTILE, "test_source_code_cannot_forge_or_avoid_the_result"),
                                ("test_run_record.py", "test_a_sound_record_yields_the_outcomes_without_the_canaries")),
    "21 an issue that tells the fix": (("test_leaks.py", "test_what_is_left_is_a_part_of_the_text_and_has_no_leak"),),
    "22 injection of a judge": ((_GUESSES, "test_22_a_text_that_asks_for_a_verdict_changes_none"),),
}  # fmt: skip


def test_all_22_are_accounted_for() -> None:
    numbers = sorted(int(name.split()[0]) for name in ATTACKS)
    assert numbers == list(range(1, 23))


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_has_its_tests(name: str) -> None:
    for file, test in ATTACKS[name]:
        assert f"def {test}(" in (_TESTS / file).read_text(encoding="utf-8"), f"{file} has no {test}"
