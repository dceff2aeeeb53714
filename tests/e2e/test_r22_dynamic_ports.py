"""Dynamic port mapping behind a load balancer: the walk-through as it is documented, run by bash as its reader would."""

import re

import walkthrough


def test_r22_r24_the_walk_through_runs_as_written(tmp_path):
    out = walkthrough.run("dynamic-ports.md", tmp_path)
    # Three ports of one instance, which nobody may reach yet.
    refused = re.findall(r"^(i-[0-9a-f]{17})\t(\d+)\tunhealthy\tTarget\.Timeout\tRequest timed out$", out, re.M)
    assert len({port for _, port in refused}) == 3, out
    assert len({machine for machine, _ in refused}) == 1, out
    assert all(32768 <= int(port) <= 60999 for _, port in refused), out
    # The load balancer goes round all three.
    answers = re.findall(r"^answered by (\w+)$", out, re.M)
    assert len(answers) == 6 and len(set(answers)) == 3, out
