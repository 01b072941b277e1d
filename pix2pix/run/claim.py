"""One writer per run directory: a training holds a claim in it, and takes over a stale claim.

It works without file locks, which network file systems may lack. A claim is a file in a folder,
with a name that is never reused:

    RUN_DIR/.writer/TOKEN.json      held
    RUN_DIR/.writer/TOKEN.ending    held by a training that is saving before it ends

POSIX, NFS and Lustre rename a folder onto another only if that one is missing or empty, so exactly
one of several starting processes succeeds. A stale claim is removed by its own name, never by that
of its successor.
"""

import contextlib
import errno
import getpass
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from pix2pix.errors import UserError
from pix2pix.system.durable import publish_json

FOLDER = ".writer"
ENDING = ".ending"
BEAT_SECONDS = 5.0  # interval at which a live owner touches its claim
SILENT_SECONDS = 50.0  # after this an owner elsewhere counts as dead: ten beats, for slow disks
WAIT_SECONDS = 60.0  # how long a start waits: longer than SILENT_SECONDS
LOOK_SECONDS = 0.2


class Life(Enum):
    """What this process knows about another one."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"  # it runs elsewhere, or has not been silent for long enough


@dataclass(frozen=True)
class Owner:
    """A training process, distinguishable from every other that ever ran.

    Attributes:
        kernel: boot and process namespace in which `pid` is valid; None if the system does not say.
        process_start: clock ticks after boot, because pids are reused.
        slurm_restart: how often the job was requeued; a requeued job keeps its number.
    """

    host: str = "an unknown host"
    kernel: str | None = None
    pid: int = 0
    process_start: int | None = None
    user: str = "somebody"
    slurm_job: str | None = None
    slurm_restart: int = 0
    since: float = 0.0

    @classmethod
    def me(cls, environment: Mapping[str, str] = os.environ) -> "Owner":
        """Return the owner that this process is."""
        return cls(
            host=socket.gethostname(),
            kernel=_kernel(),
            pid=os.getpid(),
            process_start=_process_start(os.getpid()),
            user=_user(),
            slurm_job=environment.get("SLURM_JOB_ID"),
            slurm_restart=int(environment.get("SLURM_RESTART_COUNT") or 0),
            since=time.time(),
        )

    def __str__(self) -> str:
        job = f", SLURM job {self.slurm_job}" if self.slurm_job else ""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"{self.user} on {self.host} (process {self.pid}{job}) since {since}"

    def life(self, me: "Owner") -> Life:
        """Return what `me` knows about this process; UNKNOWN if it runs elsewhere."""
        same_job = self.slurm_job is not None and self.slurm_job == me.slurm_job
        if same_job and self.slurm_restart < me.slurm_restart:
            return Life.DEAD  # SLURM ends a job before it starts it again
        if self.kernel is None or self.kernel != me.kernel:
            return Life.UNKNOWN
        is_running = self.process_start == _process_start(self.pid)
        return Life.ALIVE if is_running else Life.DEAD


class WriterClaim:
    """The right to write into the run directory `root`. One rank acquires it for all of them.

    Attributes:
        lost: why this training must end without writing again, because another took it over; None
            as long as the claim is held.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / FOLDER
        self.lost: str | None = None
        self._file: Path | None = None
        self._lock = threading.Lock()  # the beat, and the change of the file's name
        self._done = threading.Event()

    def acquire(self, wait_seconds: float = WAIT_SECONDS) -> None:
        """Claim the directory; wait for an owner that is ending or may be dead, and say so.

        Args:
            wait_seconds: the longest wait.

        Raises:
            UserError: another training holds the directory, or it is not writable.
        """
        token = uuid.uuid4().hex
        mine = self.root / f"{FOLDER}.{token}"
        try:
            mine.mkdir(parents=True)
            publish_json(mine / f"{token}.json", asdict(Owner.me()))
            try:
                self._enter(mine, token, time.monotonic() + wait_seconds)
            finally:
                shutil.rmtree(mine, ignore_errors=True)  # already gone if it became the claim
        except OSError as error:
            raise UserError(f"can't write to run_dir {self.root}: {error.strerror}") from error
        threading.Thread(target=self._beat_until_done, daemon=True, name="writer claim").start()

    def ending(self) -> None:
        """Mark the claim as ending, so that a starting process waits for it."""
        with self._lock:
            if self._file is None or self._file.suffix == ENDING:
                return
            with contextlib.suppress(OSError):  # the mark is optional
                self._file = self._file.rename(self._file.with_suffix(ENDING))

    def release(self) -> None:
        """Release the claim. Does nothing if it is not held."""
        self._done.set()
        with self._lock:
            file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.unlink()  # by its own name: a successor's claim stays
                self.folder.rmdir()  # unless a successor is in it

    def __enter__(self) -> "WriterClaim":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _enter(self, mine: Path, token: str, deadline: float) -> None:
        """Make `mine` the claim as soon as no live owner holds one."""
        other: _OtherClaim | None = None
        while not self._rename(mine, token):
            if other is None or not other.file.exists():
                other = _OtherClaim.of(self.folder, clock=mine / f"{token}.json")
            is_late = time.monotonic() > deadline
            if other is None:  # released just now
                if is_late:
                    raise UserError(f"{self.folder} was not left by a training; remove it")
                time.sleep(LOOK_SECONDS)
                continue
            life = other.life()
            if life is Life.DEAD:
                print(f"taking over {self.root} from {other.owner}: it has ended", flush=True)
                other.file.unlink(missing_ok=True)  # another starting process may be faster
                continue
            may_go_away = other.is_ending or life is Life.UNKNOWN
            if is_late or not may_go_away:
                raise UserError(
                    f"{self.root} is being trained by {other.owner}; wait for it or stop it, or "
                    "choose another --run_dir"
                )
            other.announce(deadline - time.monotonic())
            time.sleep(LOOK_SECONDS)
        self._file = self.folder / f"{token}.json"
        self._sweep(now=self._file.stat().st_mtime)

    def _rename(self, mine: Path, token: str) -> bool:
        try:
            mine.rename(self.folder)
        except OSError as error:
            # ENOENT: NFS repeats a request whose answer was lost, although it was done.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
        return (self.folder / f"{token}.json").exists()

    def _beat_until_done(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            with self._lock:
                try:
                    if self._file is not None:
                        os.utime(self._file)
                except FileNotFoundError:
                    self.lost = (
                        f"another training has taken over {self.root}, because this one gave no "
                        f"sign of life for {SILENT_SECONDS:.0f} s; it ends without saving"
                    )
                    return
                except OSError:
                    continue  # a temporary failure of the file system: the next beat may succeed

    def _sweep(self, now: float) -> None:
        """Remove the files of processes that were killed while they claimed."""
        with contextlib.suppress(OSError):  # other processes may start or end meanwhile
            for file in self.root.glob(f"{FOLDER}.*/*"):
                if now - file.stat().st_mtime > SILENT_SECONDS:
                    shutil.rmtree(file.parent)


@dataclass
class _OtherClaim:
    """The claim of another process, watched until it vanishes, beats or is silent for too long.

    Attributes:
        beat: the modification time of the claim when it was first read.
        clock: a file of ours beside it, because only the file system's clock is the same for both.
    """

    file: Path
    owner: Owner
    beat: float
    clock: Path
    announced: bool = False

    @classmethod
    def of(cls, folder: Path, clock: Path) -> "_OtherClaim | None":
        """Return the claim in `folder`, or None if there is none (any more)."""
        try:
            file = next(f for f in folder.iterdir() if f.suffix in (".json", ENDING))
            return cls(file, _read_owner(file), _modified(file), clock)
        except (StopIteration, FileNotFoundError):
            return None

    @property
    def is_ending(self) -> bool:
        return self.file.suffix == ENDING

    def life(self) -> Life:
        """Return whether the owner lives; UNKNOWN if that cannot be decided yet."""
        life = self.owner.life(Owner.me())
        if life is not Life.UNKNOWN:
            return life
        try:
            beat = _modified(self.file)
        except FileNotFoundError:
            return Life.UNKNOWN
        if beat != self.beat:
            return Life.ALIVE
        os.utime(self.clock)
        silent_seconds = _modified(self.clock) - beat
        return Life.DEAD if silent_seconds > SILENT_SECONDS else Life.UNKNOWN

    def announce(self, seconds: float) -> None:
        """Print once which process the start waits for."""
        if not self.announced:
            state = "is just ending" if self.is_ending else "may be dead"
            print(f"waiting up to {seconds:.0f} s for {self.owner}, which {state}", flush=True)
            self.announced = True


def _read_owner(file: Path) -> Owner:
    try:
        return Owner(**json.loads(file.read_text()))
    except (ValueError, TypeError):  # damaged, or of another version
        return Owner(since=_modified(file))


def _modified(file: Path) -> float:
    with file.open("rb") as opened:  # NFS asks the server on open, not on stat
        return os.fstat(opened.fileno()).st_mtime


def _kernel() -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _process_start(pid: int) -> int | None:
    """Return field 22 of /proc/PID/stat, proc(5), or None for a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for the user
        return f"user {os.getuid()}"
