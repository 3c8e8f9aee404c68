# SPDX-License-Identifier: MIT
"""The loads. Each workload takes a subject and returns figures by name; the first is the one that tables show."""
import json
import os
import random
import re
import statistics
import subprocess
import time

from subjects import BenchError, call

BLOCK = 65536
PASSES_MAX = 3  # over the image, for one figure of first touches
REPLY_BYTES = 24  # struct fuse_out_header and struct fuse_write_out
TOUCHES = 4000  # of the workload metadata-bytes


class Figure:
    """One number and its unit."""

    def __init__(self, value, unit):
        self.value, self.unit = value, unit


def fio_command(subject, *options):
    direct = 0 if subject.name == "raw" and not subject.bench.raw_is_direct(subject) else 1
    return ["fio", "--name=load", "--thread", "--output-format=json", f"--direct={direct}", "--randrepeat=0",
            "--fallocate=none", "--invalidate=0"] + list(options)


def fio_result(text):
    """The one job of fio's answer; before the JSON it may have printed a note."""
    job = json.loads(text[text.index("{"):])["jobs"][0]
    if job["error"] != 0:
        raise BenchError(f"fio: error {job['error']}")
    return job


def fio(subject, *options):
    return fio_result(call(*fio_command(subject, *options)))


def rates(jobs, unit):
    """Figures of jobs that did the same, one after the other."""
    sides = [job[side] for job in jobs for side in ("read", "write")]
    seconds = sum(max(job["read"]["runtime"], job["write"]["runtime"]) for job in jobs) / 1000
    done = sum(side["total_ios"] for side in sides)
    moved = sum(side["io_bytes"] for side in sides)
    if done == 0 or seconds == 0:
        raise BenchError("fio did nothing: a longer --seconds or a larger --size may do")
    rate = Figure(done / seconds, "IOPS") if unit == "IOPS" else Figure(moved / seconds / 1e6, "MB/s")
    used = [side["clat_ns"] for side in sides if side["total_ios"] > 0]
    return {
        "rate": rate,
        "p99": Figure(max(c["percentile"]["99.000000"] for c in used) / 1000, "us"),
        "longest": Figure(max(c["max"] for c in used) / 1000, "us"),
    }


def timed_ms(function, *arguments):
    begun = time.monotonic()
    function(*arguments)
    return (time.monotonic() - begun) * 1000


class Workload:
    """One kind of load."""
    needs_tracker = False  # is of subjects with checkpoints alone
    needs_daemon = False

    def measure(self, subject):
        raise NotImplementedError


class Steady(Workload):
    """A time of one load. Writes are re-writes: each block was written in this era before."""

    def __init__(self, unit, *options):
        self.unit, self.options = unit, options

    def command(self, subject):
        bench = subject.bench
        return fio_command(subject, f"--filename={subject.file}", f"--size={bench.size}", "--time_based",
                           f"--runtime={int(bench.seconds * 1000)}ms", *self.options)

    def measure(self, subject):
        subject.prepare()
        return rates([fio_result(call(*self.command(subject)))], self.unit)


class FirstTouch(Workload):
    """After a checkpoint each block is written, once, from the image's begin to its end; where that is too short to be
    measured, again."""

    def __init__(self, unit, *options):
        self.unit, self.options = unit, options

    def load(self, subject):
        return [f"--filename={subject.file}", f"--size={subject.bench.size}"]

    def measure(self, subject):
        jobs, spent_ms, limit_ms = [], 0, subject.bench.seconds * 1000
        while len(jobs) < PASSES_MAX and spent_ms < limit_ms:
            subject.checkpoint()
            subject.settle()
            job = fio(subject, f"--runtime={int(limit_ms)}ms", *self.load(subject), *self.options)
            jobs.append(job)
            spent_ms += max(1, job["write"]["runtime"])
        return rates(jobs, self.unit)


def write_iolog(subject, blocks):
    """A log for fio to play: 4 KiB into each of blocks, in this order. (fio's own random maps know its block size
    alone, not that of the tracker.)"""
    path = os.path.join(subject.folder, "iolog")
    with open(path, "w", encoding="ascii") as log:
        log.write(f"fio version 2 iolog\n{subject.file} add\n{subject.file} open\n")
        log.writelines(f"{subject.file} write {block * BLOCK} 4096\n" for block in blocks)
        log.write(f"{subject.file} close\n")
    return path


