"""A real Slurm cluster on this machine, from Debian's packages: daemons in the foreground, ended by pid."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlflow_plugkit_testing.server import free_port

NEEDED = ("sbatch", "slurmctld", "slurmd", "munged")
NEEDED_FOR_ACCOUNTING = ("slurmdbd", "sacctmgr", "mariadbd", "mariadb-install-db")
SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
CONF = """\
ClusterName=plugkit
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1500
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,bf_interval=2,kill_invalid_depend
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdTimeout=5
SlurmdParameters=config_overrides
MessageTimeout=5
KillWait=2
MinJobAge=300
NodeName={main} NodeHostname={host} NodeAddr=127.0.0.1 Port={main_port} CPUs=64 RealMemory=200000 State=UNKNOWN
NodeName={frail} NodeHostname={host} NodeAddr=127.0.0.1 Port={frail_port} CPUs=2 RealMemory=200000 State=UNKNOWN
NodeName={doomed} NodeHostname={host} NodeAddr=127.0.0.1 Port={doomed_port} CPUs=2 RealMemory=200000 State=UNKNOWN
PartitionName=doomed Nodes={doomed} MaxTime=INFINITE State=UP
PartitionName=debug Nodes={main} Default=YES MaxTime=INFINITE State=UP
PartitionName=frail Nodes={frail} MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes={frail} MaxTime=INFINITE State=UP PriorityTier=10
"""
WITH_CGROUPS = """\
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
"""
WITHOUT_CGROUPS = """\
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherParams=OverMemoryKill
"""
CGROUP_CONF = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nConstrainRAMSpace=yes\nMinRAMSpace=10\n"
CGROUPS = Path("/sys/fs/cgroup")
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.sock
"""
DBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser={user}
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql}
StorageUser=slurm
StoragePass=p
StorageLoc=slurm_acct_db
"""


def missing(accounting: bool) -> str:
    """What is not there, as a reason to skip; "" where all is."""
    programs = NEEDED + (NEEDED_FOR_ACCOUNTING if accounting else ())
    absent = [program for program in programs if shutil.which(program, path=SBIN) is None]
    packages = "slurm-wlm munge" + (" slurmdbd mariadb-server-core" if accounting else "")
    return f"{', '.join(absent)} missing; install the Debian packages {packages}" if absent else ""


def until(condition: Callable[[], object], seconds: float = 30.0, what: str = "the condition") -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not hold within {seconds} seconds"
        time.sleep(0.1)


class Cluster:
    """A controller, nodes (`main`, the small `frail`, and `doomed`, to be killed), and accounting where wanted.

    Attributes:
        cgroups: whether Slurm constrains memory by cgroups (version 1, as root), so that it knows OUT_OF_MEMORY;
            otherwise it measures the processes, and kills those that use too much.
    """

    def __init__(self, *, accounting: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.accounting = accounting
        self.host = socket.gethostname().partition(".")[0]
        token = secrets.token_hex(3)
        self.main, self.frail, self.doomed = self.nodes = (f"main-{token}", f"frail-{token}", f"doomed-{token}")
        controllers = (CGROUPS / "memory", CGROUPS / "freezer")
        self.cgroups = not accounting and os.geteuid() == 0 and all(os.access(c, os.W_OK) for c in controllers)
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.conf = self.folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf), "PATH": SBIN}

    def start(self) -> None:
        ports = {name: free_port() for name in ("ctld", "main_port", "frail_port", "doomed_port", "dbd", "sql")}
        nodes = {"main": self.main, "frail": self.frail, "doomed": self.doomed}
        names = {"folder": self.folder, "host": self.host, "user": getpass.getuser(), **nodes, **ports}
        parts = [CONF, WITH_CGROUPS if self.cgroups else WITHOUT_CGROUPS, ACCOUNTING if self.accounting else ""]
        self.conf.write_text("".join(parts).format(**names))
        if self.cgroups:
            (self.folder / "cgroup.conf").write_text(CGROUP_CONF)
        (self.folder / "state").mkdir()
        self._start_munge()
        if self.accounting:
            self._start_accounting(names)
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        self.wait_idle()

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        files = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        flags = [f"--{flag}={self.folder}/munge.{name}" for flag, name in files.items()]
        self._daemon("munged", "--foreground", "--force", *flags)
        until((self.folder / "munge.sock").exists, what="munged's socket")

    def _start_accounting(self, names: dict[str, object]) -> None:
        data = self.folder / "mysql"
        same = ["--no-defaults", f"--datadir={data}", f"--user={getpass.getuser()}"]
        install = [*same, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        self.run("mariadb-install-db", *install, timeout=120)
        first = self.folder / "first.sql"
        first.write_text("CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'p';\nGRANT ALL ON *.* TO slurm@'127.0.0.1';\n")
        sql = [f"--port={names['sql']}", "--bind-address=127.0.0.1", f"--socket={self.folder}/sql.sock"]
        calm = ["--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve", f"--pid-file={self.folder}/sql.pid"]
        self._daemon("mariadbd", *same, *sql, *calm, f"--init-file={first}")
        until(lambda: _listens(int(str(names["sql"]))), 60, "mariadbd listens")
        conf = self.folder / "slurmdbd.conf"
        conf.write_text(DBD_CONF.format(**names))
        conf.chmod(0o600)
        self._daemon("slurmdbd", "-D")
        until(lambda: _listens(int(str(names["dbd"]))), 60, "slurmdbd listens")
        until(lambda: self.run("sacctmgr", "-i", "add", "cluster", "plugkit", check=False).returncode == 0, 30)

    def _daemon(self, *argv: str) -> None:
        name = " ".join([argv[0], *(a for a in argv[-1:] if a in self.nodes)])
        with (self.folder / f"{name}.out").open("ab") as output:
            self.daemons[name] = subprocess.Popen(
                argv,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def start_controller(self) -> None:
        self._daemon("slurmctld", "-D")
        until(lambda: self.run("scontrol", "ping", check=False).returncode == 0, what="slurmctld answers")

    def start_node(self, node: str) -> None:
        self._daemon("slurmd", "-D", "-N", node)

    def stop_controller(self) -> None:
        self._end("slurmctld")

    def kill_node(self, node: str) -> None:
        """End a node's daemon and everything of its jobs, as a power failure does."""
        self._end(f"slurmd {node}", signal.SIGKILL)
        for how in (signal.SIGSTOP, signal.SIGKILL):  # at once: a step that outlives the job would report its end
            for pid in self._of_us(f"SLURMD_NODENAME={node}", f"spool-{node}"):
                os.kill(pid, how)

    def wait_idle(self) -> None:
        def idle() -> bool:
            shown = self.run("sinfo", "-h", "-N", "-o", "%N %T", check=False).stdout.split("\n")
            return {line for line in shown if line} == {f"{node} idle" for node in self.nodes}

        until(idle, 60, "all nodes are idle")

    def run(self, *argv: str, timeout: float = 30, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            argv,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert not (check and done.returncode), f"{argv}: {done.stdout}{done.stderr}"
        return done

    def _end(self, name: str, how: int = signal.SIGTERM) -> None:
        daemon = self.daemons.pop(name)
        daemon.send_signal(how)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait(10)

    def _of_us(self, *marks: str) -> list[int]:
        """Processes of jobs that have this cluster's files and one of the marks in view, and their step daemons."""
        found: set[int] = set()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                parent = Path("/proc", (entry / "stat").read_text().rpartition(")")[2].split()[1])
                daemon = (parent / "cmdline").read_bytes().startswith(b"slurmstepd")
            except OSError:
                continue  # it ended meanwhile
            if str(self.folder).encode() in text and any(mark.encode() in text for mark in marks):
                found |= {int(entry.name)} | ({int(parent.name)} if daemon else set())
        return sorted(found - {os.getpid()})

    def stop(self) -> None:
        """End everything: jobs, daemons, and steps that lost their daemon."""
        if "slurmctld" in self.daemons:
            self.run("scancel", "--user", getpass.getuser(), check=False)
            until(lambda: not self.run("squeue", "-h", check=False).stdout.strip(), 30, "all jobs have ended")
        for name in reversed(list(self.daemons)):
            self._end(name)
        for pid in self._of_us("SLURM_JOB_ID="):
            os.kill(pid, signal.SIGKILL)
        for group in [g for node in self.nodes for g in CGROUPS.glob(f"*/slurm_{node}")]:
            until(lambda group=group: _removed(group), 30, f"{group} is removed")
        shutil.rmtree(self.folder, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _removed(group: Path) -> bool:
    """Whether a control group is gone; it can be removed once its processes have ended."""
    with contextlib.suppress(OSError):
        for folder in sorted((p for p in group.rglob("*") if p.is_dir()), reverse=True):
            folder.rmdir()
        group.rmdir()
    return not group.exists()
