#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""
handover_rounds - two daemons hand one image to and fro, beside a model of what must come out.

    handover_rounds.py FOLDER ROUNDS SEED

In each round the owner is frozen with a backlog and with writers that wait. Then, at random moments about each other
and about a short deadline: another instance takes over, a client thaws, the owner or the other one is ended (kill -9,
SIGTERM, unmount). Whoever serves in the end is compared with the model:

  - each block holds what was last written to it, or what a write that failed may have left; a write that failed in an
    instance that was frozen until its end has left nothing;
  - for each era that was ever answered (by a checkpoint, or a freeze): `since` has every block that was written after
    the answer, every block that differs from a copy made after it, and none that nobody tried to write (exact);
  - `era-cli check` finds nothing.

A block is one write of its own stamp, and has one writer at a time. SEED repeats what is done; the moments are the
machine's.
"""
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

BLOCK = 4096
NR_BLOCKS = 64
SIZE = (NR_BLOCKS - 1) * BLOCK + 512  # the last block is partial
NR_POINTS = 8
PATIENCE_S = 40
DAEMON, CLIENT = os.environ["ERAIMGFS"], os.environ["ERA_CLI"]


class Failed(Exception):
  pass


def expect(condition, what):
  if not condition:
    raise Failed(what)


def wait_for(condition, what):
  deadline = time.monotonic() + PATIENCE_S
  while not condition():
    expect(time.monotonic() < deadline, "waited in vain: " + what)
    time.sleep(0.002)


def content(block, stamp):
  return stamp.to_bytes(8, "little") * (min(BLOCK, SIZE - block * BLOCK) // 8)


def era_cli(*args):
  return subprocess.run([CLIENT, *args], capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)


class Write:
  def __init__(self, block, stamp, points):
    self.block, self.stamp, self.points = block, stamp, points
    self.done = False  # answered with success


class Point:
  """An era that was answered."""

  def __init__(self, era, may):
    self.era = era
    self.must = set()  # written after the answer
    self.may = may  # somebody tried to, after the question
    self.image = None


class Model:
  def __init__(self, path):
    self.path = path
    self.lock = threading.Lock()
    self.stamps = [0] * NR_BLOCKS
    self.doubtful = [set() for _ in range(NR_BLOCKS)]  # stamps of writes that failed, or wait
    self.busy = set()
    self.points = []
    self.asked = []  # sets of blocks that points to come may have
    self.last_stamp = 0

  def begin(self, rng):
    with self.lock:
      block = rng.choice([b for b in range(NR_BLOCKS) if b not in self.busy])
      self.last_stamp += 1
      self.busy.add(block)
      self.doubtful[block].add(self.last_stamp)
      for may in [p.may for p in self.points] + self.asked:
        may.add(block)
      return Write(block, self.last_stamp, list(self.points))

  def end(self, write, done):
    with self.lock:
      self.busy.remove(write.block)
      write.done = done
      if done:
        self.stamps[write.block] = write.stamp
        self.doubtful[write.block].clear()
        for point in write.points:
          point.must.add(write.block)

  def ask(self):
    """Before the question of which era has ended: what is under way may be in either."""
    with self.lock:
      self.asked.append(set(self.busy))
      return self.asked[-1]

  def answered(self, era, may, rng):
    point = Point(era, may)
    with self.lock:
      self.asked.remove(may)
      self.points.append(point)
      if len(self.points) > NR_POINTS:
        self.points.remove(rng.choice(self.points[:-1]))
    point.image = self.read()

  def not_written(self, write):
    """It is known to have left nothing."""
    with self.lock:
      expect(not write.done, f"block {write.block}: a write was answered by an instance that was frozen")
      self.doubtful[write.block].discard(write.stamp)

  def read(self):
    with open(self.path, "rb") as file:
      data = file.read()
    return [data[b * BLOCK:(b + 1) * BLOCK] for b in range(NR_BLOCKS)]

  def compare(self, target, recovered=True):
    """Nothing is under way. Until a dead instance has been recovered, its intents count as their whole extents."""
    image = self.read()
    for b in range(NR_BLOCKS):
      stamp = int.from_bytes(image[b][:8], "little")
      expect(image[b] == content(b, stamp), f"block {b} is torn")
      expect(stamp == self.stamps[b] or stamp in self.doubtful[b],
                   f"block {b} has stamp {stamp}, not {self.stamps[b]} or one of {self.doubtful[b]}")
      self.stamps[b] = stamp
      self.doubtful[b].clear()
    for point in self.points:
      run = era_cli("since", "--format", "json", str(point.era), target)
      expect(run.returncode == 0, f"since {point.era}: {run.stderr}")
      answer = json.loads(run.stdout)
      found, feared = blocks_of(answer["extents"]), blocks_of(answer["conservative"])
      changed = {b for b in range(NR_BLOCKS) if image[b] != point.image[b]}
      for name, missing in (("written", point.must - found), ("changed", changed - found)):
        expect(not missing, f"since {point.era} lacks blocks that were {name}: {sorted(missing)}")
      expect(answer["exact"] == (not feared), f"since {point.era} says of itself: exact {answer['exact']}")
      expect(answer["exact"] or not recovered, f"since {point.era} is not exact")
      known = found - feared
      expect(known <= point.may, f"since {point.era} has blocks that nobody wrote: {sorted(known - point.may)}")
    run = era_cli("check", target)
    expect(run.returncode == 0, f"check: {run.stdout} {run.stderr}")


def blocks_of(extents):
  found = set()
  for extent in extents:
    found.update(range(extent["offset"] // BLOCK, -(-(extent["offset"] + extent["length"]) // BLOCK)))
  return found


class Instance:
  """A daemon in the foreground, and what waits in it."""

  count = 0

  def __init__(self, folder, slot, model, *options):
    Instance.count += 1
    self.model, self.slot = model, slot
    self.mount = f"{folder}/{slot}"
    self.file = f"{self.mount}/disk.img"
    self.socket = f"{folder}/{Instance.count}.sock"
    self.below = os.stat(self.mount).st_dev
    self.log = open(f"{folder}/{Instance.count}.log", "w+")
    self.killed = False
    self.fd = -1
    self.writes = []
    self.threads = []
    self.process = subprocess.Popen(
      [DAEMON, "-f", model.path, self.mount, "-o", ",".join(["control=" + self.socket, *options])],
      stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

  def text(self):
    self.log.seek(0)
    return self.log.read()

  def alive(self):
    return self.process.poll() is None

  def serves(self):
    """Whether it does, once that is known."""
    def known():
      try:
        return not self.alive() or (os.stat(self.mount).st_dev != self.below and os.stat(self.file))
      except OSError:
        return False

    wait_for(known, f"instance {Instance.count} neither serves nor ends")
    if not self.alive():
      return False
    try:
      self.fd = os.open(self.file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
      return False  # killed in between
    return True

  def ask(self, *requests):
    """The last answer; None when it died over it."""
    try:
      with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(PATIENCE_S)
        s.connect(self.socket)
        replies = s.makefile()
        for request in requests:
          s.sendall(json.dumps(request).encode() + b"\n")
          line = replies.readline()
          reply = json.loads(line) if line else None
          if reply is None or not reply["ok"]:
            return reply
        return reply
    except TimeoutError:
      raise Failed(f"no answer to {requests}")
    except OSError:
      return None

  def state(self):
    reply = self.ask({"request": "status"})
    return reply["state"] if reply and reply["ok"] else None

  def write(self, rng):
    write = self.model.begin(rng)
    self.writes.append(write)
    try:
      data = content(write.block, write.stamp)
      done = os.pwrite(self.fd, data, write.block * BLOCK) == len(data)
    except OSError:
      done = False
    self.model.end(write, done)
    return done

  def start_writer(self, nr, seed):
    rng = random.Random(seed)
    thread = threading.Thread(target=lambda: all(self.write(rng) for _ in range(nr)), daemon=True)
    self.threads.append(thread)
    thread.start()

  def join_writers(self):
    for thread in self.threads:
      thread.join(PATIENCE_S)
      expect(not thread.is_alive(), "a writer still waits")
    self.threads = []

  def end(self, how):
    """how: kill, term, umount. Safe on one that is dead."""
    if how == "kill":
      self.killed = True
      self.process.kill()
    elif how == "term":
      self.process.terminate()
    else:
      subprocess.run(["umount", "-l", self.mount], capture_output=True)

  def bury(self):
    """It has ended, or is about to."""
    self.join_writers()
    if self.fd >= 0:
      with contextlib.suppress(OSError):  # of a daemon that is gone
        os.close(self.fd)
      self.fd = -1
    try:
      code = self.process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
      raise Failed(f"an instance does not end: {self.text()}")
    expect(code >= 0 or self.killed and code == -signal.SIGKILL, f"an instance ended with {code}: {self.text()}")
    expect("assert" not in self.text().lower(), self.text())
    while subprocess.run(["umount", "-l", self.mount], capture_output=True).returncode == 0:
      pass
    self.log.close()


class Race:
  """What happens at about the same time."""

  def __init__(self):
    self.threads = []
    self.error = None

  def at(self, moment, act):
    def run():
      time.sleep(max(0, moment - time.monotonic()))
      try:
        act()
      except BaseException as e:
        self.error = e

    thread = threading.Thread(target=run, daemon=True)
    self.threads.append(thread)
    thread.start()

  def over(self):
    for thread in self.threads:
      thread.join(2 * PATIENCE_S)
      expect(not thread.is_alive(), "something hangs")
    if self.error:
      raise self.error


class Rounds:
  def __init__(self, folder, seed):
    self.folder = folder
    self.rng = random.Random(seed)
    self.model = Model(folder + "/disk.img")
    self.story = []
    self.tally = {}
    for slot in "01":
      os.mkdir(f"{folder}/{slot}")
    with open(self.model.path, "wb") as file:
      file.truncate(SIZE)
    self.owner = self.start("0", "block_size=4K")
    expect(self.owner.serves(), self.owner.text())

  def tell(self, what):
    self.story.append(what)
    self.tally[what] = self.tally.get(what, 0) + 1

  def start(self, slot, *options):
    self.newest = Instance(self.folder, slot, self.model, *options)
    return self.newest

  def bytes_at_rest(self):
    path = self.model.path + ".era"
    expect(not os.path.exists(path + "-wal") or os.path.getsize(path + "-wal") == 0, "a -wal beside frozen metadata")
    with open(path, "rb") as file:
      return hashlib.sha256(file.read()).digest()

  def checkpoint(self):
    may = self.model.ask()
    reply = self.owner.ask({"request": "checkpoint"})
    expect(reply and reply["ok"], f"checkpoint: {reply}")
    self.model.answered(reply["era"], may, self.rng)

  def load(self):
    for _ in range(self.rng.randint(0, 5)):
      expect(self.owner.write(self.rng), "a write failed in a running instance")
      if self.rng.random() < 0.4:
        self.checkpoint()
    for _ in range(self.rng.randint(0, 2)):
      self.owner.start_writer(self.rng.randint(1, 40), self.rng.random())
    for _ in range(self.rng.randint(0, 2)):
      self.checkpoint()

  def freeze(self, timeout):
    may = self.model.ask()
    request = {"request": "freeze", "timeout": timeout}
    # With the gate held nothing is prepared: the backlog is still there.
    reply = self.owner.ask(request) if self.rng.random() < 0.5 else self.owner.ask({"request": "gate"}, request)
    expect(reply and reply["ok"], f"freeze: {reply}")
    self.frozen_at = time.monotonic()
    with self.model.lock:
      self.in_flight = [w for w in self.owner.writes if not w.done]
      self.nr_before = len(self.owner.writes)
    self.era = reply["era"]
    self.model.answered(self.era + 1, may, self.rng)
    for _ in range(self.rng.randint(0, 2)):
      self.owner.start_writer(self.rng.randint(1, 3), self.rng.random())

  def race(self, timeout):
    rng, owner = self.rng, self.owner
    start = time.monotonic() + 0.005
    if timeout and rng.random() < 0.8:
      start = self.frozen_at + timeout - 0.02

    def moment():
      return start + rng.uniform(0, 0.04)

    race = Race()
    self.other = None
    self.thawed = None
    self.was_ended = False
    if rng.random() < 0.7:
      self.tell("takeover")

      def take_over():
        self.other = self.start("1" if owner.slot == "0" else "0", "takeover")

      at = moment()
      race.at(at, take_over)
      if rng.random() < 0.2:
        self.tell("kill -9 of the other")
        race.at(at + rng.uniform(0, 0.03), lambda: self.other and self.other.end("kill"))
    if rng.random() < 0.4:
      self.tell("thaw")

      def thaw():
        self.thawed = owner.ask({"request": "thaw", "era": self.era})

      race.at(moment(), thaw)
    if rng.random() < 0.3:
      # A detached mount would wait for its writers, and they for a thaw that nobody may do.
      how = rng.choice(["kill", "term"] if not timeout else ["kill", "term", "umount"])
      self.tell(how + " of the owner")
      self.was_ended = True
      race.at(moment(), lambda: owner.end(how))
    race.over()

  def never_thawed(self, timeout):
    return not timeout and "thaw" not in self.story

  def nothing_was_written(self):
    """In an owner that stayed frozen until it was fenced or ended; its writers have been answered."""
    # Those that had begun before the freeze may have been answered before it.
    for write in [w for w in self.in_flight if not w.done] + self.owner.writes[self.nr_before:]:
      self.model.not_written(write)

  def settle_other(self, timeout):
    """The other one serves: the owner is fenced, or gone."""
    rng, owner, other = self.rng, self.owner, self.other
    if rng.random() < 0.3:
      # Comes and goes, perhaps between two looks of the owner.
      how = rng.choice(["kill", "term"])
      self.tell(how + " of the other at once")
      other.end(how)
      other.bury()
      self.other = None
    if owner.alive() and not self.was_ended:
      reply = owner.ask({"request": "thaw", "era": self.era})
      expect(reply and not reply["ok"], f"thaw after a takeover: {reply}")
      wait_for(lambda: owner.state() == "fenced", f"the owner is {owner.state()}, the other serves")
      self.tell("fenced")
      reply = owner.ask({"request": "thaw"})
      expect(reply and reply["exit"] == 3 and "generation" in reply["error"], f"thaw of a fenced one: {reply}")
      if self.thawed is not None:
        expect(not self.thawed["ok"], "a thaw succeeded, and a takeover after it")
      owner.join_writers()
      expect(not owner.write(rng), "a fenced instance wrote")
      self.nothing_was_written()
    for _ in range(rng.randint(0, 4) if self.other else 0):
      expect(other.write(rng), "a write failed after the takeover")
    if self.other and rng.random() < 0.3:
      how = rng.choice(["kill", "term"])
      self.tell(how + " of the other first")
      other.end(how)
      other.bury()
      self.other = None
    owner.end(rng.choice(["kill", "term", "umount"]) if not self.was_ended else "kill")

  def settle_owner(self, timeout):
    """The other one does not serve, or there is none. True: the owner does."""
    owner = self.owner
    if self.other:
      self.other.bury()
      refused = "kill -9 of the other" not in self.story
      expect(not refused or not self.never_thawed(timeout), f"takeover from a frozen owner: {self.other_text}")
      if refused:
        self.tell("refused")
      self.other = None
    if self.was_ended:
      return False
    wait_for(lambda: owner.state() in ("frozen", "running", "fenced"), "the owner's state")
    if owner.state() == "frozen" and not timeout:
      if "takeover" not in self.story:
        expect(self.bytes == self.bytes_at_rest(), "the database has changed while frozen")
      reply = owner.ask({"request": "thaw", "era": self.era})
      expect(reply and (reply["ok"] or "generation" in reply["error"]), f"thaw: {reply}")
    # At the deadline, where there is one; or the other took over before it was killed, which takes a second to be seen.
    wait_for(lambda: owner.state() in ("running", "fenced"), f"the owner is {owner.state()}")
    if owner.state() == "running":
      owner.join_writers()
      expect(owner.write(self.rng), "a write failed after the thaw")
      self.tell("goes on")
      return True
    self.tell("fenced by one that is dead")
    owner.join_writers()
    self.nothing_was_written()
    owner.end("kill")
    return False

  def round(self):
    self.story.clear()
    timeout = 1 if self.rng.random() < 0.15 else 0
    self.load()
    self.freeze(timeout)
    self.bytes = self.bytes_at_rest() if not timeout else None
    self.race(timeout)
    serves = self.other is not None and self.other.serves()
    if self.other and not serves:
      self.other_text = self.other.text()
    if serves:
      self.settle_other(timeout)
    elif self.settle_owner(timeout):
      self.model.compare(self.owner.mount)
      return
    # The owner ends.
    self.owner.bury()
    if self.was_ended and self.never_thawed(timeout):
      self.nothing_was_written()
      if "takeover" not in self.story:
        expect(self.bytes == self.bytes_at_rest(), "the database has changed by the end of a frozen instance")
    if self.other is None:
      self.model.compare(self.model.path, recovered=False)  # at rest
      self.tell("mounted anew")
      self.other = self.start("1" if self.owner.slot == "0" else "0")
      expect(self.other.serves(), f"mounted anew: {self.other.text()}")
    self.owner = self.other
    self.model.compare(self.owner.mount)
    self.model.compare(self.model.path)


def main():
  folder, nr, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
  rounds = Rounds(folder, seed)
  number = 0
  try:
    for number in range(1, nr + 1):
      rounds.round()
      if number % 100 == 0:
        print(f"{number} rounds", flush=True)
    rounds.owner.end("umount")
    rounds.owner.bury()
    rounds.model.compare(rounds.model.path)
  except Exception as e:
    print(f"FAIL: round {number} of seed {seed}: {', '.join(rounds.story)}: {type(e).__name__}: {e}", file=sys.stderr)
    for name, instance in (("owner", rounds.owner), ("newest", rounds.newest)):
      if not instance.log.closed:
        print(f"{name}: state {instance.state()}: {instance.text()}", file=sys.stderr)
      instance.process.kill()
    if not isinstance(e, Failed):
      raise
    sys.stderr.flush()
    os._exit(1)  # a thread may still hang
  for what, times in sorted(rounds.tally.items()):
    print(f"{times:6} {what}")


main()
