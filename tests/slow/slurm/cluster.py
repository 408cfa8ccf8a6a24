"""A Slurm cluster of one node on this machine, on loopback only: no root's files, no systemd, no cgroups."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "srun", "sbatch")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
MpiDefault=none
KillWait=5
JobRequeue=1
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs that `apt-get install slurm-wlm munge` brings."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Cluster:
    """Runs while the block does.

    Args:
        folder: for its state; short, since a socket lies in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        here = Path(__file__).parent  # its sacct
        self.environment = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf", "PATH": f"{here}:{os.environ['PATH']}"}

    def __enter__(self) -> "Cluster":
        host = os.uname().nodename.partition(".")[0]
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        config = CONFIG.format(host=host, folder=self.folder, cpus=os.cpu_count())
        (self.folder / "slurm.conf").write_text(config)
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o600)
        places = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid", "log-file": "munged.log",
                  "seed-file": "munged.seed"}  # fmt: skip
        self.run("munged", "--force", *(f"--{option}={self.folder / name}" for option, name in places.items()))
        self.run("slurmctld", "-c")
        self.run("slurmd", "-N", host)
        deadline = time.monotonic() + 60
        while "idle" not in self.run("sinfo", "-h", "-o", "%T"):
            assert time.monotonic() < deadline, (self.folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        """Jobs first: their processes would outlive the daemons."""
        self.run("scancel", "-u", "root")
        deadline = time.monotonic() + 30
        while self.run("squeue", "-h") and time.monotonic() < deadline:
            time.sleep(0.2)
        for name in ("slurmd", "slurmctld", "munged"):
            number = (self.folder / f"{name}.pid").read_text().strip()
            os.kill(int(number), signal.SIGTERM)
            while Path("/proc", number).exists():  # it writes its state
                time.sleep(0.1)

    def run(self, *words: str) -> str:
        """What a program of Slurm's prints."""
        return subprocess.run(words, env=self.environment, check=True, capture_output=True, text=True).stdout