def shuffled_blocks(subject):
    blocks = list(range(subject.bench.size // BLOCK))
    random.shuffle(blocks)
    return blocks


class RandomFirstTouch(FirstTouch):
    """4 KiB into each block, once, in random order."""

    def load(self, subject):
        return [f"--read_iolog={write_iolog(subject, shuffled_blocks(subject))}"]


class SparseFirstTouch(Workload):
    """4 KiB into each of so many blocks of the image's first span bytes, once, in random order, after a checkpoint."""

    def __init__(self, span, touches, *options):
        self.span, self.touches, self.options = span, touches, options

    def measure(self, subject):
        share = subject.bench.share
        blocks = random.sample(range(int(self.span * share) // BLOCK), int(self.touches * share))
        subject.checkpoint()
        subject.settle()
        log = write_iolog(subject, blocks)
        job = fio(subject, f"--read_iolog={log}", f"--runtime={int(subject.bench.seconds * 10000)}ms", *self.options)
        return rates([job], "IOPS")


class MetadataBytes(Workload):
    """All that the daemon writes beside image and replies for one block: marks, checkpoint, digest."""
    needs_daemon = True

    def measure(self, subject):
        subject.checkpoint()
        subject.settle()
        log = write_iolog(subject, shuffled_blocks(subject)[:TOUCHES])
        before = subject.written_bytes()
        done = fio(subject, f"--read_iolog={log}", *DEPTH_16)["write"]["total_ios"]
        subject.checkpoint()
        subject.settle()
        wrote = subject.written_bytes() - before - done * (4096 + REPLY_BYTES)
        return {"bytes": Figure(wrote / done, "B/block")}


class CheckpointUnderLoad(Workload):
    """Ten checkpoints a second while 16 writers re-write at random. A call is a whole run of era-cli."""
    needs_tracker = True

    def measure(self, subject):
        idle_ms = [timed_ms(subject.checkpoint) for _ in range(5)]
        steady = Steady("IOPS", *RANDOM_16)
        without = steady.measure(subject)
        load = steady.command(subject)
        calls_ms = []
        with subprocess.Popen(load, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
            try:
                while process.poll() is None:
                    calls_ms.append(timed_ms(subject.checkpoint))
                    time.sleep(0.1)
                figures = rates([fio_result(process.stdout.read())], "IOPS")
            finally:
                process.kill()
        return {
            "call": Figure(statistics.median(calls_ms), "ms"),
            "longest call": Figure(max(calls_ms), "ms"),
            "idle call": Figure(statistics.median(idle_ms), "ms"),
            "longest write": Figure(figures["longest"].value / 1000, "ms"),
            "longest write without": Figure(without["longest"].value / 1000, "ms"),
            "writes": figures["rate"],
            "writes without": without["rate"],
        }


class Since(Workload):
    """The answer after half of the blocks have changed, at random. A call is a whole run of era-cli."""
    needs_tracker = True

    def measure(self, subject):
        subject.settle()
        era = subject.checkpoint()
        blocks = shuffled_blocks(subject)
        fio(subject, f"--read_iolog={write_iolog(subject, blocks[:len(blocks) // 2])}", *DEPTH_16)
        answer = subject.client("since", str(era))
        calls_ms = [timed_ms(subject.client, "since", str(era)) for _ in range(5)]
        return {
            "call": Figure(statistics.median(calls_ms), "ms"),
            "extents": Figure(answer.count("\n"), "lines"),
        }


def freeze_stall(program, folder, rounds):
    """What freeze_stall prints: {measure: (min, median, max)} in ms."""
    line = re.compile(r"^(\S.*?) {2,}([\d.]+) +([\d.]+) +[\d.]+ +([\d.]+)$", re.M)
    found = line.findall(call(program, folder, str(rounds)))
    if not found:
        raise BenchError(f"{program}: no figure in what it printed")
    return {name: tuple(float(ms) for ms in values) for name, *values in found}


def instructions(program, folder, count=5000):
    """Instructions that one 4 KiB re-write takes from its handler to its reply, without libfuse and kernel."""
    done = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no",
                           "--toggle-collect=fs_write", program, folder, str(count)], capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise BenchError(f"{program}: no count under callgrind: {done.stderr.strip()}")
    return int(found.group(1)) / count


DEPTH_1 = ["--ioengine=psync"]
DEPTH_4 = ["--ioengine=libaio", "--iodepth=4"]
DEPTH_16 = ["--ioengine=libaio", "--iodepth=16"]
RANDOM_16 = ["--rw=randwrite", "--bs=4k", "--norandommap", *DEPTH_16]

GIB = 1 << 30
SPARSE_SIZE = 64 * GIB
# First touches of an image that is large and sparse: a hot set in it, which intents cover by default; and all of it, of which
# they cover a part. With the subjects that tell something.
SPARSE = {
    "hot-4g-d1": SparseFirstTouch(4 * GIB, 65536, *DEPTH_1),
    "hot-4g-d16": SparseFirstTouch(4 * GIB, 65536, *DEPTH_16),
    "whole-64g-d1": SparseFirstTouch(64 * GIB, 400_000, *DEPTH_1),
    "whole-64g-d16": SparseFirstTouch(64 * GIB, 800_000, *DEPTH_16),
}
SPARSE_SUBJECTS = ["plainfs", "eraimgfs", "eraimgfs:intent_max=unlimited", "eraimgfs:intent=off"]

WORKLOADS = {
    "write-4k-d1-first": RandomFirstTouch("IOPS", *DEPTH_1),
    "write-4k-d16-first": RandomFirstTouch("IOPS", *DEPTH_16),
    "write-64k-first": FirstTouch("MB/s", "--rw=write", "--bs=64k", *DEPTH_4),
    "write-1m-first": FirstTouch("MB/s", "--rw=write", "--bs=1m", *DEPTH_4),
    "write-4k-d1": Steady("IOPS", "--rw=randwrite", "--bs=4k", "--norandommap", *DEPTH_1),
    "write-4k-d16": Steady("IOPS", *RANDOM_16),
    "write-64k": Steady("MB/s", "--rw=write", "--bs=64k", *DEPTH_4),
    "write-1m": Steady("MB/s", "--rw=write", "--bs=1m", *DEPTH_4),
    "read-4k-d16": Steady("IOPS", "--rw=randread", "--bs=4k", "--norandommap", *DEPTH_16),
    "read-1m": Steady("MB/s", "--rw=read", "--bs=1m", *DEPTH_4),
    "mixed-70-30": Steady("IOPS", "--rw=randrw", "--rwmixread=70", "--bs=4k", "--norandommap", *DEPTH_16),
    "buffered-4k": Steady("IOPS", "--rw=write", "--bs=4k", "--direct=0", "--end_fsync=1", *DEPTH_1),
    "fsync-each": Steady("IOPS", "--rw=randwrite", "--bs=4k", "--norandommap", "--fsync=1", *DEPTH_1),
    "checkpoint": CheckpointUnderLoad(),
    "since": Since(),
    "metadata-bytes": MetadataBytes(),
}
