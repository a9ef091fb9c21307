"""Two real processes over gloo end with the weights of one process with the whole batch."""

from pathlib import Path

import distributed_training
import pytest
import torch
from processes import run, torchrun

from camseg_core.errors import ConfigError
from camseg_core.training.distributed import Processes

SCRIPT = Path(distributed_training.__file__)


def train(count: int, *arguments: object) -> None:
    result = run(torchrun(count, SCRIPT, *arguments), timeout=240)
    assert result.returncode == 0, result.stderr


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "weights.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_get_the_weights_of_one_with_twice_the_batch(
    tmp_path: Path, strategy: str
) -> None:
    train(1, strategy, tmp_path / "one", 4)
    train(2, strategy, tmp_path / "two", 4)
    for rank in range(2):
        threads = (tmp_path / "two" / f"threads-{rank}.txt").read_text()
        assert "gloo" not in threads, "a thread that outlives Python may abort the process"
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-4, msg=name)
    state = torch.cat(
        [tensor.flatten() for name, tensor in one.items() if name.startswith("transformer")]
    )
    torch.manual_seed(0)
    start = distributed_training.CamSeg(
        distributed_training.CONFIG, distributed_training.LABELS
    ).state_dict()
    began = torch.cat(
        [tensor.flatten() for name, tensor in start.items() if name.startswith("transformer")]
    )
    assert (state - began).abs().max() > 1e-4, (
        "the weights did not move: there was nothing to compare"
    )


@pytest.mark.slow
def test_a_split_run_resumes_in_one_process(tmp_path: Path) -> None:
    """Half the run in two processes with FSDP, the rest in one: the state is the same file."""
    train(1, "ddp", tmp_path / "one", 4)
    train(2, "fsdp", tmp_path / "both", 2)
    train(1, "ddp", tmp_path / "both", 4)
    for name, tensor in weights(tmp_path / "one").items():
        torch.testing.assert_close(
            weights(tmp_path / "both")[name], tensor, atol=1e-5, rtol=1e-4, msg=name
        )


def test_samples_are_shared_without_gap_or_overlap() -> None:
    taken = [list(Processes(rank, 3).samples(step=2, batch=6)) for rank in range(3)]
    assert taken == [[12, 13], [14, 15], [16, 17]]


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="a batch of 6 cannot be shared by 4 processes: make it a multiple of 4"
    ):
        Processes(0, 4).samples(step=0, batch=6)
