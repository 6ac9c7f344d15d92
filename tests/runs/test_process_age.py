"""How long a process has been running."""

import subprocess
import sys
import time

from sfdfd.runs.process_age import command_age_s, process_age_s

SCRIPT = """
import time
from sfdfd.runs.process_age import command_age_s
def main():
    print(command_age_s(main), command_age_s(print))
time.sleep(0.3)
main()
"""


def test_the_age_of_a_command_begins_with_its_process():
    begun_s = time.monotonic()
    answer = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    own, of_another = map(float, answer.split())
    assert 0.3 <= own <= time.monotonic() - begun_s + 0.02 and of_another == 0  # the kernel counts in hundredths


def test_a_call_within_another_program_has_just_begun():
    assert command_age_s(test_a_call_within_another_program_has_just_begun) == 0
    first = process_age_s()
    time.sleep(0.05)
    assert 0.03 < process_age_s() - first < 5


def test_without_proc_the_processor_time_counts(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr("pathlib.Path.read_text", missing)
    assert 0 < process_age_s() <= time.process_time()
