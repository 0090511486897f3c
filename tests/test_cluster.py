"""Which process of a run this is: from a config and an environment, without a process or a network."""

import pytest

from jaxrl.cluster import PORT, Place, find_place, own_gpu, refuse_several
from jaxrl.config.shared import DistributedSection
from jaxrl.errors import InputError

TPU = {"TPU_WORKER_HOSTNAMES": "host-a,host-b,host-c", "TPU_WORKER_ID": "2"}
SLURM = {
    "SLURM_JOB_ID": "70000",
    "SLURM_STEP_NODELIST": "gpu[07-09],other",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
}
JAX = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}


def nobody(attribute):
    raise AssertionError(f"asked the network for {attribute}")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},  # a TPU VM of one host
        {"TPU_WORKER_HOSTNAMES": "", "TPU_WORKER_ID": "0"},
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # srun of one task
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"},  # a batch script, not yet srun
        {"JOB_COMPLETION_INDEX": "0"},  # a job of Kubernetes that does not say of how many
        {"JAX_NUM_PROCESSES": "1"},
        {**TPU, "JAX_NUM_PROCESSES": "1"},
    ],
)
def test_alone_nobody_is_asked(environ):
    assert find_place(DistributedSection(), environ, nobody) is None
    assert find_place(None, environ, nobody) is None
    refuse_several("x", environ)


@pytest.mark.parametrize(
    "environ, place",
    [
        (JAX, Place("10.0.0.1:1234", 2, 1)),
        (TPU, Place(f"host-a:{PORT}", 3, 2)),
        (
            {
                **TPU,
                "MEGASCALE_NUM_SLICES": "2",
                "MEGASCALE_SLICE_ID": "1",
                "MEGASCALE_COORDINATOR_ADDRESS": "slice-0:8080",
            },
            Place(f"slice-0:{PORT}", 6, 5),
        ),
        (
            {
                "TPU_WORKER_HOSTNAMES": "one",
                "TPU_WORKER_ID": "0",
                "MEGASCALE_NUM_SLICES": "2",
                "MEGASCALE_SLICE_ID": "1",
            },
            Place(f"one:{PORT}", 2, 1),
        ),
        (SLURM, Place("gpu07:61808", 4, 3)),  # 61,440 + 70,000 mod 4,096
        ({**SLURM, "SLURM_STEP_NODELIST": "node1,node2"}, Place("node1:61808", 4, 3)),
        (
            {
                "JOB_COMPLETION_INDEX": "1",
                "JAX_COORDINATOR_ADDRESS": "job-0.net:8482",
                "JAX_NUM_PROCESSES": "2",
            },
            Place("job-0.net:8482", 2, 1),
        ),
    ],
)
def test_what_the_environment_says(environ, place):
    assert find_place(DistributedSection(), environ, nobody) == place
    with pytest.raises(InputError, match=f"sample runs in one process.*one of {place.num_processes};"):
        refuse_several("sample", environ)


def test_the_config_comes_first_then_our_variables_then_the_cluster():
    section = DistributedSection(coordinator="a:1", process_id=0)
    assert find_place(section, JAX, nobody) == Place("a:1", 2, 0)
    assert find_place(section, TPU, nobody) == Place("a:1", 3, 0)
    assert find_place(DistributedSection(coordinator="b:2"), SLURM, nobody) == Place("b:2", 4, 3)
    assert find_place(DistributedSection(num_processes=1), {**JAX, **TPU}, nobody) is None


@pytest.mark.parametrize("endpoints", ["10.0.0.5,10.0.0.6", "x:1:10.0.0.5,y:2:10.0.0.6"])
def test_a_slice_that_says_nothing_is_asked_where_the_config_says_that_there_are_several(endpoints):
    told = {"worker-network-endpoints": endpoints, "agent-worker-number": "1"}
    assert find_place(DistributedSection(num_processes=2), {}, told.get) == Place(f"10.0.0.5:{PORT}", 2, 1)


@pytest.mark.parametrize(
    "values, environ, sentence",
    [
        (
            {"coordinator": "a:1"},
            {},
            r"num_processes, process_id are not set.*JAX_NUM_PROCESSES, JAX_PROCESS_ID",
        ),
        ({"coordinator": "a:1", "num_processes": 2}, {}, r"process_id is not set.*process_id=0\)"),
        ({"coordinator": "a", "num_processes": 2, "process_id": 0}, {}, "'a' is not of the form HOST:PORT"),
        ({"coordinator": "a:x", "num_processes": 2, "process_id": 0}, {}, "'a:x' is not of the form"),
        ({"coordinator": ":1", "num_processes": 2, "process_id": 0}, {}, "':1' is not of the form"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 2}, {}, "process_id=2 is not among the 2"),
        ({}, {**JAX, "JAX_PROCESS_ID": "one"}, "JAX_PROCESS_ID is 'one', which is no number"),
    ],
)
def test_what_does_not_fit_is_named(values, environ, sentence):
    with pytest.raises(InputError, match=sentence):
        find_place(DistributedSection(**values), environ, nobody)


@pytest.mark.parametrize(
    "environ, gpu",
    [
        ({}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_LOCALID": "0"}, None),  # all of the node's
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x2)", "SLURM_LOCALID": "3"}, 3),
        ({"SLURM_STEP_TASKS_PER_NODE": "1,8", "SLURM_LOCALID": "3", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 3),
        # --gpus-per-task=1 has shown it one alone
        ({"SLURM_STEP_TASKS_PER_NODE": "8", "SLURM_LOCALID": "3", "CUDA_VISIBLE_DEVICES": "0"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "8", "SLURM_LOCALID": "3", "JAX_LOCAL_DEVICE_IDS": "0,1"}, None),
    ],
)
def test_of_several_tasks_on_a_node_each_has_a_gpu(environ, gpu):
    assert own_gpu(environ) == gpu
