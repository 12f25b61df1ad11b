"""The array file of train_all.py on a real Slurm: one controller and one node, both on loopback, without privileges."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from foldblend.commands import make_folds, train_all

DAEMONS = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for name in ("slurmctld", "slurmd")}
pytestmark = pytest.mark.skipif(
    not all(DAEMONS.values()) or not shutil.which("sbatch"),
    reason="Slurm is not installed: apt-get install slurm-wlm",
)
CONF = """ClusterName=foldblend
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,sched_interval=1
MpiDefault=none
ReturnToService=2
KillWait=20
MinJobAge=300
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName=localhost NodeAddr=127.0.0.1 CPUs=16 RealMemory=131072 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(n):
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(n)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not come in {seconds} s"
        time.sleep(0.1)
    return found


class Cluster:
    """Slurm's own commands on the cluster of a folder."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "state").mkdir(parents=True)
        (folder / "spool").mkdir()
        conf = folder / "slurm.conf"
        self.ports = free_ports(2)
        conf.write_text(CONF.format(folder=folder, user=getpass.getuser(), ports=self.ports))
        self.env = {**os.environ, "SLURM_CONF": str(conf)}
        self.daemons = []

    def start(self):
        for name, more in (("slurmctld", []), ("slurmd", ["-N", "localhost"])):
            command = [DAEMONS[name], "-D", *more]
            with open(self.folder / f"{name}.out", "wb") as log:
                self.daemons.append(subprocess.Popen(command, env=self.env, stdout=log, stderr=log))
        wait_for(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T"), f"an idle node ({self.said()})", 20)
        assert self.hosts() == {"0100007F"}, "no stranger may hand jobs to daemons that trust everybody"

    def hosts(self):
        """Addresses that the daemons listen on, as the kernel writes them."""
        tables = [Path(f"/proc/net/{table}") for table in ("tcp", "tcp6")]
        lines = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
        heard = [address.split(":") for _, address, _, state, *_ in lines if state == "0A"]
        return {host for host, port in heard if int(port, 16) in self.ports}

    def ask(self, *words, must=False):
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, check=False)
        assert not must or done.returncode == 0, done.stderr
        return done.stdout

    def said(self):
        return " | ".join(path.read_text()[-300:] for path in self.folder.glob("*.log"))

    def states(self, job):
        """Task of the array -> its state."""
        shown = self.ask("squeue", "-h", "-a", "-t", "all", "-r", "-j", str(job), "-o", "%K %T").split("\n")
        return dict(line.split() for line in shown if line.strip())

    def stop(self):
        for each in reversed(self.daemons):
            each.terminate()
        for each in self.daemons:
            each.wait(timeout=20)


@pytest.fixture
def cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        made.start()
        yield made
    finally:
        made.ask("scancel", "--full", "-u", getpass.getuser())
        made.stop()


def write_toy(paths):
    """Competition `toy`, 3 folds of 60 rows, and run `words`."""
    folder, words = paths.data("toy"), ("glad", "sad", "mad")
    folder.mkdir(parents=True)
    header, rows = "id,text,joy,sadness,anger", []
    for i in range(60):
        labels = [int(i % 3 == k or i % 5 == k) for k in range(3)]
        said = " ".join(word for word, there in zip(words, labels) if there)
        rows.append(f"r{i},{said} number {i * i} {i},{','.join(map(str, labels))}")
    (folder / "train.csv").write_text("\n".join([header, *rows, ""]))
    (folder / "test.csv").write_text("id,text\nt0,glad today\nt1,mad today\n")
    (folder / "sample_submission.csv").write_text("id,joy,sadness,anger\nt0,0,0,0\nt1,0,0,0\n")
    (paths.configs / "competitions" / "toy.yaml").write_text("id_column: id\nn_folds: 3\nnear_duplicates: 1.0\n")
    (paths.configs / "runs" / "words.yaml").write_text("learner: tfidf\n")


def test_an_array_on_slurm_is_cancelled_and_requeued_and_ends_with_all_folds(paths, cluster):
    """Task 0 is requeued while it trains, task 1 is cancelled and submitted again."""
    write_toy(paths)
    make_folds.main(["--competition", "toy"])
    file = paths.root / "folds.sbatch"
    train_all.main(["--competition", "toy", "--runs", "words", "--write_slurm", str(file), "--machines", "2"])
    logs = paths.root / "logs"
    logs.mkdir()
    submit = ["sbatch", "--parsable", "--chdir", str(logs), str(file)]
    job = int(cluster.ask(*submit, must=True))

    def is_training(task):
        path = logs / f"slurm-{job}_{task}.out"
        return path.exists() and "folds to train" in path.read_text()

    wait_for(lambda: is_training(0) and is_training(1), f"both tasks ({cluster.said()})")
    cluster.ask("scontrol", "requeue", f"{job}_0", must=True)
    cluster.ask("scancel", f"{job}_1", must=True)
    wait_for(lambda: cluster.states(job).get("1") == "CANCELLED", "the end of task 1")
    again = int(cluster.ask(*submit[:2], "--array=1", *submit[2:], must=True))
    wait_for(lambda: cluster.states(job).get("0") == "COMPLETED", f"the end of task 0 ({cluster.states(job)})")
    wait_for(lambda: cluster.states(again).get("1") == "COMPLETED", "the end of the second task 1")
    said = (logs / f"slurm-{job}_0.out").read_text()
    assert said.count("folds to train") == 2 and "stopped; every training that ran is saved" in said, said
    assert sorted(path.name for path in (paths.oof("toy") / "words").glob("fold*.npz")) == [
        "fold0.npz",
        "fold1.npz",
        "fold2.npz",
    ]
