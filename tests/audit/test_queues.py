"""Audits by a real SLURM of this machine: job arrays of shares, and workers of Dask that its queue starts. Oracle: the
same run of one process, byte by byte."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from tests.audit.conftest import write_corpus
from tests.audit.test_clusters import ROOT, audited, end_with_test, wait_for
from tests.audit.test_shared_runs import same

pytestmark = [pytest.mark.nightly, pytest.mark.skipif(not shutil.which("slurmctld"), reason="SLURM is not installed")]
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}
SlurmdSpoolDir={folder}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=4000
PartitionName=work Nodes=ALL Default=YES State=UP
"""
NETWORK = """
import sys

sys.path.insert(0, {root!r})
from tests.audit.conftest import network as build
"""
SCRIPT = """#!/bin/bash
export PYTHONPATH={root}/src OMP_NUM_THREADS=1
{python} -m klarsicht audit run --model net.py:build --data data --out {out} --unit 12 --batch 6 {more}
"""


def free_ports(n):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A scheduler of SLURM and one node, which end with the test."""
    if os.getuid():
        pytest.skip("SLURM runs jobs as root here")
    folder = tmp_path / "slurm"
    folder.mkdir()
    file = folder / "slurm.conf"
    file.write_text(
        CONFIGURATION.format(host=socket.gethostname(), ports=free_ports(2), folder=folder, cores=os.cpu_count())
    )
    monkeypatch.setenv("SLURM_CONF", str(file))
    with (folder / "log").open("ab") as log, contextlib.ExitStack() as stack:
        for program in ("slurmctld", "slurmd"):
            one = subprocess.Popen([program, "-D", "-f", str(file)], stdout=log, stderr=log, preexec_fn=end_with_test)
            stack.callback(one.wait)
            stack.callback(one.send_signal, signal.SIGTERM)
            time.sleep(1)
        wait_for(lambda: "idle" in subprocess.run(["sinfo", "-h"], capture_output=True, text=True).stdout, 60)
        yield folder


@pytest.fixture
def place(tmp_path):
    """A folder with a corpus and a model."""
    write_corpus(tmp_path / "data", per_class=30)
    (tmp_path / "net.py").write_text(NETWORK.format(root=str(ROOT)))
    return tmp_path


def submit(place, out, *options, more=""):
    """Submit a command to the queue, and wait for its end."""
    file = place / f"{out}.sh"
    file.write_text(SCRIPT.format(root=ROOT, python=sys.executable, out=out, more=more))
    subprocess.run(["sbatch", "--wait", "-o", "log-%a", *options, str(file)], cwd=place, check=True)


def test_an_array_of_shares_and_one_command_after_it_give_the_run_of_one_process(queue, place):
    submit(place, "whole")
    submit(place, "shared", "--array=1-3", more="--shard auto")
    assert len([*(place / "shared" / "done" / "attribution").glob("*.json")]) == 8  # 90 images by 12
    submit(place, "shared")
    same(place / "whole", place / "shared")


def test_workers_that_the_queue_starts_for_dask_give_the_run_of_one_process(queue, place):
    jobqueue = pytest.importorskip("dask_jobqueue")
    (place / "client").mkdir()
    audited(place, "here", "local")
    prologue = [f"export PYTHONPATH={ROOT}/src OMP_NUM_THREADS=1"]
    with jobqueue.SLURMCluster(
        cores=1, processes=1, memory="1GB", walltime="01:00:00", job_script_prologue=prologue, log_directory=str(queue)
    ) as cluster:
        cluster.scale(jobs=2)
        assert audited(place, "there", f"dask:{cluster.scheduler_address}") == []
        assert len(cluster.scheduler_info["workers"]) == 2
    same(place / "client" / "here", place / "client" / "there")
