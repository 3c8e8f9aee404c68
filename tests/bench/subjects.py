# SPDX-License-Identifier: MIT
"""What is measured: a name, and how its file is served. Each subject has a folder and an image of its own."""
import json
import os
import shutil
import signal
import subprocess
import time

START_S = 30
STOP_S = 60
SETTLE_S = 60


class BenchError(Exception):
    """Ends the bench; its text is for a person."""


def call(*command):
    """Runs a command that must succeed; what it printed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Subject:
    """The raw file itself; the others say how it is mounted."""
    tracks = False  # has checkpoints

    def __init__(self, name, folder, bench):
        self.name, self.folder, self.bench = name, folder, bench
        self.image = os.path.join(folder, "image")
        self.file = self.image  # what is written to
        self.process = None
        self.is_marked = False  # every block is written in the present era

    def make(self):
        """Makes the image, all of it allocated and durable, or all of it a hole."""
        os.makedirs(self.folder, mode=0o700)
        if self.bench.is_sparse:
            with open(self.image, "wb") as image:
                image.truncate(self.bench.size)
            return
        chunk = os.urandom(1 << 20)
        with open(self.image, "wb", buffering=0) as image:
            for _ in range(self.bench.size >> 20):
                image.write(chunk)
            os.fsync(image)

    def start(self):
        """Serves file."""

    def stop(self):
        """After this nothing is mounted and no process is left, however far start() came."""

    def prepare(self):
        """Each block is written once, so that what follows are re-writes, and nothing goes on in the background."""
        if not self.is_marked:
            chunk = os.urandom(1 << 20)
            with open(self.file, "r+b", buffering=0) as file:
                for _ in range(self.bench.size >> 20):
                    file.write(chunk)
        self.is_marked = True
        self.settle()

    def settle(self):
        """What one measurement left behind is not the next one's."""
        with open(self.image, "rb") as image:
            os.fsync(image)

    def checkpoint(self):
        """From here on each write to a block is its first."""
        self.is_marked = False

    def written_bytes(self):
        """Bytes that the daemon has written anywhere, by system calls."""
        with open(f"/proc/{self.process.pid}/io", encoding="ascii") as io:
            return int(dict(line.split(": ") for line in io)["wchar"])


class Mounted(Subject):
    """A daemon in the foreground mounts the image on a file beside it."""

    def __init__(self, name, folder, bench):
        super().__init__(name, folder, bench)
        self.file = os.path.join(folder, "mounted")

    def command(self):
        raise NotImplementedError

    def is_mounted(self):
        try:
            return os.stat(self.file).st_dev != os.stat(self.folder).st_dev
        except FileNotFoundError:
            return False
        except OSError:
            return True  # the mount of a process that died

    def start(self):
        with open(self.file, "wb"):
            pass
        log = os.path.join(self.folder, "log")
        with open(log, "wb") as said:
            # Should the bench be killed, its daemons end as well.
            self.process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", "--"] + self.command(),
                                            stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        deadline = time.monotonic() + START_S
        while not self.is_mounted():
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(log, encoding="utf-8") as said:
                    raise BenchError(f"{self.name}: did not start: {said.read().strip()}")
            time.sleep(0.01)

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        if self.is_mounted():
            lazily = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
            subprocess.run(lazily + [self.file], check=False)


class PlainFuse(Mounted):
    """The FUSE stack of eraimgfs without the tracker."""

    def command(self):
        return [self.bench.program("tests/bench/plainfs"), self.image, self.file, "-o", "subtype=plainfs"]


class Eraimgfs(Mounted):
    """The real thing, with some mount options."""
    tracks = True

    def __init__(self, name, folder, bench, options=""):
        super().__init__(name, folder, bench)
        self.options = options

    def command(self):
        command = [self.bench.program("src/daemon/eraimgfs"), self.image, self.file, "-f"]
        return command + (["-o", self.options] if self.options else [])

    def client(self, *words):
        return call(self.bench.program("src/cli/era-cli"), *words, self.file)

    def status(self):
        return json.loads(self.client("status", "--json"))

    def checkpoint(self):
        super().checkpoint()
        return int(self.client("checkpoint"))

    def settle(self):
        super().settle()
        deadline = time.monotonic() + SETTLE_S
        while self.status()["undigested_blocks"] > 0:
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name}: the digest did not come to its end in {SETTLE_S} s")
            time.sleep(0.01)


class QemuRaw(Mounted):
    """QEMU's storage daemon exports the raw image."""

    def nodes(self):
        return ["--blockdev", f"file,node-name=disk,filename={self.image}"]

    def command(self):
        export = f"fuse,id=export,node-name=disk,mountpoint={self.file},writable=on"
        return ["qemu-storage-daemon"] + self.nodes() + ["--export", export]


class QemuBitmap(QemuRaw):
    """The same, through a qcow2 that holds a persistent dirty bitmap of the raw image."""

    def make(self):
        super().make()
        top = os.path.join(self.folder, "top.qcow2")
        options = f"data_file={self.image},data_file_raw=on,cluster_size=64k"
        # Creating it truncates the data file.
        os.rename(self.image, self.image + ".full")
        call("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, top, str(self.bench.size))
        os.rename(self.image + ".full", self.image)
        call("qemu-img", "bitmap", "--add", "-g", "64k", top, "changed")

    def nodes(self):
        top = os.path.join(self.folder, "top.qcow2")
        return ["--blockdev", f"file,node-name=data,filename={self.image}", "--blockdev",
                f"file,node-name=top,filename={top}", "--blockdev", "qcow2,node-name=disk,file=top,data-file=data"]


def qemu_is_missing():
    """None, or why there is no QEMU to compare with."""
    for program in ("qemu-storage-daemon", "qemu-img"):
        if shutil.which(program) is None:
            return f"{program} is not installed (contrib/deps.sh installs it)"
    return None


SUBJECTS = {
    "raw": Subject,
    "plainfs": PlainFuse,
    "eraimgfs": Eraimgfs,
    "qemu-raw": QemuRaw,
    "qemu-bitmap": QemuBitmap,
}


def find_class(word):
    """The class that a word of --subjects begins with, None for none."""
    return SUBJECTS.get(word.partition(":")[0])


def make_subject(word, folder, bench):
    """A word of --subjects: a name of SUBJECTS, or eraimgfs:OPT+OPT... for other mount options."""
    kind, _, options = word.partition(":")
    if options:
        return Eraimgfs(word, folder, bench, options.replace("+", ","))
    return SUBJECTS[kind](word, folder, bench)
