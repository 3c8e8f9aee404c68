#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""test_smoke.py RUN BUILD: a few workloads come out with figures, and nothing is left behind. No figure is judged."""
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

TMPFS = "/dev/shm"
SUBJECTS = ["plainfs", "eraimgfs"]
WORKLOADS = ["write-4k-d16-first", "write-4k-d1", "checkpoint", "since", "metadata-bytes"]
ON_EACH = {"write-4k-d16-first", "write-4k-d1", "metadata-bytes"}


def remains(folder):
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        return [line for line in mounts if folder in line] + os.listdir(folder)


def check_figures(document):
    results = document["places"]["tmpfs"]
    for workload in WORKLOADS:
        for subject in SUBJECTS if workload in ON_EACH else ["eraimgfs"]:
            for figure, values in results[workload]["subjects"][subject].items():
                assert len(values["rounds"]) == 1, f"{workload}, {subject}: {figure} was not measured once"
                assert workload == "metadata-bytes" or values["rounds"][0] > 0, f"{workload}, {subject}: {figure} is 0"
    # How metadata are counted: where there are none, next to nothing is left.
    of = results["metadata-bytes"]["subjects"]
    assert abs(of["plainfs"]["bytes"]["rounds"][0]) < of["eraimgfs"]["bytes"]["rounds"][0], "metadata are miscounted"
    assert results["since"]["subjects"]["eraimgfs"]["extents"]["rounds"][0] > 1, "since had no answer"


def main():
    run, build = sys.argv[1:]
    if not os.access(TMPFS, os.W_OK):
        print(f"SKIP: needs {TMPFS}")
        return 77
    with tempfile.TemporaryDirectory() as out, tempfile.TemporaryDirectory(dir=TMPFS) as tmpfs:
        json_file, svg_file = os.path.join(out, "json"), os.path.join(out, "svg")
        done = subprocess.run([run, "--quick", "--build", build, "--where", "tmpfs", "--tmpfs", tmpfs, "--subjects",
                               ",".join(SUBJECTS), "--workloads", ",".join(WORKLOADS), "--json", json_file, "--svg",
                               svg_file], check=False)
        if done.returncode != 0:
            return done.returncode
        with open(json_file, encoding="utf-8") as file:
            check_figures(json.load(file))
        xml.etree.ElementTree.parse(svg_file)
        left = remains(tmpfs)
        assert not left, f"left behind: {left}"
    return 0


sys.exit(main())
