"""Recipes for clusters: what they would start, and whether they are what others expect. No cluster is needed."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
STUBS = {
    "scontrol": "printf '%s\\n' alpha beta gamma",
    "srun": (
        'echo "srun $*" >> "$LOG"\n'
        'case "$*" in *hostname*) echo "10.0.0.1 fe80::1" ;; *) echo $$ >> "$LOG.pids"; exec sleep 600 ;; esac'
    ),
    "ray": 'echo "ray $*" >> "$LOG"',
    "work": (
        'echo "work $*"; echo $$ > "$LOG.work"; [ "$1" != wait ] || exec sleep 600\n'
        'until [ "$(grep -c "ray start" "$LOG")" = 3 ]; do sleep 0.02; done; exit 7'  # nodes come when they come
    ),
}


@pytest.fixture
def slurm(tmp_path):
    """Starts the script with stubs in place of Slurm's commands and of Ray's; returns the process and a folder."""
    for name, text in STUBS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "SLURM_JOB_NODELIST": "alpha,beta,gamma",
        "SLURM_JOB_ID": "4242",
        "SLURM_CPUS_PER_TASK": "16",
    }
    processes = []

    def start(*command):
        processes.append(
            subprocess.Popen(
                ["bash", EXAMPLES / "slurm.sh", *command], env=environment, stdout=subprocess.PIPE, text=True
            )
        )
        return processes[0]

    yield start
    processes[0].kill()


def gone(folder):
    numbers = (folder / "log.pids").read_text().split()
    return len(numbers) == 3 and not any(Path(f"/proc/{number}").exists() for number in numbers)


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_slurm_starts_a_cluster_and_a_command_and_ends_both(slurm, tmp_path):
    process = slurm("work", "--out", "here")
    out, _ = process.communicate(timeout=30)
    assert out == "work --out here --executor ray --address 10.0.0.1:24242\n"
    assert process.returncode == 7  # the command's
    common = "--num-cpus=16 --num-gpus=0 --disable-usage-stats --block"
    lines = (tmp_path / "log").read_text().splitlines()
    asked = (line.partition(" ray start ")[2] for line in lines if "ray start" in line)  # in any order
    head, *others = sorted(asked, key=lambda line: "--head" not in line)
    assert head == f"--head --node-ip-address=10.0.0.1 --port=24242 --include-dashboard=false {common}"
    assert others == [f"--address=10.0.0.1:24242 {common}"] * 2
    nodes = sorted(line.split(" -w ")[1].split()[0] for line in lines if "ray start" in line)
    assert nodes == ["alpha", "beta", "gamma"]
    assert "ray health-check --address 10.0.0.1:24242" in lines
    wait_for(lambda: gone(tmp_path))


def test_slurm_tells_the_command_that_its_time_is_over(slurm, tmp_path):
    process = slurm("work", "wait")
    wait_for((tmp_path / "log.work").exists)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert not Path(f"/proc/{(tmp_path / 'log.work').read_text().strip()}").exists()
    wait_for(lambda: gone(tmp_path))


def test_slurm_wants_a_command(tmp_path):
    done = subprocess.run(["bash", EXAMPLES / "slurm.sh"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: sbatch ")


# The fields of a RayCluster (ray.io/v1) and of a pod that may be in the manifest; anything else is a slip.
POD = {
    "containers": {"name", "image", "env", "resources", "volumeMounts"},
    "volumes": {"name", "persistentVolumeClaim"},
    "terminationGracePeriodSeconds": None,
}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
CLUSTER = {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"}


def check_pod(pod):
    assert set(pod) <= set(POD)
    for name, fields in POD.items():
        if fields:
            assert all(set(one) <= fields for one in pod.get(name, []))
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in pod["containers"]:
        assert {"name", "image", "resources"} <= set(container)
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes


def test_the_manifest_for_kubernetes_has_the_fields_of_its_kind():
    yaml = pytest.importorskip("yaml", reason="it comes with Ray")
    cluster = yaml.safe_load((EXAMPLES / "kuberay.yaml").read_text())
    assert set(cluster) == {"apiVersion", "kind", "metadata", "spec"}
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    spec = cluster["spec"]
    assert set(spec) == CLUSTER
    assert set(spec["autoscalerOptions"]) == {"idleTimeoutSeconds"}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert set(group) <= GROUP
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        check_pod(group["template"]["spec"])
    assert all(set(group) == GROUP for group in spec["workerGroupSpecs"])
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    images = {group["template"]["spec"]["containers"][0]["image"] for group in spec["workerGroupSpecs"]}
    assert images == {spec["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]}
