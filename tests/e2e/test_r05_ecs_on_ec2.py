"""ECS on EC2: the walk-through as it is documented, run by bash as its reader would."""

import re

import walkthrough


def test_r06_the_walk_through_runs_as_written(tmp_path):
    out = walkthrough.run("ecs-on-ec2.md", tmp_path)
    answers = re.findall(r"^(us-east-1[abc]) (i-[0-9a-f]{17}) (198\.1[89]\.\d+\.\d+:\d+) answers (\w+)$", out, re.M)
    assert len(answers) == 9, out
    zones = [zone for zone, *_ in answers]
    assert {zone: zones.count(zone) for zone in zones} == {f"us-east-1{letter}": 3 for letter in "abc"}, out
    # Three machines, nine ports, nine containers.
    assert [len({answer[index] for answer in answers}) for index in (1, 2, 3)] == [3, 9, 9], out
    machine = answers[-1][1]
    assert out.count(f"Host EC2 (instance {machine}) terminated.") == 3, out
