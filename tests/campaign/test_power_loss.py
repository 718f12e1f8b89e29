"""Power losses at any instant of a save, on a simulated disk that drops or reorders what was not synced."""

import pytest
from disk import Recording, losses
from harness import BrokenPromiseError, Outcome, each, part, require
from saves import TURNS, save_of

from fastlstm.checkpoint import check_writable

#: The folder of the file, below that of the trial; the second one is made by the run.
FOLDERS = (".", "runs/notes")
#: Number of power losses after which the next save is tried.
_CONTINUED = 3


class Simulation:
    """A save and the power losses during it, with one of its syncs left out if ``without`` is given."""

    def __init__(self, number, root, rng, without=None):
        self.save = save_of(number // len(FOLDERS))
        self.folder, self._root, self._rng = FOLDERS[number % len(FOLDERS)], root, rng
        folder = root / self.folder
        path = folder / self.save.format.file_name
        if self.save.overwrites:
            folder.mkdir(parents=True, exist_ok=True)
            self.save.prepare(folder)
        self.name = str(path.relative_to(root))
        with Recording(root, without) as self.recording:
            check_writable(folder)
            self.save.write(path)

    def losses(self):
        return list(losses(self.recording, self._rng))

    def require_whole(self, loss):
        """There must be the old file or the new one, and if the save was over, the new one."""
        allowed = [self.save.new] if loss.is_after_all else [self.save.old, self.save.new]
        require(loss.files.get(self.name) in allowed, Outcome.LOST, f"neither the old file nor the new one: {loss}")

    def require_tidied(self, loss, root):
        """The next save must succeed, and leave nothing else in the folder."""
        (root / self.folder).mkdir(parents=True)
        for name, content in loss.files.items():
            (root / name).write_bytes(content)
        self.save.require_tidied(root / self.name)


@part("power losses", full=TURNS * len(FOLDERS), small=8, seconds=60)
def test_after_a_power_loss_there_is_a_whole_file(trials):
    """The old file or the new one, and the new one if the save was over; the next save removes what else is there."""
    trials.run(lose_power)


def lose_power(trial):
    rng = trial.generator()
    simulation = Simulation(trial.number, trial.folder, rng)
    found = simulation.losses()
    for at in rng.choice(len(found), _CONTINUED, replace=False):
        simulation.require_tidied(found[at], trial.folder / f"after {at}")
    return each(simulation.require_whole, found)


@pytest.mark.parametrize("number", range(2 * len(FOLDERS)))
def test_the_simulation_finds_a_sync_that_is_left_out(number, tmp_path, rng):
    """If the simulation did not, it would show nothing: every sync of a save is needed."""
    syncs = Simulation(number, tmp_path / "complete", rng).recording.syncs
    assert syncs >= 2
    for without in range(syncs):
        simulation = Simulation(number, tmp_path / f"{without}", rng, without)
        with pytest.raises(BrokenPromiseError, match="neither"):
            each(simulation.require_whole, simulation.losses())


def test_the_simulation_finds_a_file_that_is_overwritten_in_place(tmp_path, rng):
    (tmp_path / "file").write_bytes(b"old" * 1000)
    with Recording(tmp_path) as recording, open(tmp_path / "file", "r+b") as file:
        file.write(b"new" * 1000)
    assert {b"old" * 1000, b"new" * 1000} < {loss.files["file"] for loss in losses(recording, rng)}
