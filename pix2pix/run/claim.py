"""One writer per run directory: a training holds a claim in it, and takes over one that is stale.

Without file locks, which network file systems may lack. The claim is a file in a folder, of a name
that is never used again:

    RUN_DIR/.writer/TOKEN.json      held
    RUN_DIR/.writer/TOKEN.ending    held by a training that only saves what it has

POSIX, NFS and Lustre rename a folder onto another only where that one is missing or empty, so of
many starters one gets in. A stale claim is removed by its own name, never that of its successor.
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
from pathlib import Path
from types import TracebackType

from pix2pix.errors import UserError
from pix2pix.system.durable import publish_json

FOLDER = ".writer"
ENDING = ".ending"
BEAT_SECONDS = 5.0  # a living owner touches its claim this often
SILENT_SECONDS = 50.0  # after which one elsewhere counts as dead: ten beats, for a slow file system
WAIT_SECONDS = 60.0  # that a start waits: longer than a dead owner can be silent unnoticed
LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Owner:
    """A training process, told apart from every other that ever ran.

    kernel: boot and process namespace, in which `pid` means something; None where the system does
        not tell. process_start: clock ticks after boot, because pids are used again.
    slurm_restart: how often the job was requeued; it keeps its number then.
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
        """This process."""
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

    def is_dead(self, me: "Owner") -> bool | None:
        """What `me` can know about this process; None: nothing, it runs elsewhere."""
        same_job = self.slurm_job is not None and self.slurm_job == me.slurm_job
        if same_job and self.slurm_restart < me.slurm_restart:
            return True  # SLURM ends a job before it starts it again
        if self.kernel is None or self.kernel != me.kernel:
            return None
        return self.process_start != _process_start(self.pid)


class WriterClaim:
    """The right to write into the run directory `root`; one rank acquires it, for all of them.

    lost: None, or why this training must end without another write: somebody has taken it for dead.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / FOLDER
        self.lost: str | None = None
        self._file: Path | None = None
        self._lock = threading.Lock()  # the beat, and the change of the file's name
        self._done = threading.Event()

    def acquire(self, wait_seconds: float = WAIT_SECONDS) -> None:
        """Claim the directory, after a owner that is ending or dead; says so where it waits.

        Raises UserError where another training holds it, and where the folder can't be written.
        """
        token = uuid.uuid4().hex
        mine = self.root / f"{FOLDER}.{token}"
        try:
            mine.mkdir(parents=True)
            publish_json(mine / f"{token}.json", asdict(Owner.me()))
            try:
                self._enter(mine, token, time.monotonic() + wait_seconds)
            finally:
                shutil.rmtree(mine, ignore_errors=True)  # gone already, where it became the claim
        except OSError as error:
            raise UserError(f"can't write to run_dir {self.root}: {error.strerror}") from error
        threading.Thread(target=self._beat_until_done, daemon=True, name="writer claim").start()

    def ending(self) -> None:
        """Tell who starts now that it is worth waiting."""
        with self._lock:
            if self._file is None or self._file.suffix == ENDING:
                return
            with contextlib.suppress(OSError):  # only a courtesy
                self._file = self._file.rename(self._file.with_suffix(ENDING))

    def release(self) -> None:
        """Release the claim. Does nothing if it is not held."""
        self._done.set()
        with self._lock:
            file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.unlink()  # by our own name: a successor's claim stays
                self.folder.rmdir()  # unless a successor is in it

    def __enter__(self) -> "WriterClaim":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _enter(self, mine: Path, token: str, deadline: float) -> None:
        """Make `mine` the claim, once nobody alive holds one."""
        other: _OtherClaim | None = None
        while not self._rename(mine, token):
            if other is None or not other.file.exists():
                other = _OtherClaim.of(self.folder, clock=mine / f"{token}.json")
            if other is None:  # released just now
                if time.monotonic() > deadline:
                    raise UserError(f"{self.folder} is not what a training left there; remove it")
            elif dead := other.is_dead():
                print(f"taking over {self.root} from {other.owner}: it has ended", flush=True)
                other.file.unlink(missing_ok=True)  # another starter may be faster
                continue
            elif (dead is False and not other.is_ending) or time.monotonic() > deadline:
                raise UserError(
                    f"{self.root} is being trained by {other.owner}; wait for it or stop it, or "
                    "choose another --run_dir"
                )
            else:
                other.announce(deadline - time.monotonic())
            time.sleep(LOOK_SECONDS)
        self._file = self.folder / f"{token}.json"
        self._sweep(now=self._file.stat().st_mtime)

    def _rename(self, mine: Path, token: str) -> bool:
        try:
            mine.rename(self.folder)
        except OSError as error:
            # ENOENT: NFS repeats a request whose answer was lost, and finds it done.
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
                    continue  # a file system that hiccups: the next beat may arrive

    def _sweep(self, now: float) -> None:
        """Remove what starters left that were killed in the midst of a claim."""
        with contextlib.suppress(OSError):  # other starters come and go
            for file in self.root.glob(f"{FOLDER}.*/*"):
                if now - file.stat().st_mtime > SILENT_SECONDS:
                    shutil.rmtree(file.parent)


@dataclass
class _OtherClaim:
    """Another's claim, watched until it goes, beats or has been silent for too long.

    clock: a file of ours beside it. The file system's time decides, not that of two machines.
    """

    file: Path
    owner: Owner
    beat: float
    clock: Path
    announced: bool = False

    @classmethod
    def of(cls, folder: Path, clock: Path) -> "_OtherClaim | None":
        """The claim in `folder`; None where there is none (any more)."""
        try:
            file = next(f for f in folder.iterdir() if f.suffix in (".json", ENDING))
            return cls(file, _read_owner(file), _modified(file), clock)
        except (StopIteration, FileNotFoundError):
            return None

    @property
    def is_ending(self) -> bool:
        return self.file.suffix == ENDING

    def is_dead(self) -> bool | None:
        """None: nobody can tell yet."""
        dead = self.owner.is_dead(Owner.me())
        if dead is not None:
            return dead
        try:
            beat = _modified(self.file)
        except FileNotFoundError:
            return None
        if beat != self.beat:
            return False
        os.utime(self.clock)
        return True if _modified(self.clock) - beat > SILENT_SECONDS else None

    def announce(self, seconds: float) -> None:
        """Say for whom the start waits, once."""
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
    with file.open("rb") as opened:  # NFS asks the server when a file is opened, not for a stat
        return os.fstat(opened.fileno()).st_mtime


def _kernel() -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _process_start(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat, proc(5); None for a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        return f"user {os.getuid()}"
